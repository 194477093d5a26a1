"""What a finished run leaves: summary.json, and the run folder closed."""

import math
import statistics
from functools import partial
from typing import Any

from nclab.config.keys import ends_early
from nclab.config.schema import RunConfig, own_label
from nclab.etf.policy import learnable
from nclab.system.written import BEST
from nclab.training.ending import FITTED
from nclab.training.evaluate import Evaluation
from nclab.training.fit import Fit
from nclab.training.memory import memory
from nclab.training.step import training_run


def finish(config: RunConfig, fit: Fit, result: Evaluation, origin: dict[str, Any]) -> None:
    """Close the run: done event, tracker, summary.json, DONE. `origin`: versions and hardware, as of its start."""
    fit.observer.finished({**_summary(config, fit, result), **origin})


def _best(config: RunConfig, fit: Fit) -> dict[str, Any]:
    best, found = config.best_number, fit.progress.best
    where = {"epoch": found.epoch, "value": found.value, "checkpoint": BEST} if found else {"epoch": None}
    return {"split": best.split, "metric": best.metric, "mode": config.best_mode, **where}


def _trial(kind: str, fit: Fit) -> dict[str, Any]:
    return {"mode": kind, **({"fitted": fit.progress.ended_by == FITTED} if fit.settings.until_fitted else {})}


def _summary(config: RunConfig, fit: Fit, result: Evaluation) -> dict[str, Any]:
    final = {
        split: {
            **{score: value for score, value in layers["network"].items() if score in ("accuracy", "loss")},
            "ncc_accuracy": {layer: v["ncc_accuracy"] for layer, v in layers.items() if "ncc_accuracy" in v},
        }
        for split, layers in result.values.items()
    }
    depth = result.values["train"]["network"].get("effective_depth")
    learner, run_of = fit.learner, partial(training_run, precision=config.precision)
    parts = learner.model, learner.optimizer, learner.objective, learner.policy
    warn = partial(fit.observer.warned, fit.progress.epoch)
    return {
        "run": config.run_name,
        "experiment_name": config.experiment_name,
        "dataset": config.dataset.name,
        "model": own_label(config.model),
        "policy": own_label(config.etf),
        "seed": config.seed,
        "epochs": fit.progress.epoch,
        **({"ended_by": fit.progress.ended_by or "epochs"} if ends_early(config.keys()) else {}),
        **({"best": _best(config, fit)} if fit.settings.best else {}),
        **({"debug": _trial(config.trial, fit)} if config.trial else {}),
        **({"parent": {"run": config.parent, "epoch": fit.progress.split}} if config.parent else {}),
        "final": {**final, "effective_depth": depth},
        "headline": result.headline(learner.objective, config.metrics.headline),
        "parameters_learnable": learnable(fit.model.parameters()),
        "parameters_total": fit.progress.total_parameters,
        "memory": memory(*parts, fit.feed, run_of, fit.peak_bytes, warn),
        "step_seconds": statistics.median(fit.progress.step_seconds or [math.nan]),
        "wall_seconds": round(fit.progress.seconds, 3),
        "processes": fit.world.size,
    }
