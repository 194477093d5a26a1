"""Trackers mirror what a run records. One that cannot be had stops the run before it begins; one that fails later says
so once and never costs the run."""

import csv
import importlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from nclab.interfaces.registry import Registry
from nclab.system.words import install_hint
from nclab.training.observer import Measured, Observer, Start

TRACKERS = Registry("tracker", "nclab.runfolder.trackers")


@dataclass
class TrackerSettings:
    name: str = "none"

    def resumed(self) -> "TrackerSettings":
        """These, stored in a run folder, for the run that goes on there: the environment may say something else by now.
        Raises ValueError."""
        return self


class Tracker:
    """Mirrors nothing. `start(folder, config)` once, `log(epoch, numbers)` an epoch, `finish(summary)` once."""

    writes: tuple[str, ...] = ()  # files and folders of its own in the run folder, which overwrite=true removes
    illustrated: bool = False  # whether it is told `illustrate`, for which pictures are drawn

    def __init__(self, settings: TrackerSettings | None = None):
        self.settings = settings

    @property
    def members(self) -> "Sequence[Tracker]":
        """The trackers that are told, each guarded alone."""
        return [self]

    def check(self) -> None:
        """Raise ValueError where the tracker cannot be had here, such as without its package or a login; called before
        anything is written."""

    def start(self, folder: Path, config: dict[str, Any]) -> None:
        """Begin, or continue, the mirror of the run in `folder`."""

    def log(self, epoch: int, numbers: dict[str, float]) -> None:
        """`numbers` are those of metrics.csv at this epoch, under split/layer/metric. Of a run that goes on all earlier
        epochs are told again after `start`: the mirror may be new, or have to hold everything."""

    def illustrate(self, epoch: int, table: "Table", pictures: dict[str, bytes]) -> None:
        """Before `finish`: the last numbers of every layer as a table, and pictures by name, PNG."""

    def finish(self, summary: dict[str, Any]) -> None:
        """End the mirror of a finished run."""

    def abort(self) -> None:
        """Let go of the mirror of a run that failed or was interrupted; it may be continued later."""


@dataclass(frozen=True)
class Table:
    """Columns by name, and rows of as many cells; None where a row has no such number."""

    columns: list[str]
    rows: list[list[str | float | None]]


def by_layer(numbers: dict[str, float]) -> Table:
    """The numbers of an epoch, under split/layer/metric, with a row a split and layer.

    >>> by_layer({"test/fc1/nc1": 0.5, "test/network/loss": 0.1, "train_seconds": 2.0})
    Table(columns=['split', 'layer', 'nc1', 'loss'], rows=[['test', 'fc1', 0.5, None], ['test', 'network', None, 0.1]])
    """
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for name, value in numbers.items():
        if name.count("/") >= 2:
            split, layer, metric = name.split("/", 2)
            rows.setdefault((split, layer), {})[metric] = value
    metrics = list(dict.fromkeys(metric for row in rows.values() for metric in row))
    return Table(["split", "layer", *metrics], [[*place, *map(row.get, metrics)] for place, row in rows.items()])


def require_importable(name: str, module: str) -> None:
    """Import the module that a tracker needs; the extra of the tracker's name brings it. Raises ValueError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own deprecations
            importlib.import_module(module)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"tracker={name}: {name} cannot be imported ({reason}); {install_hint(name)}; or add tracker=none"
        ) from None


def no_pictures(folder: Path) -> dict[str, bytes]:
    """The pictures where nobody draws."""
    return {}


def history(folder: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """The epochs that a run folder holds, and what a tracker was told of them."""
    events = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    seconds = {event["epoch"]: event["train_seconds"] for event in events if event["event"] == "epoch"}
    with (folder / "metrics.csv").open(newline="") as file:
        for epoch, rows in groupby(csv.DictReader(file), key=lambda row: int(row["epoch"])):
            numbers = {f"{row['split']}/{row['layer']}/{row['metric']}": float(row["value"]) for row in rows}
            yield epoch, {**numbers, "train_seconds": seconds.get(epoch, 0.0)}


class TrackerObserver(Observer):
    """Tells a tracker what a training reports: rows under split/layer/metric, and the seconds of the epoch. At the end
    it draws the `pictures` of the run folder for one that shows them."""

    def __init__(
        self,
        tracker: Tracker,
        folder: Path,
        config: dict[str, Any],
        pictures: Callable[[Path], dict[str, bytes]] = no_pictures,
    ):
        self.tracker, self.folder, self.config, self.pictures = tracker, folder, config, pictures
        self._last: tuple[int, dict[str, float]] | None = None  # epoch and numbers

    def begin(self, start: Start) -> None:
        self.tracker.start(self.folder, self.config)
        if start.saved_by is not None:
            for epoch, numbers in history(self.folder):
                self._last = epoch, numbers
                self.tracker.log(epoch, numbers)

    def measured(self, measured: Measured) -> None:
        numbers = {
            f"{split}/{layer}/{metric}": value
            for split, layers in measured.evaluation.values.items()
            for layer, values in layers.items()
            for metric, value in values.items()
        }
        self._last = measured.epoch, numbers
        self.tracker.log(measured.epoch, {**numbers, "train_seconds": measured.train_seconds})

    def failed(self, error: BaseException) -> None:
        self.tracker.abort()

    def finished(self, summary: dict[str, Any]) -> None:
        try:
            if self.tracker.illustrated and self._last is not None:
                epoch, numbers = self._last
                self.tracker.illustrate(epoch, by_layer(numbers), self.pictures(self.folder))
        finally:  # without pictures the mirror is still whole
            self.tracker.finish(summary)
