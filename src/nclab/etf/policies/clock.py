"""etf=clock: layers become fixed at given epochs, whatever is measured. The control of etf=adaptive."""

from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from nclab.etf.late import LatePolicy, LateSettings
from nclab.etf.policy import POLICIES, Measures, Switch, switch
from nclab.interfaces.valid import OutOfRange


@dataclass
class ClockSettings(LateSettings):
    name: str = "clock"
    k: int = 1  # how many of the last stages become fixed: layers of an MLP, blocks of a ViT and its head

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1:
            raise OutOfRange(f"etf.k must be at least 1, got {self.k}", "etf.k")
        if self.k == 1:
            self._refuse_idle(("pause", "order"), "etf.k=1")
        if self.order == "at_once":
            self._refuse_idle(("pause",), "etf.order=at_once")

    @property
    def stem(self) -> str:
        return f"{self.name}{self.k}"

    @property
    def last(self) -> int:
        """The epoch of the last switch, once `start` is known."""
        return self.start + (self.k - 1) * self.pause * (self.order == "deepest_first")

    def complete(self, epochs: int, every: int) -> None:
        super().complete(epochs, every)
        if self.last >= epochs:
            raise ValueError(
                f"etf={self.name} would not end in time: the last of its etf.k={self.k} switches is due after epoch "
                f"{self.last} (etf.start={self.start}, etf.pause={self.pause}, etf.order={self.order}); expected it "
                f"before the last of epochs={epochs}"
            )


@POLICIES.add("clock", ClockSettings)
class Clock(LatePolicy):
    """Fixes the last k stages, as `etf=adaptive` would that met its bar at once: from epoch `start` on, the deepest
    first and one every `pause` epochs, or all at `start`.

    With the same keys and in the same epochs the two leave the same network, to the bit: what the measured NCC is good
    for is the difference between them. Raises ValueError for k outside 1..number of stages that may become fixed.
    """

    settings: ClockSettings

    def check(self, model: nn.Module) -> None:
        stages = self.stages(model)
        if self.settings.k > len(stages):
            names = ", ".join(site for stage in stages for site in stage)
            raise ValueError(
                f"etf.k must be between 1 and {len(stages)}, the stages of this model after the first that may become "
                f"fixed ({names}); got {self.settings.k}"
            )
        super().check(model)

    def candidates(self, model: nn.Module) -> dict[str, int]:
        due = {site: epoch for epoch, sites in self._due(model).items() for site in sites}
        return {site: due[site] for site in self.still_learnable(model, list(due))}

    def may_switch_after(self, model: nn.Module, epoch: int) -> bool:
        return epoch in self.candidates(model).values()

    def after_epoch(
        self, model: nn.Module, optimizer: Optimizer, measures: Measures | None, epoch: int
    ) -> list[Switch]:
        sites = self.still_learnable(model, self._due(model).get(epoch, []))
        return [switch(model, site, self.settings.recipe(model, site, self.seed), epoch, optimizer) for site in sites]

    def _due(self, model: nn.Module) -> dict[int, list[str]]:
        """Epoch -> the layers that become fixed after it, in network order; the last k stages in all."""
        s = self.settings
        last = self.stages(model)[-s.k :]
        if s.order == "at_once":
            return {s.start: [site for stage in last for site in stage]}
        return {s.start + i * s.pause: stage for i, stage in enumerate(reversed(last))}
