"""Summary tables: one row a policy, from the runs' summary.json."""

from pathlib import Path

import pandas as pd

from nclab.analysis.runs import Run, differences, flatten, refuse_twins


def summary_table(runs: list[Run]) -> pd.DataFrame:
    """One row a policy, as numbers: counts, fractions, percent saved; std is the sample's (nan with one seed).

    Runs may differ in more than seed and policy (a shallower network as control): each such setting then is a
    column in front, and nothing is averaged over it. `effective_depth` is the mean over the
    `effective_depth_n` seeds that have one.
    """
    extra = list(differences(runs))
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        settings = flatten(run.config)
        groups.setdefault((*(str(settings.get(key, "-")) for key in extra), run.policy), []).append(run)
    rows = []
    for key, group in groups.items():
        refuse_twins(group)
        learnable = pd.Series([run.result("parameters_learnable") for run in group])
        total = pd.Series([run.result("parameters_total") for run in group])
        train, test = (
            pd.Series([run.result(f"final.{split}.accuracy") for run in group], dtype=float)
            for split in ("train", "test")
        )
        depth = pd.Series([run.result("final.effective_depth") for run in group], dtype=float)
        rows.append(
            dict(zip([*extra, "policy"], key, strict=True))
            | {
                "seeds": len(group),
                "learnable": learnable.mean(),
                "learnable_min": learnable.min(),
                "learnable_max": learnable.max(),
                "saved_percent": 100 * (1 - (learnable / total).mean()),
                "train_accuracy": train.mean(),
                "train_accuracy_std": train.std(),
                "test_accuracy": test.mean(),
                "test_accuracy_std": test.std(),
                "effective_depth": depth.mean(),
                "effective_depth_n": int(depth.count()),
            }
        )
    return pd.DataFrame(rows)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """`summary_table` as text for people: accuracies in percent, '98.1 ± 0.2', a range where seeds differ."""
    rows = []
    for row in table.to_dict("records"):
        same = row["learnable_min"] == row["learnable_max"]
        spread = "" if same else f" ({row['learnable_min']:,.0f} to {row['learnable_max']:,.0f})"
        few = row["effective_depth_n"] < row["seeds"]
        seeds = f" ({row['effective_depth_n']} of {row['seeds']} seeds)" if few else ""
        depth = f"{row['effective_depth']:.3g}{seeds}" if row["effective_depth_n"] else "-"
        rows.append(
            {key: row[key] for key in [*table.columns[: table.columns.get_loc("seeds")], "seeds"]}
            | {
                "learnable": f"{row['learnable']:,.0f}{spread}",
                "saved %": f"{row['saved_percent']:.1f}",
                "train acc. %": _percent(row["train_accuracy"], row["train_accuracy_std"]),
                "test acc. %": _percent(row["test_accuracy"], row["test_accuracy_std"]),
                "effective depth": depth,
            }
        )
    return pd.DataFrame(rows).astype(str)


def text_table(table: pd.DataFrame, markdown: bool = False) -> str:
    """A table of strings with aligned columns, the first to the left and the rest to the right."""
    columns = [[name, *map(str, table[name])] for name in table]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        [cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))]
        for row in zip(*columns, strict=True)
    ]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in lines)
    lines.insert(1, ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def save_table(table: pd.DataFrame, out: Path | str) -> list[Path]:
    """Write `summary_table` as numbers to OUT.csv and for people to OUT.md; returns the two paths."""
    paths = [Path(f"{out}.csv"), Path(f"{out}.md")]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(paths[0], index=False)
    paths[1].write_text(text_table(readable(table), markdown=True) + "\n", encoding="utf-8")
    return paths


def _percent(mean: float, std: float) -> str:
    return f"{100 * mean:.2f}" + ("" if pd.isna(std) else f" ± {100 * std:.2f}")
