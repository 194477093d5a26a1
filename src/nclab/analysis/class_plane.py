"""Three classes in the plane of their means, as the suite projection recorded them: numbers for pictures of it."""

import re

import numpy as np
import pandas as pd

from nclab.analysis.last_layer import classifier_input
from nclab.analysis.runs import AnalysisError, Run

PREFIX = "plane_"  # of the columns of the suite projection
POINT = re.compile(PREFIX + r"(sample|mean|row)_(\d)(?:_(\d+))?_([xy])")


def points(run: Run) -> pd.DataFrame:
    """What the suite projection recorded: epoch, kind, label, number (of a sample; else -1), x, y. Raises AnalysisError
    of a run without it."""
    rows = run.metrics
    rows = rows[(rows.split == "train") & (rows.layer == classifier_input(run))]
    rows = rows.assign(metric=rows.metric.astype(str))
    found = rows[rows.metric.str.startswith(PREFIX)]
    if found.empty:
        raise AnalysisError(f"{run.path / 'metrics.csv'}: no plane_ columns; expected projection in metrics.suite")
    parts = found.metric.str.extract(POINT)
    number = parts[2].fillna("-1").astype(int)
    found = found.assign(kind=parts[0], label=parts[1].astype(int), number=number, axis=parts[3])
    table = found.pivot(index=["epoch", "kind", "label", "number"], columns="axis", values="value").reset_index()
    return table.rename_axis(columns=None)


def scaled(table: pd.DataFrame) -> pd.DataFrame:
    """Features and means in units of the mean length of the three means of their epoch, rows in that of the rows; five
    decimals, of which a picture shows two."""
    lengths = np.hypot(table.x, table.y)
    units = {kind: lengths[table.kind == kind].groupby(table.epoch).mean() for kind in ("mean", "row")}
    unit = np.where(table.kind == "row", table.epoch.map(units["row"]), table.epoch.map(units["mean"]))
    return table.assign(x=(table.x / unit).round(5), y=(table.y / unit).round(5))
