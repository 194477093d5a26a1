"""The epoch loop: train, measure, let the policy switch, save. It reports to observers and writes nothing itself."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from nclab.etf import Switch
from nclab.etf.policy import forget, learnable
from nclab.etf.state import state_without_fixed
from nclab.interfaces.batch import Batch
from nclab.metrics.suite import NETWORK
from nclab.models import Classifier, layer_of
from nclab.parallel.group import PeerLost
from nclab.system.lock import RunLocked
from nclab.system.machine import OutOfMemory, needs_memory
from nclab.system.signals import Stopped
from nclab.training.around_switch import scores_around, scores_of_splits
from nclab.training.beside import log_beside, scalars
from nclab.training.ending import EVALUATED, FITTED, RUNNING, STOP_AT_LOSS, STOP_PATIENCE, Best, is_fitted
from nclab.training.evaluate import Evaluation, MetricsSettings, evaluate, scores, scores_of_few
from nclab.training.feed import Feed
from nclab.training.finite import first_not_finite, is_finite
from nclab.training.memory import allocated_peak, begin_peak
from nclab.training.observer import EpochEnd, Measured, Observer, Switched
from nclab.training.progress import BestEpoch, Part, Progress, state_of
from nclab.training.step import Learner, train_epoch


class RunError(RuntimeError):
    """One run cannot go on; others can. The message says why and what to do."""


class Diverged(RunError):
    """Loss or weights are no longer numbers; the last good checkpoint, if any, is kept."""


FAILURES = (RunError, OutOfMemory, RunLocked, PeerLost, OSError)  # of one run: others go on


@dataclass(frozen=True)
class FitSettings:
    """When a fit ends, what it measures and how often it saves."""

    epochs: int  # the most that is trained
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    checkpoint_seconds: float = 10.0  # the least between two checkpoints; a switch and the end are saved at once
    stop_at_loss: float | None = None  # the first epoch whose training loss is at most this is the last
    stop_loss: str = RUNNING  # which loss: the mean over the epoch's batches; EVALUATED: of the train split after it
    until_fitted: bool = False  # the first epoch after which the train split is learnt is the last
    best: Best | None = None  # the number by which epochs are compared; its patience can end the fit


class Fit:
    """One training. `run()` trains from `progress.epoch` to `settings.epochs`; everything it needs comes from outside.

    learner: model, objective, policy, optimizer. feed: where batches come from. observer: who is told. check: called
    between two batches; it may raise Stopped.
    """

    def __init__(
        self,
        learner: Learner,
        feed: Feed,
        settings: FitSettings,
        progress: Progress,
        observer: Observer,
        check: Callable[[], None] = lambda: None,
    ):
        self.learner, self.feed, self.settings = learner, feed, settings
        self.progress, self.observer, self.check = progress, observer, check
        self.world = feed.world
        self._last = Evaluation()  # the latest
        self._saving = 0.0  # seconds that the latest checkpoint took
        self._saved = time.monotonic()
        self._began = 0.0  # of this epoch's training steps in this process
        self.diverging = False  # seen in a batch
        self._culprit: str | None = None  # where in the network that began
        self.saved_epoch = -1  # of the latest checkpoint
        self.peak_bytes: int | None = None  # on a GPU, of the training steps of every epoch in this process

    @property
    def model(self) -> Classifier:
        return self.learner.model

    @property
    def epochs(self) -> int:
        return self.settings.epochs

    def run(self) -> Evaluation:
        """Trains to the end; returns the last evaluation. Raises Diverged, and after a signal, all saved, Stopped."""
        try:
            self.begin()
            while not self.finished:
                began = time.perf_counter()
                self.begin_epoch()
                running_loss = self.train_epoch()
                self.end_epoch(running_loss, time.perf_counter() - began)
            return self.result()
        except Stopped as stopped:
            self.leave(stopped)
            raise

    # The pieces of `run`, in its order, for whoever trains several fits at once (`nclab.training.seeds`).

    @property
    def finished(self) -> bool:
        return self.progress.ended_by is not None or self.progress.epoch >= self.epochs

    def begin(self) -> None:
        """What precedes the first epoch: the measurement of the untrained network."""
        p = self.progress
        if p.epoch == 0 and p.part is None and self.settings.metrics.every:
            began = time.perf_counter()
            self._last = self._measure(0, scalars(self.learner, float("nan")))
            p.seconds += time.perf_counter() - began
        p.part = p.part or Part()
        self._saved = time.monotonic()
        if p.due:
            self._act_on_last_epoch()
        self._check_headline()

    def _act_on_last_epoch(self) -> None:
        """Let the policy act on the epoch in which a shorter run ended, as `end_epoch` does in a longer one."""
        p, every = self.progress, self.settings.metrics.every
        began = time.perf_counter()
        # Measured again, and not told: the rows are there.
        switches = self._switch(self._evaluate(p.epoch - 1) if every and p.epoch % every == 0 else None)
        p.due = False
        p.seconds += time.perf_counter() - began
        if switches:
            self.save()

    def begin_epoch(self) -> None:
        p = self.progress
        self._set_lr(p.epoch)
        if self.feed.begin_epoch(p.epoch, p.part):
            self.learner.optimizer.state.clear()
        self._began = time.perf_counter()

    def train_epoch(self) -> float:
        p = self.progress
        with self.training():
            return train_epoch(self.learner, self.feed, p.part, p.epoch, p.steps, self.check, self.watch)

    @contextmanager
    def training(self) -> Iterator[None]:
        """For the steps of an epoch: notes the peak of their memory on a GPU, and says what to lower where they need
        more than there is."""
        device = self.feed.dataset.train.targets.device
        begin_peak(device)
        with needs_memory("training", f"lower batch_size (now {self.feed.batch_size}) or the size of the model"):
            yield
        self.peak_bytes = max(self.peak_bytes or 0, allocated_peak(device))

    def watch(self, loss: Tensor, batch: Batch) -> bool:
        """Whether the loss () of the batch, before its step, is not finite; notes where in the network that began.
        Skipped on a GPU: reading the loss would synchronise the device, and once an epoch the weights tell."""
        if loss.device.type != "cpu" or math.isfinite(loss.item()):
            return False
        self.diverging, self._culprit = True, first_not_finite(self.model, batch.inputs)
        return True

    def end_epoch(self, running_loss: float, train_seconds: float, stacked: int = 1) -> None:
        """All that follows the training steps of an epoch, which took `train_seconds` (its share of them, where
        `stacked` fits were trained at once): measure, let the policy switch, report, save. Raises Diverged."""
        p = self.progress
        began = time.perf_counter()
        train_seconds += p.part.seconds
        epoch = p.epoch + 1
        if not (math.isfinite(running_loss) and self._finite()):
            self._stop_diverged(running_loss, epoch)
        every, ended_by = self.settings.metrics.every, self._ended_by(running_loss)
        measured: Evaluation | None = None
        if ended_by or epoch >= self.epochs or (every and epoch % every == 0):
            # Asked to stop in here, the run still is where the last batch left it.
            self._last = measured = self._measure(epoch, scalars(self.learner, running_loss), train_seconds)
        p.steps += p.part.batches
        p.step_seconds.append(train_seconds / max(1, p.part.batches))
        p.epoch, p.part, p.ended_by = epoch, Part(), ended_by
        self._judge(measured)
        self._settle(measured)
        switches = [] if self.finished else self._switch(measured if every else None)
        measuring = time.perf_counter() - began
        learn = learnable(self.model.parameters())
        self.observer.epoch(EpochEnd(epoch, running_loss, measured, learn, train_seconds, measuring, stacked))
        p.seconds += train_seconds + time.perf_counter() - began + self._saving
        self._saving = 0.0
        if self.finished or switches or time.monotonic() - self._saved >= self.settings.checkpoint_seconds:
            began = time.perf_counter()
            self.save()
            self._saving, self._saved = time.perf_counter() - began, time.monotonic()

    def _ended_by(self, running_loss: float) -> str | None:
        """What ends the training with the epoch that was just trained, if anything does."""
        s, learner, dataset = self.settings, self.learner, self.feed.dataset
        found = {"loss": running_loss}
        if s.until_fitted or (s.stop_at_loss is not None and s.stop_loss == EVALUATED):
            with self._measuring():
                size = s.metrics.batch_size
                found = scores(learner.model, dataset, dataset.train, size, learner.objective, self.world)
        if s.stop_at_loss is not None and found["loss"] <= s.stop_at_loss:
            return STOP_AT_LOSS
        return FITTED if s.until_fitted and is_fitted(found, learner.objective, dataset.train) else None

    def _judge(self, measured: Evaluation | None) -> None:
        """Keep the state of a measured epoch whose number is the best so far, before the policy acts on it; end the
        training where the best one is long ago."""
        best, p = self.settings.best, self.progress
        # The last epoch counts where a longer run would measure it too.
        if best is None or measured is None or p.epoch % self.settings.metrics.every:
            return
        value = measured.network(best.split, best.metric)
        # Hosts may differ in their rounding: the first decides.
        better, value = self.world.broadcast_call(lambda: (best.is_better(value, p.best and p.best.value), value))
        if better:
            p.best = BestEpoch(p.epoch, value)
            if self.world.first:
                self.observer.saved_best(self._state())
        elif p.ended_by is None and best.is_over(p.epoch, p.best.epoch if p.best else 0):
            p.ended_by = STOP_PATIENCE

    def result(self) -> Evaluation:
        """The last evaluation; a new one where a resumed run had no epoch left to train."""
        if not self._last.values:
            self._last = self._evaluate()
            log_beside(self._last, self.learner, scalars(self.learner, float("nan")))
        return self._last

    def save(self) -> None:
        """Let the first process save the state at the end of the current epoch: all hold the same."""
        if self.world.first:
            self.observer.saved(self._state())
        self.saved_epoch = self.progress.epoch

    def _state(self) -> dict[str, Any]:
        learner, feed = self.learner, self.feed
        return state_of(learner.model, learner.policy, learner.optimizer, feed.sampler, feed.generators, self.progress)

    def leave(self, stopped: Stopped) -> None:
        """Save between two batches, or in the middle of a measurement, which is then made again."""
        p = self.progress
        batches = p.part.batches if p.part else 0
        if batches:
            p.part.seconds += time.perf_counter() - self._began
            if not self._finite():
                self._stop_diverged(float(p.part.loss) / p.part.samples, p.epoch + 1)
        with self.world.raise_everywhere():  # the others leave when it is saved
            self.observer.stopped(signal.Signals(stopped.number).name, p.epoch, batches)
            self.save()

    def _evaluate(self, epoch: int | None = None) -> Evaluation:
        """Of the splits of this epoch's phase, by default that of the one under way."""
        epoch = self.progress.epoch if epoch is None else epoch
        learner, m = self.learner, self.settings.metrics
        given = learner.objective, self.feed.phase(epoch).splits, self.feed.seen(epoch)
        with self._measuring():
            return evaluate(learner.model, self.feed.dataset, m, m.every > 0, self.check, self.world, *given)

    def _check_headline(self) -> None:
        """Raise RunError for a headline or `best` that is not measured: now, and not at the end of the training."""
        known = self._last
        if not known.values and not self.settings.metrics.every:
            scores = scores_of_few(self.model, self.feed.dataset, self.learner.objective)
            splits = self.feed.phases[-1].splits if self.feed.phases else None
            known = Evaluation({split: {NETWORK: scores} for split in splits or self.feed.dataset.splits})
        if known.values:
            best = self.settings.best
            try:
                known.headline(self.learner.objective, self.settings.metrics.headline)
                if best is not None:
                    known.number("best", best.split, best.metric)
            except ValueError as error:
                raise RunError(str(error)) from None

    def _measuring(self) -> AbstractContextManager[None]:
        m = self.settings.metrics
        kept = f"metrics.memory_gib (now {m.memory_gib:g}; it changes no number, and the same run goes on) or "
        return needs_memory("measuring", f"lower {kept if m.memory_gib else ''}metrics.batch_size (now {m.batch_size})")

    def _set_lr(self, epoch: int) -> None:
        for group in self.learner.optimizer.param_groups:
            group["lr"] = self.learner.learning_rate(epoch)

    def _finite(self) -> bool:
        """Weights and running statistics are numbers whose squares are too: nothing else may reach a checkpoint."""
        return is_finite(list(state_without_fixed(self.model).values()))

    def _measure(self, epoch: int, numbers: dict[str, float], train_seconds: float = 0.0) -> Evaluation:
        result = self._evaluate()
        if epoch and not math.isfinite(loss := result.network("train", "loss")):
            self.model.eval()
            dataset = self.feed.dataset
            batches = map(dataset.inputs, dataset.train.samples.split(self.settings.metrics.batch_size))
            self._culprit = next(filter(None, (first_not_finite(self.model, x) for x in batches)), None)
            self._stop_diverged(loss, epoch)
        log_beside(result, self.learner, numbers)
        falls = self.progress.falls(result.ranks())
        self.observer.measured(Measured(epoch, result, train_seconds, falls))
        return result

    def _settle(self, result: Evaluation | None) -> None:
        """One epoch after a switch: how well did training recover?"""
        p = self.progress
        for site in p.unsettled or []:
            with self._measuring():
                size = self.settings.metrics.batch_size
                found = scores_of_splits(self.model, self.feed, size, self.learner.objective, result)
            at = {f"{split}_{name}": value for split, name, value in found}
            self.observer.settled(p.epoch, site, at)
        p.unsettled = None

    def _switch(self, result: Evaluation | None) -> list[Switch]:
        learner, epoch = self.learner, self.progress.epoch
        policy, measures = learner.policy, None if result is None else result.measures()
        # For the comparison below; not where it cannot come to that.
        unmeasured = measures is None and policy.settings.needs_measures
        idle = unmeasured or not policy.may_switch_after(self.model, epoch)
        old = self.model if idle else deepcopy(self.model)
        switches = policy.after_epoch(self.model, learner.optimizer, measures, epoch)
        if policy.may_switch:  # also what it froze without a switch
            forget(learner.optimizer, [p for p in self.model.parameters() if not p.requires_grad])
        if switches:
            self.world.align([*self.model.parameters(), *self.model.buffers()])  # hosts may differ in their rounding
            with self._measuring():
                size = self.settings.metrics.batch_size
                at, score = scores_around(old, self.model, self.feed, size, learner.objective, result)
            probes = self.model.probes(self.settings.metrics.probe)
            named = [(layer_of(probes, s.site), s) for s in switches]
            self.observer.switched(Switched(epoch, named, at, score))
            self.progress.unsettled = [s.site for s in switches]
        return switches

    def _stop_diverged(self, loss: float, epoch: int) -> None:
        lr = self.learner.optimizer.param_groups[0]["lr"]
        where = self._culprit or first_not_finite(self.model)
        self.observer.diverged(epoch, loss, lr, where)
        raise Diverged(
            f"training diverged in epoch {epoch} at learning rate {lr:g} (loss {loss:g}"
            + (f", first not finite: the {where}" if where else "")
            + "); lower optimizer.lr"
        )
