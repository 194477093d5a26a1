"""tracker=tensorboard: event files that `tensorboard --logdir outputs` shows."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nclab.runfolder.tracker import TRACKERS, Tracker, TrackerSettings, require_importable
from nclab.system.atomic import remove
from nclab.system.redact import redacted
from nclab.system.written import OF_TENSORBOARD


@dataclass
class TensorboardSettings(TrackerSettings):
    name: str = "tensorboard"


@TRACKERS.add("tensorboard", TensorboardSettings)
class TensorboardTracker(Tracker):
    """TensorBoard (the extra `tensorboard`): the folder `tensorboard` in the run folder holds every number under
    split/layer/metric against the epoch, and the configuration as text. A run that goes on is told all earlier epochs
    again and writes it anew; so no epoch is there twice."""

    writes = OF_TENSORBOARD

    def __init__(self, settings: TensorboardSettings):
        self.settings = settings
        self.writer: Any = None

    def check(self) -> None:
        require_importable("tensorboard", "torch.utils.tensorboard")

    def start(self, folder: Path, config: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        (name,) = OF_TENSORBOARD
        remove(folder / name)  # where it is a symbolic link, SummaryWriter would write to what it leads to
        self.writer = SummaryWriter(str(folder / name))
        lines = json.dumps(redacted(config), indent=2, default=str).splitlines()
        self.writer.add_text("configuration", "\n".join(f"    {line}" for line in lines))

    def log(self, epoch: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def finish(self, summary: dict[str, Any]) -> None:
        self.writer.add_text("summary", "    " + json.dumps(summary["final"], default=str))
        self.writer.close()

    def abort(self) -> None:
        if self.writer is not None:
            self.writer.close()
