"""Accuracies and collapse by method; accuracies of rows that are turned after training."""

import numpy as np
import pandas as pd

from nclab.analysis.curves import NETWORK
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.labels import dataset_label
from nclab.analysis.last_layer import at_end, classifier_input
from nclab.analysis.needs import Needs
from nclab.analysis.runs import Run
from nclab.analysis.tables import median_and_range
from nclab.papers.long_tail.methods import NEEDED, methods
from nclab.papers.long_tail.numbers import of_network

ACCURACIES = ("balanced_accuracy", "head_accuracy", "middle_accuracy", "tail_accuracy")
COLUMNS = ("nc1_balanced", "nc1_unbalanced", "row_cosine", "tail_row_cosine")
TURNED = {
    "as trained": ("balanced_accuracy", "tail_accuracy"),
    "equal norms alone": ("post_hoc_equal", "post_hoc_tail_equal"),
    "slerp": ("post_hoc_slerp", "post_hoc_tail_slerp"),
    "slerp, equal norms": ("post_hoc_slerp_equal", "post_hoc_tail_slerp_equal"),
    "proj": ("post_hoc_proj", "post_hoc_tail_proj"),
    "proj, equal norms": ("post_hoc_proj_equal", "post_hoc_tail_proj_equal"),
}


@DRAWINGS.table("long_tail_table", of="long-tailed trainings: accuracies and collapse by method", needs=NEEDED)
def by_method(runs: list[Run], policies: list[str] | None = None) -> tuple[pd.DataFrame, None]:
    """A row a dataset and method: median [least, greatest] over seeds of balanced, head, middle and tail accuracy in
    percent, of NC1 with classes and with samples weighing alike, of the mean cosine of class mean and row, of the
    largest cosine of tail rows, and of centre_cosine, where there are centres; seeds."""
    rows = []
    for dataset, name, group in _groups(runs):
        row = {"dataset": dataset, "method": name}
        row |= {metric: median_and_range([100 * of_network(run, metric) for run in group], 2) for metric in ACCURACIES}
        inputs = [(at_end(run), classifier_input(run)) for run in group]
        row |= {metric: median_and_range([at[layer, metric] for at, layer in inputs], 3) for metric in COLUMNS}
        centre = [at.get((NETWORK, "centre_cosine"), np.nan) for at, _ in inputs]
        row |= {"centre_cosine": "" if np.isnan(centre).any() else median_and_range(centre, 3), "seeds": len(group)}
        rows.append(row)
    return pd.DataFrame(rows), None


@DRAWINGS.table("long_tail_post_hoc", of="long-tailed trainings: accuracies of rows turned after training",
                needs=Needs("classifiers that measure the suites long_tail and post_hoc",
                            suites=frozenset({"collapse", "long_tail", "post_hoc"})))  # fmt: skip
def turned(runs: list[Run], policies: list[str] | None = None) -> tuple[pd.DataFrame, None]:
    """A row a dataset, method of training and what is done to the rows of the classifier afterwards: median [least,
    greatest] over seeds of balanced and tail accuracy in percent; seeds."""
    rows = []
    for dataset, name, group in _groups(runs):
        for what, (balanced, tail) in TURNED.items():
            both = {"balanced_accuracy": balanced, "tail_accuracy": tail}
            row = {
                key: median_and_range([100 * of_network(run, metric) for run in group], 2)
                for key, metric in both.items()
            }
            rows.append({"dataset": dataset, "training": name, "rows": what, **row, "seeds": len(group)})
    return pd.DataFrame(rows), None


@DRAWINGS.table("long_tail_free", of="free features below many centres: where they end, by allocation",
                needs=Needs("free features below the loss multi_center", models=frozenset({"unconstrained"}),
                            suites=frozenset({"collapse", "long_tail"})))  # fmt: skip
def free_features(runs: list[Run], policies: list[str] | None = None) -> tuple[pd.DataFrame, None]:
    """A row an allocation: median [least, greatest] over seeds of the cosine of features and mean centre, of the loss,
    of NC1 (nc1) and of the distance of the class means from an orthogonal frame (nc2_means_orthogonal); seeds."""
    rows = []
    for name, group in methods(runs).items():
        row = {"method": name}
        row |= {
            metric: median_and_range([of_network(run, metric, "train") for run in group], 6)
            for metric in ("centre_cosine", "loss")
        }
        inputs = [(at_end(run), classifier_input(run)) for run in group]
        for metric in ("nc1", "nc2_means_orthogonal"):
            row[metric] = median_and_range([at[layer, metric] for at, layer in inputs], 6)
        rows.append(row | {"seeds": len(group)})
    return pd.DataFrame(rows), None


def _groups(runs: list[Run]) -> list[tuple[str, str, list[Run]]]:
    labels = dict.fromkeys(dataset_label(run.config) for run in runs)
    parts = [(label, methods([run for run in runs if dataset_label(run.config) == label])) for label in labels]
    return [(label, name, group) for label, groups in parts for name, group in groups.items()]
