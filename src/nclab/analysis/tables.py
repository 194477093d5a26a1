"""Tables from the runs' summary.json: one row a policy, as numbers, as text for people, as files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from nclab.analysis.labels import NO_FFN, said_by_label
from nclab.analysis.latex import latex_table
from nclab.analysis.runs import Run, differences, refuse_twins


def summary_table(runs: list[Run], by: list[str] | None = None) -> pd.DataFrame:
    """One row a policy, as numbers: counts, fractions, percent saved; std is the sample's (nan with one seed).

    The settings `by` are columns in front, and nothing is averaged over them; default: all in which the runs
    differ besides seed and policy (a shallower network as control). `effective_depth` is the mean over the
    `effective_depth_n` seeds that have one.

    `saved_percent` is relative to the baseline of the same network, that is to all parameters of a run, fixed ones
    included. A transformer without feed-forward layers is another, smaller network: it is compared with the
    network that its row's settings otherwise describe; nan if there is no run of it.
    """
    by = list(differences(runs)) if by is None else by
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        groups.setdefault((*_row(run, by), run.policy), []).append(run)
    rows = []
    for key, group in groups.items():
        refuse_twins(group)
        learnable = _results(group, "parameters_learnable")
        total = _whole(runs, by, key[:-1]) if key[-1] == NO_FFN else _results(group, "parameters_total")
        train, test, depth = (
            _results(group, f"final.{name}").astype(float)
            for name in ("train.accuracy", "test.accuracy", "effective_depth")
        )
        rows.append(
            dict(zip([*by, "policy"], key, strict=True))
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
    """A table as text for people: accuracies in percent, '98.1 ± 0.2'; of `summary_table` also a range where seeds
    differ. In other tables a column NAME beside NAME_std is an accuracy."""
    if "learnable_min" not in table:
        return _with_spreads(table)
    rows = []
    for row in table.to_dict("records"):
        same = row["learnable_min"] == row["learnable_max"]
        spread = "" if same else f" ({row['learnable_min']:,.0f} to {row['learnable_max']:,.0f})"
        cells = {key: row[key] for key in [*table.columns[: table.columns.get_loc("seeds")], "seeds"]} | {
            "learnable": f"{row['learnable']:,.0f}{spread}",
            "saved %": "-" if pd.isna(row["saved_percent"]) else f"{row['saved_percent']:.1f}",
            "train acc. %": _percent(row["train_accuracy"], row["train_accuracy_std"]),
            "test acc. %": _percent(row["test_accuracy"], row["test_accuracy_std"]),
        }
        if "effective_depth" in table:
            few = row["effective_depth_n"] < row["seeds"]
            seeds = f" ({row['effective_depth_n']} of {row['seeds']} seeds)" if few else ""
            cells["effective depth"] = f"{row['effective_depth']:.3g}{seeds}" if row["effective_depth_n"] else "-"
        rows.append(cells)
    return pd.DataFrame(rows).astype(str)


def _with_spreads(table: pd.DataFrame) -> pd.DataFrame:
    spreads = {f"{name}_std": name for name in table if f"{name}_std" in table}
    text = table.drop(columns=list(spreads)).astype(object)
    text = text.where(text.notna(), "-").astype(str)
    for spread, name in spreads.items():
        pairs = zip(table[name], table[spread], strict=True)
        text[name] = ["-" if pd.isna(mean) else _percent(mean, std) for mean, std in pairs]
    return text.rename(columns={name: f"{name.replace('_', ' ')} %" for name in spreads.values()})


def median_and_range(values: Sequence[float], digits: int = 2) -> str:
    """'78.10 [77.90, 78.30]': median, least, greatest over seeds.

    >>> median_and_range([2.0, 1.0, 9.0], digits=1)
    '2.0 [1.0, 9.0]'
    """
    middle, low, high = (f"{number:.{digits}f}" for number in (np.median(values), np.min(values), np.max(values)))
    return f"{middle} [{low}, {high}]"


def text_table(table: pd.DataFrame, markdown: bool = False) -> str:
    """A table of strings with aligned columns, words to the left and numbers to the right."""
    align = ["right" if end else "left" for end in _right(table)]
    rows = [list(table), *table.to_numpy().tolist()]
    headers, form = ("firstrow", "pipe") if markdown else ((), "plain")
    return tabulate(rows, headers, form, disable_numparse=True, colalign=align)


def save_table(table: pd.DataFrame, out: Path | str, caption: str | None = None) -> list[Path]:
    """Write a table of numbers to OUT.csv and for people to OUT.md; with a caption also as LaTeX to OUT.tex."""
    paths = [Path(f"{out}.csv"), Path(f"{out}.md")]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(paths[0], index=False)
    text = readable(table)
    paths[1].write_text(text_table(text, markdown=True) + "\n", encoding="utf-8")
    if caption is not None:
        paths.append(Path(f"{out}.tex"))
        groups = table.columns.get_loc("policy")
        latex = latex_table(text, _right(text), caption, f"tab:{Path(out).name}", groups)
        paths[2].write_text(latex, encoding="utf-8")
    return paths


def _right(table: pd.DataFrame) -> list[bool]:
    """Which columns hold numbers: none of their cells begins with a letter."""
    return [not any(cell[:1].isalpha() for cell in table[name]) for name in table]


def _row(run: Run, by: list[str]) -> tuple[str, ...]:
    return tuple(str(run.settings.get(key, "-")) for key in by)


def _whole(runs: list[Run], by: list[str], row: tuple[str, ...]) -> float:
    """All parameters of the network with feed-forward layers in a row of these settings, if there is exactly one."""

    def same(run: Run) -> bool:
        pairs = zip(by, _row(run, by), row, strict=True)
        return all(value == wanted for key, value, wanted in pairs if key not in said_by_label(NO_FFN))

    totals = {run.result("parameters_total") for run in runs if run.policy != NO_FFN and same(run)}
    return totals.pop() if len(totals) == 1 else float("nan")


def _results(runs: list[Run], key: str) -> pd.Series:
    return pd.Series([run.result(key) for run in runs])


def _percent(mean: float, std: float) -> str:
    return f"{100 * mean:.2f}" + ("" if pd.isna(std) else f" ± {100 * std:.2f}")
