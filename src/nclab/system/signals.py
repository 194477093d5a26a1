"""Signals that ask a run to stop: noted when they come, acted on between two batches, where everything can be saved.

SIGINT (Ctrl-C), SIGTERM (kill, a cluster's end of grace), SIGUSR2 (a cluster's warning) and SIGHUP (its terminal was
closed) all mean: save and leave. A second Ctrl-C leaves at once; the last checkpoint stays.
"""

import signal
import sys
import threading
import time
from types import FrameType

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP)
DOUBLE_CLICK = 0.5  # seconds: one Ctrl-C reaches a process twice where its launcher (torchrun) passes it on too


class Stopped(Exception):
    """The run was asked to stop, and has saved what it needs to go on."""

    def __init__(self, number: int):
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name}; what was trained is saved, the same command resumes")
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell shows of a process that the signal ended."""
        return 128 + self.number


class StopSignals:
    """A context in which the signals are noted instead of ending the process; `check` raises Stopped once one came.

    Nested contexts share one note: a signal that came in the outer one stops what the inner one begins. Outside of the
    main thread, where no handler can be set, nothing is noted and signals do what they always do.
    """

    _active: "StopSignals | None" = None

    def __init__(self) -> None:
        self.number: int | None = None
        self._noted = 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        if StopSignals._active is not None:
            return StopSignals._active
        if threading.current_thread() is threading.main_thread():
            for number in ASKING:
                # Ignored on purpose, as in the worker of a pool, whose parent sees to Ctrl-C, or in a command that a
                # shell without job control started in the background: left so.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
            StopSignals._active = self
        return self

    def __exit__(self, *_: object) -> None:
        if StopSignals._active is self:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._before.clear()
            StopSignals._active = None

    def check(self) -> None:
        """Raises Stopped if a signal came."""
        if self.number is not None:
            raise Stopped(self.number)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGINT and self.number == signal.SIGINT and now - self._noted > DOUBLE_CLICK:
            raise KeyboardInterrupt
        if self.number is None:
            self.number, self._noted = number, now
            if number == signal.SIGINT:
                print("\nstopping after this batch; Ctrl-C again leaves at once", file=sys.stderr)
