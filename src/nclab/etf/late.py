"""Fixing layers while training goes on: what etf=adaptive and its control etf=clock share.

A stage is what becomes fixed together: a linear layer of an MLP, a block of a ViT. The first stage always stays
learnable.
"""

from dataclasses import dataclass

from torch import nn

from nclab.etf.depth_rule import check_times, may_become_fixed
from nclab.etf.policy import ETFPolicy, FixSettings, check_fits
from nclab.interfaces.valid import no_choice

MAPS = ("all", "hidden")


@dataclass
class LateSettings(FixSettings):
    """The keys of a policy that fixes layers while training goes on."""

    frame: str = "nearest"  # of hidden layers: nearest (to the learnt weight) | those of last_k
    classifier_frame: str = "nearest"
    start: int | None = None  # first epoch that may switch; null: a third of all epochs
    pause: int = 1  # least number of epochs between switches
    maps: str = "all"  # all | hidden (the classifier stays learnable)
    # deepest_first: one stage at a time, from the output | at_once: all that are due
    order: str = "deepest_first"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.maps not in MAPS:
            raise no_choice("etf.maps", self.maps, MAPS)
        check_times(self, "etf.")

    def complete(self, epochs: int, every: int) -> None:
        if self.start is None:
            self.start = max(1, epochs // 3)
        if epochs < 2:
            raise ValueError(
                f"etf={self.name} switches while training goes on: epochs must be at least 2, got {epochs}"
            )


class LatePolicy(ETFPolicy):
    """Base of the policies with `LateSettings`: which layers they may fix."""

    settings: LateSettings

    def check(self, model: nn.Module) -> None:
        check_fits(model, [site for stage in self.stages(model) for site in stage], self.settings)

    def candidates(self, model: nn.Module) -> dict[str, int]:
        sites = [site for stage in self.stages(model) for site in stage]
        return dict.fromkeys(self.still_learnable(model, sites), self.settings.start)

    def may_switch_after(self, model: nn.Module, epoch: int) -> bool:
        return any(first <= epoch for first in self.candidates(model).values())

    def stages(self, model: nn.Module) -> list[list[str]]:
        """The layers of every stage but the first that may become fixed at all, in network order; none is empty."""
        stages = [probe.stage for probe in model.probes("linear") if probe.stage is not None]
        within = [[site for site in stage if self.may_fix(model, site)] for stage in stages[1:]]
        return [stage for stage in within if stage]

    def may_fix(self, model: nn.Module, site: str) -> bool:
        return self.settings.maps == "all" or site != model.classifier

    def still_learnable(self, model: nn.Module, sites: list[str]) -> list[str]:
        return [site for site in sites if may_become_fixed(model.get_submodule(site))]
