"""What theory says of a run on free features: its closed forms, by its configuration. Torch-free."""

import math

import numpy as np
import pandas as pd

from nclab.analysis.curves import NETWORK
from nclab.analysis.last_layer import classifier_input, column, objective
from nclab.analysis.runs import AnalysisError, Run
from nclab.theory import deep
from nclab.theory.one_layer import cross_entropy_optimum, soft_loss_optimum, squared_error_optimum

CLOSE = 0.01  # share of the largest singular value below which a direction counts for none
NEAR_DNC = 0.01  # share of the objective of collapse within which a run is at it


def sizes(run: Run) -> tuple[int, int]:
    """(classes, samples of each class). Raises AnalysisError for a run whose classes differ in size."""
    data = run.config["dataset"]
    if data["name"] != "free_features" or data["imbalance"] != 1:
        raise AnalysisError(f"{run.path}: the closed forms are of dataset=free_features with equal classes")
    return data["classes"], data["per_class"]


def penalties(run: Run) -> tuple[float, float]:
    """(lambda of the weights, of the features)."""
    loss = run.config["loss"]
    own = loss.get("l2_features")
    return loss["l2"], loss["l2"] if own is None else own


def optimum(run: Run) -> float:
    """The global minimum of one layer, whatever the classifier of this run is; of the focal loss the least objective at
    collapse. Raises AnalysisError for a loss without a closed form."""
    loss, of = run.config["loss"], (*sizes(run), *penalties(run))
    if loss["name"] == "mse":
        of_bias = loss["l2"] if loss["l2_biases"] is None else loss["l2_biases"]
        return squared_error_optimum(*of, of_bias if run.config["model"]["bias"] else None).objective
    if loss["name"] == "label_smoothing":
        return soft_loss_optimum(*of, smoothing=loss["smoothing"])
    if loss["name"] == "focal":
        return soft_loss_optimum(*of, gamma=loss["gamma"])
    if loss["name"] != "cross_entropy":
        raise AnalysisError(f"{run.path}: no closed form of loss={loss['name']}")
    return cross_entropy_optimum(*of).objective


def gap(run: Run) -> pd.Series:
    """Objective minus global minimum of one layer, by epoch. Of a fixed classifier, which the run does not penalise,
    l2/2 |W|^2 is added, so that it is compared with the same minimum."""
    values = objective(run) - optimum(run)
    if run.config["etf"]["name"] == "last_k":
        norm = run.config["etf"]["classifier_scale"] or 1.0  # of a row
        values += penalties(run)[0] / 2 * sizes(run)[0] * norm**2
    return values


def collapse(run: Run) -> deep.Least:
    """The least objective of collapse in all layers (DNC) in the setting of this run."""
    model, loss = run.config["model"], run.config["loss"]
    family = deep.collapsed(*sizes(run), model["depth"], loss["name"], model["activation"] == "relu")
    return family.least(_one_decay(run))


def low_rank(run: Run) -> deep.Least | None:
    """The least objective of the closed form of lower rank: classes in pairs (linear, cross-entropy), the strongly
    regular graph (ReLU, three layers or more, as many classes as a complete graph has edges); None of others."""
    (classes, per_class), model, loss = sizes(run), run.config["model"], run.config["loss"]["name"]
    if model["activation"] == "none" or model["depth"] == 1:
        if loss == "mse" or classes % 2:
            return None
        return deep.low_rank(classes, per_class, model["depth"]).least(_one_decay(run))
    vertices = (1 + math.isqrt(1 + 8 * classes)) // 2
    if model["depth"] < 3 or vertices * (vertices - 1) != 2 * classes or vertices < 3:
        return None
    return deep.regular_graph(vertices, per_class, model["depth"], loss).least(_one_decay(run))


def pairs_levels(run: Run) -> list[float]:
    """Of two linear layers or more under cross-entropy the least objectives of m pairs and a simplex ETF of the other
    classes, m from 1 to (C - 2) / 2; none of others."""
    (classes, per_class), model = sizes(run), run.config["model"]
    if model["activation"] != "none" or model["depth"] == 1 or run.config["loss"]["name"] != "cross_entropy":
        return []
    decay = _one_decay(run)
    return [deep.some_in_pairs(classes, per_class, model["depth"], m, decay) for m in range(1, (classes - 2) // 2 + 1)]


def full_rank(run: Run) -> int:
    """Directions of collapse: C - 1 of linear layers under cross-entropy, C else."""
    linear = run.config["model"]["activation"] == "none" or run.config["model"]["depth"] == 1
    return sizes(run)[0] - (linear and run.config["loss"]["name"] == "cross_entropy")


def singular_values(run: Run, what: str = "means", epoch: int | None = None) -> pd.DataFrame:
    """A row a layer in network order, a column a singular value of its class means (or `weight`), largest first; after
    the last epoch, or that one. Raises AnalysisError where the suite singular_values was not measured."""
    rows = run.metrics
    rows = rows[(rows.epoch == (run.end if epoch is None else epoch)) & (rows.split == "train")]
    rows = rows.astype({"metric": str, "layer": str})
    stem = f"{what}_singular_"
    rows = rows[rows.metric.str.startswith(stem)]
    if rows.empty:
        raise AnalysisError(f"{run.path / 'metrics.csv'}: no {stem}1; expected a run that measures singular_values")
    table = rows.assign(index=rows.metric.str.removeprefix(stem).astype(int)).pivot(
        index="layer", columns="index", values="value"
    )
    return table.reindex([layer["layer"] for layer in run.layers if layer["layer"] in table.index])


def ranks(run: Run) -> pd.Series:
    """By layer, how many singular values of the class means are above CLOSE times the largest, after the last epoch."""
    table = singular_values(run)
    return table.gt(CLOSE * table[1], axis=0).sum(axis=1)


def hidden_rank(run: Run) -> float:
    """The least of `ranks` from the free features to the last layer before which all are free to be of low rank: the
    classifier's input of linear layers, the input of the last ReLU else."""
    found = ranks(run)
    last = classifier_input(run)
    return float(found.loc[: last if last in found.index else found.index[-2]].min())


def at_collapse(run: Run) -> bool:
    """Whether the run ends at collapse: its objective is within NEAR_DNC of it and no layer is of lower rank."""
    share = final_objective(run) / collapse(run).objective
    return bool(abs(share - 1) <= NEAR_DNC and hidden_rank(run) >= full_rank(run))


def final_objective(run: Run) -> float:
    """The objective after the last epoch."""
    return float(objective(run).get(run.end, math.nan))


def network(run: Run, metric: str) -> pd.Series:
    """A metric of the whole network by epoch, train split; empty where it was not measured."""
    return column(run, metric, layer=NETWORK)


def steps(run: Run, epochs: pd.Index | np.ndarray) -> np.ndarray:
    """Iterations after these epochs: with sampler=repeated several steps an epoch, with L-BFGS several a step."""
    return np.asarray(epochs) * run.config["sampler"].get("repeats", 1) * run.config["optimizer"].get("max_iter", 1)


def _one_decay(run: Run) -> float:
    weight, features = penalties(run)
    if weight != features:
        raise AnalysisError(
            f"{run.path}: the closed forms of deep features have one lambda, got {weight:g}, {features:g}"
        )
    return weight
