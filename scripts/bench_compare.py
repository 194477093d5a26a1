"""Two results of `make bench` side by side: which ratios got worse.

    python scripts/bench_compare.py OLD NEW [--tolerance 0.1]     folders with the *.json of `make bench`, or two files

Seconds of two days are of two machines; ratios of one run are compared, each row by what it was measured of. Exit code
1 where one got worse by more than the tolerance, 2 where there is nothing to compare.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Of a ratio: whether more is better.
RATIOS = {
    **dict.fromkeys(["speedup", "step_speedup", "gain", "dataloader_over_train"], True),
    **dict.fromkeys(["hidden_over_two_passes", "classifier_over_two_passes", "with_logits_over_two_passes"], False),
    **dict.fromkeys(["train_over_bare", "train_over_plain", "both_over_bare", "measure_over_train"], False),
    "step_over_peer": False,
}
LABELS = ("n", "classes", "d", "spread", "kind", "setting", "seeds", "peer")  # what tells the rows of a file apart


def ratios(file: Path) -> Iterator[tuple[str, float]]:
    """(what was measured, ratio) of a file."""
    result = json.loads(file.read_text())
    rows: list[dict[str, Any]] = [result, *result.get("rows", [])]
    for row in rows:
        labels = " ".join(f"{label}={row[label]}" for label in LABELS if label in row)
        for name in RATIOS.keys() & row.keys():
            yield f"{file.stem} {labels} {name}", row[name]


def found(path: Path) -> dict[str, float]:
    """All ratios of a folder or file."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    return {what: ratio for file in files for what, ratio in ratios(file)}


def compared(old: dict[str, float], new: dict[str, float], tolerance: float) -> tuple[list[str], int]:
    """Lines, the worst change first, then what one side lacks; how many ratios got worse by more than the tolerance."""
    changes = []
    for what in old.keys() & new.keys():
        better = new[what] / old[what] if RATIOS[what.rpartition(" ")[2]] else old[what] / new[what]
        changes.append((better, what))
    lines = []
    for better, what in sorted(changes):
        mark = "worse" if better < 1 / (1 + tolerance) else "better" if better > 1 + tolerance else ""
        lines.append(f"{old[what]:9.3f} {new[what]:9.3f}  {mark:6}  {what}")
    worse = sum(better < 1 / (1 + tolerance) for better, _ in changes)
    for side, own, other in (("old", old, new), ("new", new, old)):
        lines += [f"{'in the ' + side + ' one alone':>27}  {what}" for what in sorted(own.keys() - other.keys())]
    return lines, worse


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.1, help="share by which a ratio may get worse")
    args = parser.parse_args()
    for path in (args.old, args.new):
        if not path.exists():
            print(f"error: expected a folder or file of `make bench`, there is no {path}", file=sys.stderr)
            return 2
    old, new = found(args.old), found(args.new)
    lines, worse = compared(old, new, args.tolerance)
    both = len(old.keys() & new.keys())
    if not both:
        print(f"error: {args.old} and {args.new} have no ratio of the same row", file=sys.stderr)
        return 2
    print("      old       new", *lines, sep="\n")
    print(f"{worse} of {both} ratios got worse by more than {args.tolerance:.0%}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
