"""The epoch loop: train, measure, let the policy switch, record, save."""

import math
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass

from torch import Generator, Tensor
from torch.optim import Optimizer

from nclab.data import Dataset
from nclab.etf import ETFPolicy, Switch
from nclab.etf.policy import learnable
from nclab.models import Classifier, layer_of
from nclab.parallel.group import SINGLE, PeerLost, ProcessGroup
from nclab.runfolder import checkpoint
from nclab.runfolder.checkpoint import Part, Progress
from nclab.runfolder.display import Display
from nclab.runfolder.folder import RecordError, RunFolder, RunLocked
from nclab.runfolder.trackers import Tracker
from nclab.system.machine import OutOfMemory, needs_memory
from nclab.system.signals import AgreedStop, Stopped, StopSignals
from nclab.training.evaluate import Evaluation, MetricsSettings, accuracy, evaluate, refreshed
from nclab.training.finite import first_not_finite, is_finite
from nclab.training.objective import Loss
from nclab.training.optim import optimizer_bytes
from nclab.training.step import Forward, train_epoch


class Diverged(RuntimeError):
    """Loss or weights are no longer numbers; the last good checkpoint, if any, is kept."""


FAILURES = (Diverged, OutOfMemory, RecordError, RunLocked, PeerLost, OSError)  # of one run: others go on


