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
    def needs_measures(self) -> bool:
        return True

    def complete(self, epochs: int, every: int) -> None:
        if self.start is None:
            self.start = max(1, epochs // 3)
        if not self.needs_measures:
            return
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
    """Effective depth = the first map from whose output on every train NCC accuracy has stayed at or above the
    threshold for `patience` epochs. Every map after it is fixed, one at a time or all at once, switches at
    least `pause` epochs apart.

    A measure or weight that is not finite never switches anything and starts the counting afresh.
    """

    kind = "etf"

    def __init__(self, settings: AdaptiveSettings):
        super().__init__(settings)
        self.since: dict[str, int] = {}  # site -> epoch from which on its output has been above the threshold
        self.last_switch: int | None = None

    def check(self, model: nn.Module) -> None:
        s = self.settings
        roles = model.etf_roles()
        # The first map is never beyond anything.
        sites = [site for site in list(roles)[1:] if s.maps == "all" or roles[site] != "classifier"]
        check_fits(model, sites, [s.recipe(model, site, 0, self.kind) for site in sites])

    def after_epoch(self, model: nn.Module, optimizer: Optimizer, measures: Measures, epoch: int) -> list[Switch]:
        s = self.settings
        if not all(map(math.isfinite, (measures.accuracy, *measures.ncc.values()))):
            self.since.clear()
            return []
        bar = s.threshold * (measures.accuracy if s.relative else 1.0)
        for site, ncc in measures.ncc.items():
            if ncc >= bar:
                self.since.setdefault(site, epoch)
            else:
                self.since.pop(site, None)
        if s.start is not None and epoch < s.start:
            return []
        if self.last_switch is not None and epoch - self.last_switch < s.pause:
            return []
        beyond = self._beyond(model, measures, epoch)
        if s.order == "deepest_first":
            beyond = beyond[-1:]
        if beyond:
            self.last_switch = epoch
        recipe = s.recipe
        return [switch(model, site, recipe(model, site, self.seed, self.kind), epoch, optimizer) for site in beyond]

    def _beyond(self, model: nn.Module, measures: Measures, epoch: int) -> list[str]:
        """Learnable maps after the effective depth, in network order."""
        settled: list[str] = []  # sites whose output, and all later ones, have been separated long enough
        for site in reversed(measures.ncc):
            if site not in self.since or epoch - self.since[site] + 1 < self.settings.patience:
                break
            settled.insert(0, site)
        sites, roles = model.etf_sites(), model.etf_roles()
        return [
            site
            for site in settled[1:]
            if not isinstance(sites[site], FixedLinear)
            and (self.settings.maps == "all" or roles[site] != "classifier")
            and bool(torch.isfinite(sites[site].weight).all())
        ]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "since": dict(self.since), "last_switch": self.last_switch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.since = dict(state["since"])
        self.last_switch = state["last_switch"]
