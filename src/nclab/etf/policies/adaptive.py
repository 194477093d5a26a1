"""etf=adaptive: layers beyond the effective depth become simplex ETFs while training (arXiv 2412.00884, Figure 2)."""

from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from nclab.etf.depth_rule import DepthRule, check_rule
from nclab.etf.late import LatePolicy, LateSettings
from nclab.etf.policy import POLICIES, Measures, Switch, switch


@dataclass
class AdaptiveSettings(LateSettings):
    """When a layer is fixed. The paper's threshold and patience are not published; these are our choices."""

    name: str = "adaptive"
    threshold: float = 0.9  # on the train NCC accuracy behind a layer ...
    relative: bool = True  # ... times the network's own train accuracy; false: absolute
    patience: int = 5  # epochs that it must hold
    # deepest_first: one stage at a time, from the output | at_once: all beyond the effective depth
    order: str = "deepest_first"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rule(self, "etf.")

    @property
    def stem(self) -> str:
        return "current" if self.kind == "frozen" else self.name

    @property
    def needs_measures(self) -> bool:
        return True

    def complete(self, epochs: int, every: int) -> None:
        super().complete(epochs, every)
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
class Adaptive(LatePolicy):
    """Fixes the layers of the stages beyond the effective depth, see `nclab.etf.depth_rule`: a stage is a layer of an
    MLP, a block of a ViT. An epoch without measures changes nothing."""

    settings: AdaptiveSettings

    def __init__(self, settings: AdaptiveSettings):
        super().__init__(settings)
        self.rule = DepthRule(settings)

    def after_epoch(
        self, model: nn.Module, optimizer: Optimizer, measures: Measures | None, epoch: int
    ) -> list[Switch]:
        if measures is None:
            return []

        def candidates(stage: str) -> list[str]:
            within = [site for site in measures.stages[stage] if self.may_fix(model, site)]
            return self.still_learnable(model, within)

        sites = self.rule.choose(measures.ncc, measures.accuracy, epoch, candidates)
        return [switch(model, site, self.settings.recipe(model, site, self.seed), epoch, optimizer) for site in sites]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), **self.rule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.rule.load_state_dict(state)
