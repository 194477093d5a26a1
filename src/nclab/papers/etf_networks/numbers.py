"""The numbers that claims on fixed and nearest classifiers of networks are about (arXiv 2105.02375, 2411.01248)."""

import math

from nclab.analysis.curves import NETWORK
from nclab.analysis.last_layer import series
from nclab.analysis.memory_figure import MIB
from nclab.analysis.runs import Run
from nclab.analysis.statistics import statistic

FITTED = 0.99  # train accuracy from which on a network counts as fitted
STATE = ("weights_learnable_bytes", "weights_fixed_bytes", "gradients_bytes", "optimizer_bytes")


@statistic("epochs", measured=True)
def epochs_to_train_99(run: Run, treated: Run) -> float:
    """Epochs until the train accuracy, in evaluation mode, is 99 % for the first time; those of the whole run and one
    where it never is, which is too few. Of a baseline nan where the treated run never gets there either: of such a pair
    nothing is known."""
    if (epoch := _fitted(run)) is not None:
        return float(epoch)
    return math.nan if treated.path != run.path and _fitted(treated) is None else float(run.config["epochs"] + 1)


def _fitted(run: Run) -> int | None:
    """The first epoch of a train accuracy of 99 %."""
    accuracy = series(run, "accuracy", layer=NETWORK)
    there = accuracy.index[(accuracy >= FITTED) & (accuracy.index > 0)]
    return int(there[0]) if len(there) else None


@statistic("parameters")
def learnable_parameters(run: Run, treated: Run) -> float:
    """Learnable parameters at the end of the run."""
    return float(run.result("parameters_learnable"))


@statistic("MiB")
def training_state(run: Run, treated: Run) -> float:
    """Bytes of weights (learnable and fixed), gradients and optimizer state, as counted from the tensors at the end of
    the run, in MiB."""
    return sum(run.result(f"memory.{key}") for key in STATE) / MIB


def activations(run: Run) -> float:
    """What the forward pass of a training step keeps for its backward pass, in MiB; nan where it was not counted."""
    kept = run.result("memory.activations_bytes")
    return float("nan") if kept is None else kept / MIB
