"""Values of the keys by which a run keeps its best epoch, ends early or is a trial."""

import re

from nclab.config.checks import NeverValid
from nclab.config.keys import TRIALS
from nclab.interfaces.valid import no_choice, unknown
from nclab.system.words import is_true
from nclab.training.ending import RUNNING, STOP_LOSSES, Best
from nclab.training.optim import at_least

MODES = ("max", "min")


def best_number(best: str | None, mode: str | None, patience: int | None) -> Best | None:
    """What the keys best, best_mode and stop_patience_epochs say, once they are checked."""
    if best is None:
        return None
    split, _, metric = best.partition("/")
    return Best(split, metric, mode == "max", patience)


def check_stop(loss: float | None, of: str) -> None:
    """Raise ValueError for keys of a loss that ends the training."""
    if of not in STOP_LOSSES:
        raise no_choice("stop_loss", of, STOP_LOSSES)
    if loss is not None:
        at_least("stop_at_loss", loss, 0)
    elif of != RUNNING:
        raise ValueError(f"stop_loss={of} needs stop_at_loss, the loss that ends the training; got stop_at_loss=null")


def check_best(best: str | None, mode: str | None, patience: int | None, every: int) -> None:
    """Raise ValueError for keys of the best epoch that mean nothing beside each other and metrics.every."""
    if best is None:
        for key, value in (("best_mode", mode), ("stop_patience_epochs", patience)):
            if value is not None:
                raise ValueError(f"{key} needs best, such as best=valid/accuracy; got {key}={value} and best=null")
        return
    if not re.fullmatch(r"[^/]+/[^/]+", best):
        raise ValueError(f"best must name a split and a metric, such as valid/accuracy; got {best}")
    if mode not in MODES:
        came = "null" if mode is None else mode
        raise ValueError(f"best={best} needs best_mode, {' or '.join(MODES)}; got {came}")
    if not every:
        raise ValueError(f"best={best} is judged at measured epochs: expected metrics.every of 1 or more, got 0")
    if patience is not None:
        at_least("stop_patience_epochs", patience, 1)


def debug_of(value: bool | str) -> bool | str:
    """The value of `debug`, true and false as OmegaConf reads them. Raises NeverValid."""
    if isinstance(value, bool) or value in TRIALS:
        return value
    if (found := is_true(value)) is None:
        raise NeverValid(unknown("debug", value, ("false", "true", *TRIALS)))
    return found
