"""When layers become fixed while training: the rule of etf=adaptive and AdaptiveETF (arXiv 2412.00884, Figure 2)."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import nn

from nclab.etf.layer import FixedLinear
from nclab.interfaces.effective_depth import effective_depth
from nclab.interfaces.valid import OutOfRange, no_choice

ORDERS = ("deepest_first", "at_once")


class TimeSettings(Protocol):
    """When switches may be, whatever is measured."""

    start: int | None  # first epoch that may switch
    pause: int  # least number of epochs between switches
    order: str  # deepest_first: one stage at a time, from the output | at_once: all beyond the effective depth


class RuleSettings(TimeSettings, Protocol):
    """The numbers of a `DepthRule`."""

    threshold: float  # on train NCC accuracy
    relative: bool  # times the network's own train accuracy; false: absolute
    patience: int  # epochs that a stage must stay above the threshold


def check_times(settings: TimeSettings, prefix: str = "") -> None:
    """Raise ValueError for numbers out of range; `prefix` stands before the names of the keys."""
    if settings.order not in ORDERS:
        raise no_choice(f"{prefix}order", settings.order, ORDERS)
    for key in ("pause", "start"):
        _at_least_1(settings, key, prefix)


def check_rule(settings: RuleSettings, prefix: str = "") -> None:
    """Raise ValueError for numbers out of range; `prefix` stands before the names of the keys."""
    check_times(settings, prefix)
    if not 0 < settings.threshold <= 1:
        raise OutOfRange(f"{prefix}threshold must be in (0, 1], got {settings.threshold}", f"{prefix}threshold")
    _at_least_1(settings, "patience", prefix)


def _at_least_1(settings: object, key: str, prefix: str) -> None:
    if (value := getattr(settings, key)) is not None and value < 1:
        raise OutOfRange(f"{prefix}{key} must be at least 1, got {value}", f"{prefix}{key}")


class DepthRule:
    """The layers of the stages after the effective depth become fixed, one stage at a time or all at once, switches at
    least `pause` epochs apart.

    The effective depth is that of `effective_depth` at the tolerance 1 - threshold, once it has held for `patience`
    epochs: the greatest of these epochs.

    A measure that is not finite never switches anything and starts the counting afresh.
    """

    def __init__(self, settings: RuleSettings):
        self.settings = settings
        self.since: dict[str, int] = {}  # stage -> epoch from which on the effective depth has been there or before
        self.last_switch: int | None = None

    def choose(
        self, ncc: Mapping[str, float], accuracy: float, epoch: int, candidates: Callable[[str], list[str]]
    ) -> list[str]:
        """The layers to fix after this epoch, in network order.

        ncc: stage -> train NCC accuracy, in network order. accuracy: of the network on the train split. candidates:
        stage -> its layers that may still become fixed.
        """
        s = self.settings
        if not all(map(math.isfinite, (accuracy, *ncc.values()))):
            self.since.clear()
            return []
        depth = effective_depth(list(ncc.values()), 1 - s.threshold, accuracy if s.relative else 1.0)
        for place, stage in enumerate(ncc, 1):
            if place >= depth:  # of a depth that is nan, none
                self.since.setdefault(stage, epoch)
            else:
                self.since.pop(stage, None)
        if s.start is not None and epoch < s.start:
            return []
        if self.last_switch is not None and epoch - self.last_switch < s.pause:
            return []
        settled = [stage for stage in ncc if epoch - self.since.get(stage, epoch + 1) + 1 >= s.patience]
        beyond = [layers for layers in map(candidates, settled[1:]) if layers]
        if s.order == "deepest_first":
            beyond = beyond[-1:]
        if beyond:
            self.last_switch = epoch
        return [layer for layers in beyond for layer in layers]

    def state_dict(self) -> dict[str, Any]:
        return {"since": dict(self.since), "last_switch": self.last_switch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.since = dict(state["since"])
        self.last_switch = state["last_switch"]


def may_become_fixed(layer: nn.Module) -> bool:
    """Whether the layer is still learnable and its weight finite: a diverged one is left alone."""
    return not isinstance(layer, FixedLinear) and bool(torch.isfinite(layer.weight).all())
