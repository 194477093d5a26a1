"""etf=adaptive: maps beyond the effective depth become simplex ETFs while training (arXiv 2412.00884, Figure 2)."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from nclab.etf.layer import FixedLinear
from nclab.etf.policy import POLICIES, ETFPolicy, FixSettings, Measures, Switch, check_fits, switch

MAPS = ("all", "hidden")
ORDERS = ("deepest_first", "at_once")


@dataclass
class AdaptiveSettings(FixSettings):
    """When a map is fixed. The paper's threshold and patience are not published; these are our choices."""

    name: str = "adaptive"
    frame: str = "nearest"
    classifier_frame: str = "nearest"
    threshold: float = 0.9  # on train NCC accuracy
    relative: bool = True  # times the network's own train accuracy; false: absolute
    patience: int = 5  # epochs that a probe must stay above the threshold
    start: int | None = None  # first epoch that may switch; None: a third of all epochs
    pause: int = 1  # least number of epochs between switches
    maps: str = "all"  # all | hidden (the classifier stays learnable)
    order: str = "deepest_first"  # one map at a time, from the output; at_once: all beyond the effective depth

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, value, valid in (("maps", self.maps, MAPS), ("order", self.order, ORDERS)):
            if value not in valid:
                raise ValueError(f"unknown etf.{key} '{value}'; valid: {', '.join(valid)}")
        if not 0 < self.threshold <= 1:
            raise ValueError(f"etf.threshold must be in (0, 1], got {self.threshold}")
        for key in ("patience", "pause", "start"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"etf.{key} must be at least 1, got {value}")

    @property
    def stem(self) -> str:
        return "current" if self.kind == "frozen" else self.name

    @property
    def needs_measures(self) -> bool:
        return True

    def complete(self, epochs: int, every: int) -> None:
        if self.start is None:
            self.start = max(1, epochs // 3)
        if epochs < 2:
            raise ValueError(
                f"etf={self.name} switches while training goes on: epochs must be at least 2, got {epochs}"
            )
        if not 1 <= every < epochs:
            raise ValueError(
                f"etf={self.name} decides by the measured NCC accuracy while training goes on: metrics.every must be "
                f"between 1 and {epochs - 1} with epochs={epochs}, got {every}"
            )
        last = (epochs - 1) // every * every  # nothing is switched after the last epoch
        earliest = max(self.start, every + self.patience - 1)
        if last < earliest:
            raise ValueError(
                f"etf={self.name} could never switch: the last decision is after epoch {last}, and etf.start="
                f"{self.start}, etf.patience={self.patience}, metrics.every={every} allow none before {earliest}"
            )


@POLICIES.add("adaptive", AdaptiveSettings)
class Adaptive(ETFPolicy):
    """Effective depth = the first stage of the network from which on every train NCC accuracy has stayed at or above
    the threshold for `patience` epochs: a stage is a map of an MLP, a block of a ViT. The maps of every stage after it
    are fixed, one stage at a time or all at once, switches at least `pause` epochs apart.

    A measure or weight that is not finite never switches anything and starts the counting afresh.
    """

    def __init__(self, settings: AdaptiveSettings):
        super().__init__(settings)
        self.since: dict[str, int] = {}  # stage -> epoch from which on it has been above the threshold
        self.last_switch: int | None = None

    def check(self, model: nn.Module) -> None:
        stages = [probe.stage for probe in model.probes("linear") if probe.stage is not None]
        sites = [site for stage in stages[1:] for site in stage]  # the first stage is never beyond anything
        check_fits(model, [site for site in sites if self._may_fix(model, site)], self.settings)

    def after_epoch(
        self, model: nn.Module, optimizer: Optimizer, measures: Measures | None, epoch: int
    ) -> list[Switch]:
        s = self.settings
        if measures is None:
            return []
        if not all(map(math.isfinite, (measures.accuracy, *measures.ncc.values()))):
            self.since.clear()
            return []
        bar = s.threshold * (measures.accuracy if s.relative else 1.0)
        for stage, ncc in measures.ncc.items():
            if ncc >= bar:
                self.since.setdefault(stage, epoch)
            else:
                self.since.pop(stage, None)
        if s.start is not None and epoch < s.start:
            return []
        if self.last_switch is not None and epoch - self.last_switch < s.pause:
            return []
        beyond = self._beyond(model, measures, epoch)
        if s.order == "deepest_first":
            beyond = beyond[-1:]
        if beyond:
            self.last_switch = epoch
        sites = [site for stage in beyond for site in stage]
        return [switch(model, site, s.recipe(model, site, self.seed), epoch, optimizer) for site in sites]

    def _beyond(self, model: nn.Module, measures: Measures, epoch: int) -> list[list[str]]:
        """The learnable maps of each stage after the effective depth, in network order; no stage without any."""
        settled: list[str] = []  # stages that, with all later ones, have been separated long enough
        for stage in reversed(measures.ncc):
            if stage not in self.since or epoch - self.since[stage] + 1 < self.settings.patience:
                break
            settled.insert(0, stage)
        sites = model.etf_sites()
        open_maps = [
            [
                site
                for site in measures.stages[stage]
                if self._may_fix(model, site)
                and not isinstance(sites[site], FixedLinear)
                and bool(torch.isfinite(sites[site].weight).all())
            ]
            for stage in settled[1:]
        ]
        return [maps for maps in open_maps if maps]

    def _may_fix(self, model: nn.Module, site: str) -> bool:
        return self.settings.maps == "all" or site != model.classifier

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "since": dict(self.since), "last_switch": self.last_switch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.since = dict(state["since"])
        self.last_switch = state["last_switch"]
