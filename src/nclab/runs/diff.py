"""`nclab-runs diff A B`: what two runs differ in, keys and last numbers."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from nclab.analysis.curves import NETWORK
from nclab.analysis.runs import AnalysisError, Run, flatten, load_runs
from nclab.runs.table import aligned


def one_run(folder: Path) -> Run:
    """The run of this folder, finished or not. Raises AnalysisError where it is none, or holds several."""
    runs = load_runs([folder], finished_only=False, trials=True)
    if len(runs) != 1:
        names = ", ".join(run.path.name for run in runs[:3])
        raise AnalysisError(f"expected one run folder, got {folder} with {len(runs)} runs: {names}, ...")
    return runs[0]


def keys(one: Run, two: Run) -> list[list[str]]:
    """Rows (key, value of one, value of two) of the keys that differ; `-`: the run has no such key."""
    first, second = flatten(one.config), flatten(two.config)
    every = dict.fromkeys([*first, *second])
    both = ((key, _said(first, key), _said(second, key)) for key in every)
    return [[key, a, b] for key, a, b in both if a != b]


def _said(flat: dict[str, Any], key: str) -> str:
    return str(flat[key]) if key in flat else "-"


def last_numbers(run: Run) -> pd.Series:
    """The value of every (split, layer, metric) at the last epoch that has it, in the order of metrics.csv."""
    frame = run.metrics
    order = ["split", "layer", "metric"]
    return frame.drop_duplicates(order, keep="last").set_index(order)["value"]


def numbers(one: Run, two: Run, every: bool = False) -> list[list[str]]:
    """Rows (split, layer, metric, value of one, of two, two minus one); those of the network, or with `every` of all
    layers."""
    first, second = last_numbers(one), last_numbers(two)
    rows = []
    for index in dict.fromkeys([*first.index, *second.index]):
        if every or index[1] == NETWORK:
            a, b = first.get(index), second.get(index)
            change = None if a is None or b is None else b - a
            rows.append([*index, _number(a), _number(b), _number(change, "+")])
    return rows


def _number(value: float | None, sign: str = "") -> str:
    """Whole numbers, such as parameters, in full."""
    if value is None or (sign and math.isnan(value)):
        return "" if sign else "-"
    return f"{int(value):{sign}}" if math.isfinite(value) and value == int(value) else f"{value:{sign}.4g}"


def text(folders: tuple[Path, Path], every: bool = False) -> str:
    """All of it for a terminal. Raises AnalysisError."""
    one, two = (one_run(folder) for folder in folders)
    lines = [f"A  {one.path}  epoch {_last(one)}", f"B  {two.path}  epoch {_last(two)}", ""]
    differing = keys(one, two)
    lines.append(aligned(["key", "A", "B"], differing) if differing else "the configurations are equal")
    lines += ["", aligned(["split", "layer", "metric", "A", "B", "B - A"], numbers(one, two, every))]
    return "\n".join(lines if every else [*lines, "", "all layers: --all"])


def _last(run: Run) -> str:
    frame = run.metrics
    return str(frame["epoch"].max()) if len(frame) else "-"