@dataclass
class Fit:
    """One training. `run()` trains from `progress.epoch` to `epochs`; everything it needs comes from outside."""

    model: Classifier
    dataset: Dataset
    policy: ETFPolicy
    optimizer: Optimizer
    schedule: Callable[[int], float]
    base_lr: float
    epochs: int
    batch_size: int
    loss: Loss
    metrics: MetricsSettings
    generators: dict[str, Generator]  # order, augment: CPU generators, so that both are the same on every device
    folder: RunFolder
    tracker: Tracker
    display: Display
    progress: Progress
    checkpoint_seconds: float
    forward: Forward
    stop: StopSignals | AgreedStop
    world: ProcessGroup = SINGLE

    def __post_init__(self) -> None:
        self._last = Evaluation()  # the latest
        self._saving = 0.0  # seconds that the latest checkpoint took
        self._saved = time.monotonic()
        self._began = 0.0  # of this epoch's training steps in this process
        self.diverging = False  # seen in a batch
        self._culprit: str | None = None  # where in the network that began
        self.saved_epoch = -1  # of the latest checkpoint

    def run(self) -> Evaluation:
        """Trains to the end; returns the last evaluation. Raises Diverged, and Stopped after a signal, when all is
        saved."""
        try:
            self.begin()
            while not self.finished:
                began = time.perf_counter()
                self.begin_epoch()
                running_loss = self.train_alone()
                self.end_epoch(running_loss, time.perf_counter() - began)
            return self.result()
        except Stopped as stopped:
            self.leave(stopped)
            raise

    # The pieces of `run`, in its order, for whoever trains several fits at once (`nclab.training.seeds`).

    @property
    def finished(self) -> bool:
        return self.progress.epoch >= self.epochs

    def begin(self) -> None:
        """What precedes the first epoch: the measurement of the untrained network."""
        p = self.progress
        if p.epoch == 0 and p.part is None and self.metrics.every:
            began = time.perf_counter()
            self._last = self._measure(0, self._scalars(float("nan")))
            p.seconds += time.perf_counter() - began
        p.part = p.part or Part()
        self._saved = time.monotonic()

    def begin_epoch(self) -> None:
        self._set_lr(self.progress.epoch)
        self._began = time.perf_counter()

    def train_alone(self) -> float:
        with self.training():
            return train_epoch(
                self.model,
                self.dataset,
                self.optimizer,
                self.batch_size,
                self.generators,
                self.forward,
                self.progress.part,
                self.stop.check,
                self.watch,
                self.world,
                self.loss,
            )

    def training(self) -> AbstractContextManager[None]:
        """For the steps of an epoch: says what to lower where they need more memory than there is."""
        return needs_memory("training", f"lower batch_size (now {self.batch_size}) or the size of the model")

    def watch(self, loss: Tensor, x: Tensor) -> bool:
        """Whether the loss () of the batch x (B, ch, h, w), before its step, is a number no more; notes where in the
        network that began. On a GPU never: to look is to wait for it, and once an epoch the weights tell."""
        if loss.device.type != "cpu" or math.isfinite(loss.item()):
            return False
        self.diverging, self._culprit = True, first_not_finite(self.model, x)
        return True

    def end_epoch(self, running_loss: float, train_seconds: float, seeds: int = 1) -> None:
        """All that follows the training steps of an epoch, which took `train_seconds` (its share of them, where
        `seeds` fits were trained at once): measure, let the policy switch, record, save. Raises Diverged."""
        p = self.progress
        began = time.perf_counter()
        train_seconds += p.part.seconds
        epoch = p.epoch + 1
        if not (math.isfinite(running_loss) and self._finite()):
            self._stop_diverged(running_loss, epoch)
        every = self.metrics.every
        switches: list[Switch] = []
        measured = epoch >= self.epochs or bool(every and epoch % every == 0)
        if measured:  # asked to stop in here, the run still is where the last batch left it
            self._last = self._measure(epoch, self._scalars(running_loss), train_seconds)
        p.epoch, p.part = epoch, Part()
        self._settle(self._last if measured else None)
        if measured and every and not self.finished:
            switches = self._switch(self._last)
        measuring = time.perf_counter() - began
        shared = {"seeds": seeds} if seeds > 1 else {}
        self.folder.event("epoch", epoch=p.epoch, train_seconds=train_seconds, measure_seconds=measuring, **shared)
        self._show(running_loss, self._last if self._last.values else None, train_seconds + measuring)
        p.seconds += train_seconds + time.perf_counter() - began + self._saving
        self._saving = 0.0
        if self.finished or switches or time.monotonic() - self._saved >= self.checkpoint_seconds:
            began = time.perf_counter()
            self.save()
            self._saving, self._saved = time.perf_counter() - began, time.monotonic()

    def result(self) -> Evaluation:
        """The last evaluation; a new one where a resumed run had no epoch left to train."""
        return self._last if self._last.values else self._evaluate()

    def save(self) -> None:
        """Checkpoint at the end of the current epoch, by the first process: all hold the same."""
        lengths = self.folder.lengths()
        path = self.folder.path
        if self.world.first:
            checkpoint.save(path, self.model, self.policy, self.optimizer, self.generators, self.progress, lengths)
        self.saved_epoch = self.progress.epoch

    def leave(self, stopped: Stopped) -> None:
        """Save between two batches, or in the middle of a measurement, which is then made again."""
        p = self.progress
        where = {"epoch": p.epoch, "batches": p.part.batches if p.part else 0}
        if where["batches"]:
            p.part.seconds += time.perf_counter() - self._began
            if not self._finite():
                self._stop_diverged(float(p.part.loss) / p.part.samples, p.epoch + 1)
        with self.world.raise_everywhere():  # the others leave when it is saved
            self.folder.event("stopped", signal=signal.Signals(stopped.number).name, **where)
            self.save()

    def _evaluate(self) -> Evaluation:
        collapse = self.metrics.every > 0
        with self._measuring():
            return evaluate(self.model, self.dataset, self.metrics, collapse, self.stop.check, self.world, self.loss)

    def _measuring(self) -> AbstractContextManager[None]:
        m = self.metrics
        kept = f"metrics.memory_gib (now {m.memory_gib:g}; it changes no number, and the same run goes on) or "
        return needs_memory("measuring", f"lower {kept if m.memory_gib else ''}metrics.batch_size (now {m.batch_size})")

    def _set_lr(self, epoch: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.base_lr * self.schedule(epoch)

    def _scalars(self, running_loss: float) -> dict[str, float]:
        penalty = {"l2_penalty": self.loss.penalty(self.model)} if self.loss.l2 else {}
        return {
            "running_loss": running_loss,
            **penalty,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "learnable_parameters": learnable(self.model.parameters()),
            "optimizer_bytes": optimizer_bytes(self.optimizer),
        }

    def _finite(self) -> bool:
        """Weights and running statistics are numbers whose squares are too: nothing else may reach a checkpoint."""
        return is_finite(list(self.model.state_dict().values()))

    def _measure(self, epoch: int, scalars: dict[str, float], train_seconds: float = 0.0) -> Evaluation:
        result = self._evaluate()
        if epoch and not math.isfinite(loss := result.network("train", "loss")):
            self.model.eval()
            batches = map(self.dataset.inputs, self.dataset.train.samples.split(self.metrics.batch_size))
            self._culprit = next(filter(None, (first_not_finite(self.model, x) for x in batches)), None)
            self._stop_diverged(loss, epoch)
        result.values["train"]["network"].update(scalars)
        rows = [
            (epoch, split, layer, metric, value)
            for split, layers in result.values.items()
            for layer, values in layers.items()
            for metric, value in values.items()
        ]
        self.folder.rows(rows)
        numbers = {f"{split}/{layer}/{metric}": value for _, split, layer, metric, value in rows}
        self.tracker.log(epoch, {**numbers, "train_seconds": train_seconds})
        return result

    def _settle(self, result: Evaluation | None) -> None:
        """One epoch after a switch: how well did training recover?"""
        p = self.progress
        for site in p.unsettled or []:
            at = {
                f"{split}_accuracy": result.network(split, "accuracy") if result else self._accuracy(self.model, split)
                for split in ("train", "test")
            }
            self.folder.event("switch_settled", epoch=p.epoch, site=site, **at)
        p.unsettled = None

    def _switch(self, result: Evaluation) -> list[Switch]:
        epoch = self.progress.epoch
        old = deepcopy(self.model) if self.policy.settings.needs_measures else self.model
        switches = self.policy.after_epoch(self.model, self.optimizer, result.measures(), epoch)
        if switches:
            self.world.align([*self.model.parameters(), *self.model.buffers()])  # hosts may differ in their rounding
            # Evaluation reads running batch-norm statistics, which lag behind the weights before a switch and belong to
            # the old map after it; refreshed on both sides, they leave the effect of the switch alone.
            size = self.metrics.batch_size
            with self._measuring():
                new_fresh, old_fresh = (refreshed(m, self.dataset, size, self.world) for m in (self.model, old))
            at = {}
            for split in ("train", "test"):
                at[f"{split}_accuracy_before"] = result.network(split, "accuracy")
                at[f"{split}_accuracy_after"] = self._accuracy(self.model, split)
                at[f"{split}_accuracy_before_refreshed"] = self._accuracy(old_fresh, split)
                at[f"{split}_accuracy_after_refreshed"] = self._accuracy(new_fresh, split)
            plain, fresh = (
                f"{at[f'train_accuracy_before{kind}']:.4f} -> {at[f'train_accuracy_after{kind}']:.4f}"
                for kind in ("", "_refreshed")
            )
            probes = self.model.probes(self.metrics.probe)
            for s in switches:
                self.folder.event("switch", layer=layer_of(probes, s.site), **s.record(), **at)
                what = s.recipe.kind if s.recipe.kind == "frozen" else f"{s.recipe.frame} ETF"
                self.display.say(
                    f"  epoch {epoch}: {s.site} is fixed ({what}), {s.parameters_freed:,} parameters fewer, "
                    f"train accuracy {plain}, with refreshed norms {fresh}"
                )
            self.progress.unsettled = [s.site for s in switches]
        return switches

    def _accuracy(self, model: Classifier, split: str) -> float:
        with self._measuring():
            return accuracy(model, self.dataset, getattr(self.dataset, split), self.metrics.batch_size, self.world)

    def _stop_diverged(self, loss: float, epoch: int) -> None:
        lr = self.optimizer.param_groups[0]["lr"]
        where = self._culprit or first_not_finite(self.model)
        self.folder.event("diverged", epoch=epoch, running_loss=loss, learning_rate=lr, where=where)
        kept = checkpoint.exists(self.folder.path)
        raise Diverged(
            f"training diverged in epoch {epoch} at learning rate {lr:g} (loss {loss:g}"
            + (f", first not finite: the {where}" if where else "")
            + "); lower optimizer.lr"
            + (f". The last good checkpoint stays in {self.folder.path}" if kept else "")
        )

    def _show(self, running_loss: float, result: Evaluation | None, seconds: float) -> None:
        learn = learnable(self.model.parameters())
        self.display.update(self.progress.epoch, seconds, learn, running_loss, result)
