"""schedule=thirds: the step decay of Papyan, Han, Donoho 2020, whatever the number of epochs."""

from dataclasses import dataclass

from nclab.training.optim import SCHEDULES, Schedule, ScheduleSettings, at_least


@dataclass
class ThirdsSettings(ScheduleSettings):
    name: str = "thirds"
    gamma: float = 0.1  # factor on the learning rate after one third, and again after two thirds of all epochs

    def __post_init__(self) -> None:
        at_least("schedule.gamma", self.gamma, 0, strict=True, most=1)


@SCHEDULES.add("thirds", ThirdsSettings)
def thirds(s: ThirdsSettings, epochs: int) -> Schedule:
    """1, gamma, gamma^2 in the first, second and last third of training.

    >>> factor = thirds(ThirdsSettings(), 9)
    >>> [round(factor(epoch), 2) for epoch in (0, 2, 3, 5, 6, 8)]
    [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    """
    return lambda epoch: s.gamma ** ((3 * epoch >= epochs) + (3 * epoch >= 2 * epochs))
