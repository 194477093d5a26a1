"""Tables of any runs: one row a policy, and one row a variant of the settings."""

import sys
from math import inf

import pandas as pd

from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.labels import policy_order
from nclab.analysis.needs import Needs
from nclab.analysis.runs import Run, choose, differences
from nclab.analysis.tables import summary_table

CLASSIFIERS = Needs("networks that decide between classes")


@DRAWINGS.table(
    "summary",
    of="any classifiers: learnable parameters, accuracies and effective depth, a row a policy",
    needs=CLASSIFIERS,
)
def summary(runs: list[Run], policies: list[str] | None = None) -> tuple[pd.DataFrame, None]:
    """`summary_table`, without a caption and so without LaTeX."""
    return _table(runs, policies), None


@DRAWINGS.table(
    "variants", of="any classifiers: a row a combination of whatever settings they differ in", needs=CLASSIFIERS
)
def variants(runs: list[Run], policies: list[str] | None = None) -> tuple[pd.DataFrame, str]:
    """What a search compares: `summary_table`, a policy after the other, its settings from small to large, with a
    caption."""
    caption = "Variants of the settings; accuracy in per cent, mean ± sample standard deviation over seeds."
    table = _table(runs, policies)
    settings = list(table.columns[: table.columns.get_loc("policy")])
    rows = sorted(table.index, key=lambda row: _place(table.loc[row, ["policy", *settings]], policies))
    return table.loc[rows].reset_index(drop=True), caption


def _place(row: pd.Series, policies: list[str] | None) -> tuple:
    """Sort key of a row of policy and settings: policies in the order asked for, numbers as numbers."""
    policy, *settings = row
    return policies.index(policy) if policies else policy_order(policy), [*map(_size, settings)]


def _size(value: str) -> tuple[float, str]:
    try:
        return float(value), ""
    except ValueError:
        return inf, value


def _table(runs: list[Run], policies: list[str] | None) -> pd.DataFrame:
    """`summary_table`; that rows are apart for a reason that is easily overlooked is said on stderr."""
    runs = choose(runs, policies) if policies else runs
    if "parent_epochs" in differences(runs):
        print(
            "some of these runs go on from shorter ones (parent_epochs): they are rows of their own, as figures do not "
            "mix them either",
            file=sys.stderr,
        )
    return summary_table(runs)
