"""One answer of all processes of a run to the question whether a signal asked it to stop."""

from collections.abc import Callable

from nclab.parallel.group import ProcessGroup
from nclab.system.signals import Stopped, StopSignals


class AgreedStop:
    """The signals of all processes of a run: `check`, called by all at the same moments, raises Stopped in all at once,
    one check after the first of them noted a signal. The question is on its way meanwhile, on the host: no check waits
    for a device."""

    def __init__(self, signals: StopSignals, world: ProcessGroup):
        self.signals, self.world = signals, world
        self._answer: Callable[[], int] | None = None

    def check(self) -> None:
        number = self._answer() if self._answer else 0
        self._answer = None
        if number:
            raise Stopped(number)
        self._answer = self.world.start_most(self.signals.number or 0)
