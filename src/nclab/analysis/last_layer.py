"""What was measured when training ended, above all at the layer that the classifier reads."""

import pandas as pd

from nclab.analysis.curves import NETWORK
from nclab.analysis.runs import AnalysisError, Run

At = dict[tuple[str, str], float]  # (layer, metric) -> value


def classifier_input(run: Run) -> str:
    """The layer whose output the classifier reads: the one of that role, else the one in front of the classifier
    (the last block of a network whose blocks end with their norm)."""
    roles = [layer["role"] for layer in run.layers]
    if "classifier_input" in roles:
        return run.layers[roles.index("classifier_input")]["layer"]
    if "classifier" not in roles[1:]:
        raise AnalysisError(
            f"{run.path / 'events.jsonl'}: expected a layer in front of one of role classifier, got the roles "
            f"{', '.join(dict.fromkeys(roles)) or 'of no layer'}"
        )
    return run.layers[roles.index("classifier") - 1]["layer"]


def at_end(run: Run, split: str = "train") -> At:
    """Every layer's metrics on one split after the last epoch; empty where that epoch was not measured."""
    rows = run.metrics
    rows = rows[(rows.epoch == run.end) & (rows.split == split)]
    return dict(zip(zip(rows.layer, rows.metric, strict=True), rows.value, strict=True))


def column(run: Run, metric: str, split: str = "train", layer: str | None = None) -> pd.Series:
    """A metric by measured epoch, of the classifier's input unless another layer is named; empty where it was not
    measured."""
    layer = classifier_input(run) if layer is None else layer
    rows = run.metrics
    rows = rows[(rows.split == split) & (rows.layer == layer) & (rows.metric == metric)]
    return rows.set_index("epoch").value.sort_index()


def series(run: Run, metric: str, split: str = "train", layer: str | None = None) -> pd.Series:
    """`column`; AnalysisError where it was not measured."""
    layer = classifier_input(run) if layer is None else layer
    values = column(run, metric, split, layer)
    if values.empty:
        raise AnalysisError(f"{run.path / 'metrics.csv'}: no {split} {metric} of {layer}; see metrics.suite and .every")
    return values


def objective(run: Run) -> pd.Series:
    """What training minimised, the loss on the train split + the penalty (0 where there is none), by measured epoch."""
    rows = run.metrics
    rows = rows[(rows.split == "train") & (rows.layer == NETWORK) & rows.metric.isin(["loss", "l2_penalty"])]
    table = rows.astype({"metric": str}).pivot(index="epoch", columns="metric", values="value")
    table = table.reindex(columns=["loss", "l2_penalty"]).fillna({"l2_penalty": 0.0})
    return table.sum(axis=1, skipna=False)


def before_end(run: Run) -> int | None:
    """The last epoch from 1 to nine tenths of training at which the objective was measured; None without one."""
    end = run.end
    return max((int(epoch) for epoch in objective(run).index if epoch >= 1 and 10 * epoch <= 9 * end), default=None)


def needed(run: Run, at: At, layer: str, metric: str, split: str = "train") -> float:
    """An entry of `at_end`; nan where it is undefined, AnalysisError where it was not measured."""
    if (layer, metric) not in at:
        known = "accuracy" if layer == NETWORK else "these metrics; metrics.every=0 measures none"
        raise AnalysisError(
            f"{run.path / 'metrics.csv'}: no {split} {metric} of {layer} at epoch {run.end}, the last; "
            f"expected a run that measures {known}"
        )
    return at[layer, metric]
