"""etf=frozen: the control. The same maps as last_k or adaptive, frozen as they stand instead of made ETFs, so that
the difference between the two runs is what the ETF itself contributes."""

from dataclasses import dataclass, fields

from torch import nn
from torch.optim import Optimizer

from nclab.etf.policies.adaptive import Adaptive, AdaptiveSettings
from nclab.etf.policies.last_k import LastK
from nclab.etf.policy import POLICIES, ETFPolicy, Measures, Switch

WEIGHTS = ("initial", "current")


@dataclass
class FrozenSettings(AdaptiveSettings):
    """`weights: initial` freezes the last k maps at initialisation (compare last_k); `weights: current` freezes maps
    when etf=adaptive would switch them. Frame, rank and scale mean nothing here."""

    name: str = "frozen"
    weights: str = "initial"
    k: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights not in WEIGHTS:
            raise ValueError(f"unknown etf.weights '{self.weights}'; valid: {', '.join(WEIGHTS)}")
        # A key without effect would give one run two names.
        idle = {"frame", "classifier_frame", "rank", "scale", "classifier_scale"}
        idle |= (
            {"k"}
            if self.weights == "current"
            else {f.name for f in fields(AdaptiveSettings)} - {"name", "bias", "start"}
        )
        for f in fields(self):
            if f.name in idle and getattr(self, f.name) != f.default:
                raise ValueError(f"etf.{f.name} has no effect with etf=frozen etf.weights={self.weights}; leave it out")

    @property
    def label(self) -> str:
        return f"frozen_last{self.k}" if self.weights == "initial" else "frozen_current"

    @property
    def needs_measures(self) -> bool:
        return self.weights == "current"


class _FrozenLastK(LastK):
    kind = "frozen"


class _FrozenAdaptive(Adaptive):
    kind = "frozen"


@POLICIES.add("frozen", FrozenSettings)
class Frozen(ETFPolicy):
    """Hands over to last_k or adaptive with frozen maps."""

    def __init__(self, settings: FrozenSettings):
        super().__init__(settings)
        self.inner = (_FrozenLastK if settings.weights == "initial" else _FrozenAdaptive)(settings)

    def check(self, model: nn.Module) -> None:
        self.inner.check(model)

    def setup(self, model: nn.Module, seed: int) -> list[Switch]:
        return self.inner.setup(model, seed)

    def after_epoch(self, model: nn.Module, optimizer: Optimizer, measures: Measures, epoch: int) -> list[Switch]:
        return self.inner.after_epoch(model, optimizer, measures, epoch)

    def state_dict(self) -> dict:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.inner.load_state_dict(state)
