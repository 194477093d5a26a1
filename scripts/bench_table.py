"""The results of `make bench` as Markdown, from outputs/bench/*.json: what was measured, the aim, the machine's limit.

python scripts/bench_table.py [FOLDER]                prints, and writes FOLDER/table.md (outputs/bench)
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Result = dict[str, Any]
MIB = 2**20


def table(head: list[str], rows: list[list[str]]) -> str:
    """The first column on the left, numbers on the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measuring(r: Result) -> str:
    rows = []
    for row in r["rows"]:
        what = f"{row['n']:,} x {row['d']}, {row['classes']} classes, spread {row['spread']:g}"
        of_bare = [f"{row[f'{name}_over_two_passes']:.2f}" for name in ("hidden", "classifier", "with_logits")]
        share = row["limit_seconds"] / row["hidden_seconds"]
        rows.append([what, f"{row['hidden_seconds']:.3f}", f"{row['speedup']:.1f}", *of_bare, f"{share:.0%}"])
    bare = ["of two bare passes", "classifier's input", "its logits too"]
    return table(["collapse metrics", "seconds", "times faster than d x d", *bare, "of the limit"], rows)


def training(r: Result) -> str:
    bare = r["bare_seconds"]
    rows = [
        [what, f"{spent:.2f}", f"{spent / bare:.2f}", f"{r['limit_seconds'] / spent:.0%}"]
        for what, spent in (
            (f"bare matrix products of an epoch ({r['bare_gflops']:.0f} GFLOP/s)", bare),
            ("training epoch", r["train_seconds"]),
            ("training epoch of a plain loop over images in memory", r["plain_seconds"]),
            ("full measurement, train and test", r["measure_seconds"]),
            ("training epoch with full measurement", r["train_seconds"] + r["measure_seconds"]),
            ("training epoch of a plain torchvision DataLoader loop", r["dataloader_seconds"]),
        )
    ]
    return table([f"MLP-5x400, {r['n']:,} images", "seconds", "of the products", "of the limit"], rows)


def networks(r: Result) -> str:
    rows = []
    for row in r["rows"]:
        theirs = ["not installed", ""]
        if "not_installed" not in row:
            spread = " to ".join(f"{end:.2f}" for end in row["step_over_peer_spread"])
            theirs = [f"{row['peer_step_seconds'] * 1e3:.1f}", f"{row['step_over_peer']:.2f} ({spread})"]
        rows.append([row["setting"], f"{row['step_seconds'] * 1e3:.1f}", row["peer"], *theirs])
    return table(["training step, batch 128", "ms", "same network of", "its ms", "ours over it"], rows)


def layers(r: Result) -> str:
    rows = []
    for row in r["rows"]:
        limit = f"{row['limit_seconds'] / row['seconds']:.0%}" if row["map_bytes"] < row["d"] ** 2 else ""
        numbers = [f"{row['seconds'] * 1e3:.2f}", f"{row['speedup']:.1f}", limit, f"{row['step_speedup']:.2f}"]
        weights = [f"{row[key] / MIB:.3g}" for key in ("map_bytes", "adam_bytes", "kept_bytes", "checkpoint_bytes")]
        rows.append([str(row["d"]), row["kind"], *numbers, *weights, f"{row['peak_bytes'] / MIB:.0f}"])
    head = ["d", "map", "ms", "times faster than frozen", "of the limit", "MLP step"]
    return table([*head, "MiB: map", "Adam", "kept for backward", "checkpoint", "peak of 8"], rows)


def seeds(r: Result) -> str:
    names = list(dict.fromkeys(row["setting"] for row in r["rows"]))
    counts = sorted({row["seeds"] for row in r["rows"]})
    rows = []
    for name in names:
        own = {row["seeds"]: row for row in r["rows"] if row["setting"] == name}
        used = [count for count, row in own.items() if row["batched_by_default"]]
        gains = [f"{own[count]['gain']:.2f}" if count in own else "" for count in counts]
        rows.append([name, *gains, f"S >= {min(used)}" if used else "no"])
    return table(["batched, times faster than in turns, S =", *map(str, counts), "done here"], rows)


def growth(r: Result) -> str:
    return table(["cost grows with", "exponent"], [[name, f"{value:.2f}"] for name, value in r["exponents"].items()])


PARTS: dict[str, Callable[[Result], str]] = {
    "measure": measuring,
    "train": training,
    "networks": networks,
    "layers": layers,
    "seeds": seeds,
    "growth": growth,
}


def about(r: Result) -> str:
    """Where and when."""
    hardware, rates = r["hardware"], r["limits"]
    where = hardware.get("gpu") or f"{hardware['processor']}, {hardware['threads']} threads"
    return (
        f"{where}; torch {r['versions']['torch']}, {r['date']}; limits: {rates['gemm_flops'] / 1e9:.0f} GFLOP/s, "
        f"reading {rates['read_bytes'] / 1e9:.0f} GB/s, copying {rates['copy_bytes'] / 1e9:.0f} GB/s"
    )


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/bench")
    found = {name: folder / f"{name}.json" for name in PARTS if (folder / f"{name}.json").exists()}
    if not found:
        print(f"error: no result in {folder}: run `make bench` first", file=sys.stderr)
        return 2
    parts = []
    for name, path in found.items():
        result = json.loads(path.read_text())
        try:
            parts.append(f"{PARTS[name](result)}\n\n{about(result)}\n")
        except KeyError as error:
            print(f"error: {path} has no {error}: expected a result of this version's `make bench`", file=sys.stderr)
            return 2
    text = "\n".join(parts)
    (folder / "table.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
