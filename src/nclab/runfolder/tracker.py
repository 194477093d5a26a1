"""Trackers mirror what a run records; a tracker that fails says so once and never costs the run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nclab.interfaces.registry import Registry
from nclab.training.observer import Measured, Observer, Start

TRACKERS = Registry("tracker", "nclab.runfolder.trackers")


@dataclass
class TrackerSettings:
    name: str = "none"


class Tracker:
    """Mirrors nothing. `start(folder, config)` once, `log(epoch, numbers)` an epoch, `finish(summary)` once."""

    def __init__(self, settings: TrackerSettings | None = None):
        self.settings = settings

    def start(self, folder: Path, config: dict[str, Any]) -> None:
        """Begin, or continue, the mirror of the run in `folder`."""

    def log(self, epoch: int, numbers: dict[str, float]) -> None:
        """`numbers` are those of metrics.csv at this epoch, under split/layer/metric."""

    def finish(self, summary: dict[str, Any]) -> None:
        """End the mirror of a finished run."""

    def abort(self) -> None:
        """Let go of the mirror of a run that failed or was interrupted; it may be continued later."""


class TrackerObserver(Observer):
    """Tells a tracker what a training reports: rows under split/layer/metric, and the seconds of the epoch."""

    def __init__(self, tracker: Tracker, folder: Path, config: dict[str, Any]):
        self.tracker, self.folder, self.config = tracker, folder, config

    def begin(self, start: Start) -> None:
        self.tracker.start(self.folder, self.config)

    def measured(self, measured: Measured) -> None:
        numbers = {
            f"{split}/{layer}/{metric}": value
            for split, layers in measured.evaluation.values.items()
            for layer, values in layers.items()
            for metric, value in values.items()
        }
        self.tracker.log(measured.epoch, {**numbers, "train_seconds": measured.train_seconds})

    def failed(self, error: BaseException) -> None:
        self.tracker.abort()

    def finished(self, summary: dict[str, Any]) -> None:
        self.tracker.finish(summary)
