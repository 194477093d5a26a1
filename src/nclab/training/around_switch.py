"""The scores of every split right before and after layers were fixed."""

from nclab.metrics.suite import NETWORK
from nclab.models import Classifier
from nclab.training.evaluate import Evaluation, refreshed, scores
from nclab.training.feed import Feed
from nclab.training.objective import Objective


def scores_of_splits(
    model: Classifier, feed: Feed, batch_size: int, objective: Objective, known: Evaluation | None = None
) -> list[tuple[str, str, float]]:
    """(split, score, value) of every split: the accuracy, or the loss where there is none; `known` saves a pass."""
    found = []
    for name, split in feed.dataset.splits.items():
        values = known.values.get(name, {}).get(NETWORK, {}) if known else {}
        if "loss" not in values:
            values = scores(model, feed.dataset, split, batch_size, objective, feed.world)
        score = "accuracy" if "accuracy" in values else "loss"
        found.append((name, score, values[score]))
    return found


def scores_around(
    old: Classifier, new: Classifier, feed: Feed, batch_size: int, objective: Objective, known: Evaluation | None
) -> tuple[dict[str, float], str]:
    """{split}_{score}_before and _after of a network before and after a switch, both also `_refreshed`, and the name of
    the score. `known`: an evaluation of the old network.

    Evaluation reads running batch-norm statistics, which lag behind the weights before a switch and belong to the old
    layer after it; refreshed on both sides, they leave the effect of the switch alone.
    """
    new_fresh, old_fresh = (refreshed(model, feed.dataset, batch_size, feed.world) for model in (new, old))
    kinds = {"before": (old, known), "after": (new, None)}
    kinds |= {"before_refreshed": (old_fresh, None), "after_refreshed": (new_fresh, None)}
    found = {kind: scores_of_splits(model, feed, batch_size, objective, own) for kind, (model, own) in kinds.items()}
    at: dict[str, float] = {}
    for i in range(len(feed.dataset.splits)):
        for kind, of_splits in found.items():
            split, score, value = of_splits[i]
            at[f"{split}_{score}_{kind}"] = value
    return at, score
