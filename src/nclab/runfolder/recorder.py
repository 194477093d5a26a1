"""The run folder as an observer of its training: rows, events and checkpoints, in the order in which they must be."""

from typing import Any

from nclab.runfolder import checkpoint
from nclab.runfolder.fixed import fixed_layers
from nclab.runfolder.folder import RunFolder
from nclab.runfolder.provenance import process
from nclab.system.signals import Stopped
from nclab.training.observer import EpochEnd, Measured, Observer, Start, Switched


class Recorder(Observer):
    """Writes what a training reports to `folder`, whose logs are open."""

    finishes = 0

    def __init__(self, folder: RunFolder):
        self.folder = folder

    def begin(self, start: Start) -> None:
        own = {"processes": start.processes, **process(), "fixed": fixed_layers(start)}
        if start.saved_by is None:
            self.folder.event("start", epoch=start.epoch, layers=start.layers, **own)
            for layer, switch in start.switches:
                self.folder.event("switch", layer=layer, **switch.record())
            return
        self.folder.event("resume", epoch=start.epoch, **own)
        if text := other_number_of_processes(start):
            self.folder.event("warning", epoch=start.epoch, text=text)

    def measured(self, measured: Measured) -> None:
        rows = [
            (measured.epoch, split, layer, metric, value)
            for split, layers in measured.evaluation.values.items()
            for layer, values in layers.items()
            for metric, value in values.items()
        ]
        self.folder.rows(rows)
        for layer, (before, now) in measured.falls.items():
            self.folder.event("rank_fell", epoch=measured.epoch, layer=layer, before=before, now=now)

    def switched(self, switched: Switched) -> None:
        for layer, switch in switched.switches:
            self.folder.event("switch", layer=layer, **switch.record(), **switched.scores)

    def settled(self, epoch: int, site: str, scores: dict[str, float]) -> None:
        self.folder.event("switch_settled", epoch=epoch, site=site, **scores)

    def epoch(self, end: EpochEnd) -> None:
        seeds = {"seeds": end.stacked} if end.stacked > 1 else {}
        seconds = {"train_seconds": end.train_seconds, "measure_seconds": end.measure_seconds}
        self.folder.event("epoch", epoch=end.epoch, **seconds, **seeds)

    def saved(self, state: dict[str, Any]) -> None:
        # The logs are on disk before a checkpoint says what they hold.
        checkpoint.save(self.folder.path, state, self.folder.marks())

    def saved_best(self, state: dict[str, Any]) -> None:
        checkpoint.save_best(self.folder.path, state, self.folder.marks())

    def stopped(self, signal: str, epoch: int, batches: int) -> None:
        self.folder.event("stopped", signal=signal, epoch=epoch, batches=batches)

    def warned(self, epoch: int, text: str) -> None:
        self.folder.event("warning", epoch=epoch, text=text)
        checkpoint.to_stderr(f"{self.folder.path.name}: {text}")

    def diverged(self, epoch: int, running_loss: float, learning_rate: float, where: str | None) -> None:
        numbers = {"running_loss": running_loss, "learning_rate": learning_rate}
        self.folder.event("diverged", epoch=epoch, **numbers, where=where)

    def failed(self, error: BaseException) -> None:
        if isinstance(error, Stopped) or not isinstance(error, Exception):  # a stop was noted when it came
            return
        self.folder.event("failed", reason=str(error) or type(error).__name__)

    def finished(self, summary: dict[str, Any]) -> None:
        early = {"ended_by": summary["ended_by"]} if "ended_by" in summary else {}
        self.folder.event("done", epoch=summary["epochs"], seconds=summary["wall_seconds"], **early)
        self.folder.finish(summary)


def other_number_of_processes(start: Start) -> str | None:
    """What is to be said where a training goes on with another number of processes than saved it."""
    if start.saved_by in (None, start.processes):
        return None
    return f"saved by {start.saved_by} process(es), goes on with {start.processes}: the same up to rounding"
