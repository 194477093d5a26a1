"""etf=adaptive: layers beyond the effective depth become simplex ETFs while training (arXiv 2412.00884, Figure 2)."""

from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from nclab.etf.depth_rule import DepthRule, check_rule, may_become_fixed
from nclab.etf.policy import POLICIES, ETFPolicy, FixSettings, Measures, Switch, check_fits, switch
from nclab.interfaces.valid import unknown

MAPS = ("all", "hidden")


@dataclass
class AdaptiveSettings(FixSettings):
    """When a layer is fixed. The paper's threshold and patience are not published; these are our choices."""

    name: str = "adaptive"
    frame: str = "nearest"  # of hidden layers: nearest (to the learnt weight) | those of last_k
    classifier_frame: str = "nearest"
    threshold: float = 0.9  # on the train NCC accuracy behind a layer ...
    relative: bool = True  # ... times the network's own train accuracy; false: absolute
    patience: int = 5  # epochs that it must hold
    start: int | None = None  # first epoch that may switch; null: a third of all epochs
    pause: int = 1  # least number of epochs between switches
    maps: str = "all"  # all | hidden (the classifier stays learnable)
    # deepest_first: one stage at a time, from the output | at_once: all beyond the effective depth
    order: str = "deepest_first"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.maps not in MAPS:
            raise ValueError(unknown("etf.maps", self.maps, MAPS))
        check_rule(self, "etf.")

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
    """Fixes the layers of the stages beyond the effective depth, see `nclab.etf.depth_rule`: a stage is a layer of an
    MLP, a block of a ViT. An epoch without measures changes nothing."""

    def __init__(self, settings: AdaptiveSettings):
        super().__init__(settings)
        self.rule = DepthRule(settings)

    def candidates(self, model: nn.Module) -> dict[str, int]:
        sites = [site for site in self._within_reach(model) if may_become_fixed(model.get_submodule(site))]
        return dict.fromkeys(sites, self.settings.start)

    def check(self, model: nn.Module) -> None:
        check_fits(model, self._within_reach(model), self.settings)

    def _within_reach(self, model: nn.Module) -> list[str]:
        """The layers of all stages but the first, which is never beyond anything."""
        stages = [probe.stage for probe in model.probes("linear") if probe.stage is not None]
        return [site for stage in stages[1:] for site in stage if self._may_fix(model, site)]

    def after_epoch(
        self, model: nn.Module, optimizer: Optimizer, measures: Measures | None, epoch: int
    ) -> list[Switch]:
        if measures is None:
            return []

        def candidates(stage: str) -> list[str]:
            sites = [site for site in measures.stages[stage] if self._may_fix(model, site)]
            return [site for site in sites if may_become_fixed(model.get_submodule(site))]

        sites = self.rule.choose(measures.ncc, measures.accuracy, epoch, candidates)
        return [switch(model, site, self.settings.recipe(model, site, self.seed), epoch, optimizer) for site in sites]

    def _may_fix(self, model: nn.Module, site: str) -> bool:
        return self.settings.maps == "all" or site != model.classifier

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), **self.rule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.rule.load_state_dict(state)
