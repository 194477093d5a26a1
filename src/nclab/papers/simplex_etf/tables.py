"""Tables 1 and 2 of the paper: learnable parameters and accuracies, of MLPs and of vision transformers."""

import pandas as pd

from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.labels import policy_order
from nclab.analysis.needs import Needs
from nclab.analysis.runs import Run, choose, refuse_mixture
from nclab.analysis.tables import summary_table

TITLE = (
    "{model}: learnable parameters, per cent saved against the baseline of the same depth, and accuracy in per cent "
    "after {epochs}; mean ± sample standard deviation over seeds."
)


@DRAWINGS.table(
    "table1", of="MLPs: a row a dataset and policy", needs=Needs("multilayer perceptrons", models=frozenset({"mlp"}))
)
def table1(runs: list[Run], policies: list[str] | None = None) -> tuple[pd.DataFrame, str]:
    """MLPs, one row a dataset and policy: the columns of `summary_table` but for the effective depth; and a caption.

    Shallower networks, a control, have rows of their own: a column depth tells them apart where there are some.
    """
    table, caption = _table(runs, policies, "Multilayer perceptrons", "depth")
    return table.drop(columns="depth") if table.depth.nunique() == 1 else table, caption


@DRAWINGS.table(
    "table2",
    of="vision transformers: a row a dataset, number of blocks and policy",
    needs=Needs("vision transformers", models=frozenset({"vit"})),
)
def table2(runs: list[Run], policies: list[str] | None = None) -> tuple[pd.DataFrame, str]:
    """Vision transformers, one row a dataset, number of blocks and policy; as `table1`."""
    return _table(runs, policies, "Vision transformers", "blocks")


def _table(runs: list[Run], policies: list[str] | None, title: str, depth: str) -> tuple[pd.DataFrame, str]:
    """Rows sorted by dataset, depth, policy; within a dataset the runs differ in nothing else, between datasets they
    may (epochs, which the caption then tells by dataset, or the patch of other images)."""
    chosen = choose(runs, policies or sorted({run.policy for run in runs}, key=policy_order))
    by = {"dataset.name": "dataset", f"model.{depth}": depth}
    chosen.sort(key=lambda run: [run.settings[key] for key in by])  # keeps the order of the policies
    epochs = {}
    for name in dict.fromkeys(run.settings["dataset.name"] for run in chosen):
        group = [run for run in chosen if run.settings["dataset.name"] == name]
        refuse_mixture(group, by=f"model.{depth}")
        epochs.setdefault(f"{group[0].settings['epochs']} epochs", []).append(name)
    told = [epoch if len(epochs) == 1 else f"{epoch} ({', '.join(names)})" for epoch, names in epochs.items()]
    table = summary_table(chosen, list(by)).rename(columns=by).astype({depth: int})
    caption = TITLE.format(model=title, epochs=" or ".join(told))
    return table.drop(columns=["effective_depth", "effective_depth_n"]), caption
