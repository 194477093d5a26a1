"""schedule=log_time: steps that grow, so that epochs are even in the logarithm of the time of gradient flow."""

import math
from dataclasses import dataclass

from nclab.training.optim import SCHEDULES, Schedule, ScheduleSettings, at_least

LARGEST = 1e100  # factor on the learning rate


@dataclass
class LogTimeSettings(ScheduleSettings):
    name: str = "log_time"
    gamma: float = 1.1  # factor on the learning rate from one epoch to the next, above 1

    def __post_init__(self) -> None:
        at_least("schedule.gamma", self.gamma, 1, strict=True)


@SCHEDULES.add("log_time", LogTimeSettings)
def log_time(s: LogTimeSettings, epochs: int) -> Schedule:
    """gamma^epoch. Plain gradient descent of R steps an epoch has then run the gradient flow for the time
    R lr (gamma^e - 1) / (gamma - 1) after e epochs, of which a late step is the share log(gamma) / R. Where the
    curvature falls like 1 / time, as of cross-entropy on separated classes, such steps are as stable as constant ones
    are at the start.

    Raises ValueError where the factor would exceed 1e100.

    >>> factor = log_time(LogTimeSettings(gamma=2.0), 4)
    >>> [factor(epoch) for epoch in range(4)]
    [1.0, 2.0, 4.0, 8.0]
    """
    if epochs * math.log(s.gamma) > math.log(LARGEST):
        raise ValueError(
            f"schedule.gamma: expected gamma^epochs of at most {LARGEST:g}, got {s.gamma:g} and {epochs} epochs"
        )
    return lambda epoch: s.gamma**epoch
