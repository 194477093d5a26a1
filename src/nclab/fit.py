"""The epoch loop: train, measure, let the policy switch, record, save."""

import math
import signal
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional
from torch.optim import Optimizer

from nclab import checkpoint
from nclab.checkpoint import Part, Progress
from nclab.data import Dataset
from nclab.display import Display
from nclab.distributed import SOLO, PeerLost, Team
from nclab.etf import ETFPolicy, Switch
from nclab.etf.policy import learnable
from nclab.evaluate import Evaluation, MetricsSettings, accuracy, evaluate, refreshed
from nclab.gradients import SummedGradients
from nclab.models import Classifier, layer_of
from nclab.optim import optimizer_bytes
from nclab.record import RecordError, RunFolder, RunLocked
from nclab.stop import AgreedStop, Stopped, StopSignals
from nclab.trackers import Tracker

PRECISIONS = {"float32": None, "bf16": torch.bfloat16}  # of the training steps
MOST_GRAPHS = 256  # one a switch and batch shape; torch goes on uncompiled beyond its limit, without a word
Forward = Callable[[Tensor], Tensor]


class Diverged(RuntimeError):
    """Loss or weights are no longer numbers; the last good checkpoint, if any, is kept."""


FAILURES = (Diverged, RecordError, RunLocked, PeerLost, OSError)  # of one run: others go on


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
    metrics: MetricsSettings
    generators: dict[str, Generator]  # order, augment: CPU generators, so that both are the same on every device
    folder: RunFolder
    tracker: Tracker
    display: Display
    progress: Progress
    checkpoint_seconds: float
    forward: Forward
    stop: StopSignals | AgreedStop
    team: Team = SOLO

    def __post_init__(self) -> None:
        self._last = Evaluation()  # the latest
        self._saving = 0.0  # seconds that the latest checkpoint took
        self._saved = time.monotonic()
        self._began = 0.0  # of this epoch's training steps in this process
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

    # The pieces of `run`, in its order, for whoever trains several fits at once (`nclab.together`).

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
        return train_epoch(
            self.model,
            self.dataset,
            self.optimizer,
            self.batch_size,
            self.generators,
            self.forward,
            self.progress.part,
            self.stop.check,
            self.team,
        )

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
        if self.team.first:
            checkpoint.save(path, self.model, self.policy, self.optimizer, self.generators, self.progress, lengths)
        self.saved_epoch = self.progress.epoch

    def leave(self, stopped: Stopped) -> None:
        """Save between two batches, or in the middle of a measurement, which is then made again."""
        p = self.progress
        where = {"epoch": p.epoch, "batches": p.part.batches if p.part else 0}
        if where["batches"]:
            p.part.seconds += time.perf_counter() - self._began
        with self.team.agreed():  # the others leave when it is saved
            self.folder.event("stopped", signal=signal.Signals(stopped.number).name, **where)
            self.save()

    def _evaluate(self) -> Evaluation:
        collapse = self.metrics.every > 0
        return evaluate(self.model, self.dataset, self.metrics, collapse, self.stop.check, self.team)

    def _set_lr(self, epoch: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.base_lr * self.schedule(epoch)

    def _scalars(self, running_loss: float) -> dict[str, float]:
        return {
            "running_loss": running_loss,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "learnable_parameters": learnable(self.model.parameters()),
            "optimizer_bytes": optimizer_bytes(self.optimizer),
        }

    def _finite(self) -> bool:
        """Weights and running statistics are numbers whose squares are too: nothing else may reach a checkpoint."""
        state = [t for t in self.model.state_dict().values() if t.is_floating_point()]
        return bool(torch.stack([t.square().sum() for t in state]).isfinite().all())

    def _measure(self, epoch: int, scalars: dict[str, float], train_seconds: float = 0.0) -> Evaluation:
        result = self._evaluate()
        if epoch and not math.isfinite(loss := result.network("train", "loss")):
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
            self.team.align([*self.model.parameters(), *self.model.buffers()])  # hosts may differ in their rounding
            # Evaluation reads running batch-norm statistics, which lag behind the weights before a switch and belong to
            # the old map after it; refreshed on both sides, they leave the effect of the switch alone.
            new_fresh, old_fresh = (
                refreshed(m, self.dataset, self.metrics.batch_size, self.team) for m in (self.model, old)
            )
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
        return accuracy(model, self.dataset, getattr(self.dataset, split), self.metrics.batch_size, self.team)

    def _stop_diverged(self, loss: float, epoch: int) -> None:
        lr = self.optimizer.param_groups[0]["lr"]
        self.folder.event("diverged", epoch=epoch, running_loss=loss, learning_rate=lr)
        kept = (self.folder.path / checkpoint.NAME).exists()
        raise Diverged(
            f"training diverged in epoch {epoch} at learning rate {lr:g} (loss {loss:g}); lower optimizer.lr"
            + (f". The last good checkpoint stays in {self.folder.path}" if kept else "")
        )

    def _show(self, running_loss: float, result: Evaluation | None, seconds: float) -> None:
        learn = learnable(self.model.parameters())
        self.display.update(self.progress.epoch, seconds, learn, running_loss, result)


def compiled_step(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`run` by torch.compile, on a GPU as CUDA graphs: small models are bound by the launches of their kernels."""
    # What an earlier run of this process compiled must neither serve this one nor use up its recompilations.
    torch.compiler.reset()
    torch._dynamo.config.recompile_limit = MOST_GRAPHS
    return torch.compile(run, mode="reduce-overhead")


def training_forward(model: Classifier, precision: str = "float32", compiled: bool = False) -> Forward:
    """How a training step runs the model: images (B, ch, h, w) -> logits (B, C) in float32.

    bf16: under autocast, weights and optimizer state stay float32. compiled: see `compiled_step`; torch compiles anew
    when a map is replaced. Evaluation uses neither: every logged metric is of the float32 network.
    """
    run = compiled_step(model) if compiled else model
    device = next(model.parameters()).device.type
    dtype = PRECISIONS[precision]

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
            return run(x)[0].float()

    return forward


def train_epoch(
    model: Classifier,
    dataset: Dataset,
    optimizer: Optimizer,
    batch_size: int,
    generators: dict[str, Generator],
    forward: Forward,
    part: Part | None = None,
    check: Callable[[], None] = lambda: None,
    team: Team = SOLO,
) -> float:
    """One epoch of cross-entropy over the train split in random order; returns the mean loss of its batches' samples.

    The last, smaller batch is trained on too, unless it is a single sample: batch norm has no variance then. `part`
    keeps count, so that an epoch which `check` ended by raising goes on where it stopped. A team draws the same order
    and the same changes of images in every process; each takes its rows of the batch, some of the last one none.
    """
    model.train()
    part = part or Part()
    images, labels = dataset.train.images, dataset.train.labels
    with SummedGradients(model.parameters(), team) as gradients:
        for i, batch in enumerate(epoch_order(part, labels, generators["order"]).split(batch_size)):
            if i < part.batches or len(batch) == 1:
                continue
            check()
            rows = team.share(len(batch))
            own = batch[rows]
            # index_select: on a CPU five times as fast as indexing with a tensor
            x = dataset.inputs(images.index_select(0, own), generators["augment"], rows, len(batch))
            loss = functional.cross_entropy(forward(x), labels.index_select(0, own), reduction="sum") / len(batch)
            optimizer.zero_grad(set_to_none=True)
            loss = gradients.backward(loss)
            optimizer.step()
            part.count(loss, len(batch))
    return float(part.loss) / part.samples


def epoch_order(part: Part, labels: Tensor, generator: Generator) -> Tensor:
    """A random order of the samples, (N,): that of the epoch under way, else a new one."""
    if part.order is None:
        part.order = generator.get_state()
    else:
        generator.set_state(part.order)
    return torch.randperm(len(labels), generator=generator).to(labels.device)
