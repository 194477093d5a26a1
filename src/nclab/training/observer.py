"""Who watches a training: the run folder, trackers, the terminal. A fit reports to observers and to nothing else.

What the run folder raises ends the training: a run that cannot be recorded is lost. What an observer of convenience
raises does not: wrap it in `Guarded`.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nclab.etf import Switch
from nclab.etf.recipe import Recipe
from nclab.training.evaluate import Evaluation


@dataclass(frozen=True)
class Start:
    """A training begins, or goes on.

    layers: the record of every probe. switches: (layer, switch) of what was fixed before training. fixed: (module path,
    recipe) of every layer that is fixed now. candidates: of `ETFPolicy.candidates`. may_switch: whether layers may
    become fixed while training. epochs: how many it may train. saved_by: how many processes saved what is gone on from;
    None for a new run. folder: of the run, if it has one.
    """

    epoch: int
    layers: list[dict[str, Any]]
    switches: list[tuple[str, Switch]]
    processes: int = 1
    saved_by: int | None = None
    folder: Path | None = None
    fixed: list[tuple[str, Recipe]] = field(default_factory=list)
    candidates: dict[str, int] = field(default_factory=dict)
    may_switch: bool = False
    epochs: int | None = None


@dataclass(frozen=True)
class Measured:
    """An evaluation. Epoch 0 is the untrained network. falls: the layers whose train `rank` fell, layer -> (before,
    now); their nc1 is then not comparable with that of earlier epochs, and looks like collapse."""

    epoch: int
    evaluation: Evaluation
    train_seconds: float
    falls: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class EpochEnd:
    """An epoch is over. evaluation: of this very epoch, None where it was not measured. stacked: how many seeds were
    trained as one model."""

    epoch: int
    running_loss: float
    evaluation: Evaluation | None
    learnable: int
    train_seconds: float
    measure_seconds: float
    stacked: int = 1


@dataclass(frozen=True)
class Switched:
    """Layers were fixed after an epoch. switches: (layer, switch). scores: the network's before and after, as
    `{split}_{score}_before`, `_after`, and both `_refreshed` (batch-norm statistics of the train split); `score` is the
    one that is shown."""

    epoch: int
    switches: list[tuple[str, Switch]]
    scores: dict[str, float]
    score: str = "accuracy"


class Observer:
    """Base of all observers: sees everything and does nothing. Called in the order of a training, by the first process
    alone.

    finishes: its turn at the end, the lowest first: a tracker closes before the run folder says that the run is done,
    and the terminal tells of it last.
    """

    finishes: int = -1

    def begin(self, start: Start) -> None:
        """Once a process, before anything is measured."""

    def measured(self, measured: Measured) -> None:
        """After every evaluation."""

    def switched(self, switched: Switched) -> None:
        """After layers were fixed."""

    def settled(self, epoch: int, site: str, scores: dict[str, float]) -> None:
        """An epoch after the layer at `site` was fixed: how well did training recover?"""

    def epoch(self, end: EpochEnd) -> None:
        """After every epoch, what belongs to it included."""

    def saved(self, state: dict[str, Any]) -> None:
        """The state that a resume needs (`nclab.training.progress.state_of`), valid during the call only."""

    def saved_best(self, state: dict[str, Any]) -> None:
        """The state after the epoch with the best number so far, before any layer was fixed after it; valid during the
        call only."""

    def stopped(self, signal: str, epoch: int, batches: int) -> None:
        """A signal ends the training after so many epochs and batches; `saved` follows."""

    def warned(self, epoch: int, text: str) -> None:
        """Something went wrong that does not end the training."""

    def diverged(self, epoch: int, running_loss: float, learning_rate: float, where: str | None) -> None:
        """Numbers are no longer finite, first at `where`; `failed` follows."""

    def failed(self, error: BaseException) -> None:
        """The training ends by an error or a signal."""

    def finished(self, summary: dict[str, Any]) -> None:
        """The training reached its end."""


class _Relay(Observer):
    """Passes every call on to `_tell`."""

    def _tell(self, method: str, *args: Any) -> None:
        raise NotImplementedError

    def begin(self, start: Start) -> None:
        self._tell("begin", start)

    def measured(self, measured: Measured) -> None:
        self._tell("measured", measured)

    def switched(self, switched: Switched) -> None:
        self._tell("switched", switched)

    def settled(self, epoch: int, site: str, scores: dict[str, float]) -> None:
        self._tell("settled", epoch, site, scores)

    def epoch(self, end: EpochEnd) -> None:
        self._tell("epoch", end)

    def saved(self, state: dict[str, Any]) -> None:
        self._tell("saved", state)

    def saved_best(self, state: dict[str, Any]) -> None:
        self._tell("saved_best", state)

    def stopped(self, signal: str, epoch: int, batches: int) -> None:
        self._tell("stopped", signal, epoch, batches)

    def warned(self, epoch: int, text: str) -> None:
        self._tell("warned", epoch, text)

    def diverged(self, epoch: int, running_loss: float, learning_rate: float, where: str | None) -> None:
        self._tell("diverged", epoch, running_loss, learning_rate, where)

    def failed(self, error: BaseException) -> None:
        self._tell("failed", error)

    def finished(self, summary: dict[str, Any]) -> None:
        self._tell("finished", summary)


class Observers(_Relay):
    """Several observers in one: told in their order, and of the end in that of `finishes`. All are told of a failure,
    also where one cannot note it, such as the run folder on a full disk."""

    def __init__(self, observers: Sequence[Observer] = ()):
        self.observers = list(observers)

    def _tell(self, method: str, *args: Any) -> None:
        finished = method == "finished"
        for observer in sorted(self.observers, key=lambda o: o.finishes) if finished else self.observers:
            with suppress(OSError) if method == "failed" else nullcontext():
                getattr(observer, method)(*args)


class Guarded(_Relay):
    """An observer of convenience: until its first failure it is told everything; then `on_failure(epoch, reason)` is
    called once, and it hears nothing more. Never raises."""

    def __init__(self, inner: Observer, on_failure: Callable[[int, str], None]):
        self._inner: Observer | None = inner
        self._on_failure = on_failure
        self._epoch = 0
        self.finishes = inner.finishes

    def _tell(self, method: str, *args: Any) -> None:
        if self._inner is None:
            return
        self._epoch = getattr(args[0], "epoch", self._epoch) if args else self._epoch
        try:
            # Its own deprecation and resource warnings are no business of the run.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                getattr(self._inner, method)(*args)
        except (Exception, SystemExit) as error:
            failed, self._inner = self._inner, None
            with suppress(Exception, SystemExit):  # it has failed already; this only lets go of what it holds
                failed.failed(error)
            with suppress(Exception):  # where even that cannot be said (a closed terminal)
                self._on_failure(self._epoch, f"{type(error).__name__}: {error}")
