"""What a training logs of the network beside an evaluation of the train split: `nclab.training.headline.SCALARS`."""

from nclab.etf.policy import learnable
from nclab.metrics.suite import NETWORK
from nclab.training.evaluate import Evaluation
from nclab.training.objective import penalty
from nclab.training.optim import optimizer_bytes
from nclab.training.step import Learner


def scalars(learner: Learner, running_loss: float) -> dict[str, float]:
    """The numbers of an epoch with this mean loss over its batches."""
    own = {"l2_penalty": penalty(learner.objective, learner.model)} if learner.objective.penalises else {}
    return {
        "running_loss": running_loss,
        **own,
        "learning_rate": learner.optimizer.param_groups[0]["lr"],
        "learnable_parameters": learnable(learner.model.parameters()),
        "optimizer_bytes": optimizer_bytes(learner.optimizer),
    }


def log_beside(result: Evaluation, learner: Learner, numbers: dict[str, float]) -> None:
    """Add the `scalars` to what was measured of the train split: with a penalty also the `objective`, loss and penalty
    of the measured network, float64 sums both; not where it has a third term."""
    own = dict(numbers)
    if "l2_penalty" in own and not learner.objective.complexity:
        own["objective"] = result.network("train", "loss") + own["l2_penalty"]
    result.values["train"][NETWORK].update(own)
