"""tracker=wandb: Weights & Biases."""

import math
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from nclab.runfolder.tracker import TRACKERS, Table, Tracker, TrackerSettings, require_importable
from nclab.system.atomic import write_atomic
from nclab.system.redact import redacted
from nclab.system.wandb_key import has_key
from nclab.system.written import OF_WANDB, WANDB_ID

MODES = ("online", "offline", "disabled")
OLD_MODES = {"dryrun": "offline", "run": "online"}  # which WANDB_MODE may still say
NOT_IN_PROJECT = frozenset("/\\#?%:")  # wandb refuses them, after the run has begun


@dataclass
class WandbSettings(TrackerSettings):
    name: str = "wandb"
    mode: str | None = None  # online | offline (upload later: wandb sync) | disabled; null: $WANDB_MODE, else online
    project: str | None = None  # that the run belongs to; null: $WANDB_PROJECT, else nclab
    entity: str | None = None  # user or team; null: $WANDB_ENTITY, else the default of the account
    tags: list[str] = field(default_factory=list)  # of the run
    timeout: float = 30.0  # seconds to wait for the server

    def __post_init__(self) -> None:
        """Fill in what the environment says, so that the run folder stores it and a resumed run stays where it was."""
        source = ""
        if self.mode is None and (mode := os.environ.get("WANDB_MODE")):
            self.mode, source = OLD_MODES.get(mode, mode), " (WANDB_MODE)"
        self.mode = self.mode or "online"
        self.project = os.environ.get("WANDB_PROJECT") or "nclab" if self.project is None else self.project
        self.entity = os.environ.get("WANDB_ENTITY") or None if self.entity is None else self.entity
        if self.mode not in MODES:
            raise ValueError(f"unknown tracker.mode '{self.mode}'{source}; valid: {', '.join(MODES)}")
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"tracker.timeout must be above 0 seconds and finite, got {self.timeout}")
        if not 1 <= len(self.project) <= 128 or NOT_IN_PROJECT.intersection(self.project):
            raise ValueError(
                f"tracker.project must have 1 to 128 characters, none of {' '.join(sorted(NOT_IN_PROJECT))}; "
                f"got '{self.project}'"
            )
        if self.entity == "":
            raise ValueError("tracker.entity must be a name, or null for your own; got ''")
        if not all(1 <= len(tag) <= 64 for tag in self.tags):
            raise ValueError(f"tracker.tags must have 1 to 64 characters each, got {self.tags}")

    def resumed(self) -> "WandbSettings":
        """With the mode that WANDB_MODE says: this node may have no network. The place of the run stays."""
        return replace(self, mode=None) if os.environ.get("WANDB_MODE") else self


@TRACKERS.add("wandb", WandbSettings)
class WandbTracker(Tracker):
    """Weights & Biases (the extra `wandb`). The run's wandb id lies in its folder, in `wandb_id`, so that a
    resumed run continues the same wandb run; an offline one leaves a further piece of it for `wandb sync`, which holds
    the whole history, as it takes the place of the earlier ones there."""

    writes = OF_WANDB
    illustrated = True

    def __init__(self, settings: WandbSettings):
        self.settings = settings
        self.run: Any = None

    def check(self) -> None:
        require_importable("wandb", "wandb")
        if self.settings.mode == "online" and not has_key():  # wandb would ask at the terminal, and the run would wait
            raise ValueError(
                "tracker=wandb has no API key: run `wandb login`, set WANDB_API_KEY, or add tracker.mode=offline "
                "(upload later) or tracker=none to the command"
            )

    def start(self, folder: Path, config: dict[str, Any]) -> None:
        import wandb

        note = folder / WANDB_ID
        if not note.exists():
            write_atomic(note, secrets.token_hex(8))  # half of it would be another id than the one that wandb was told
        with _masked_words():
            self.run = self._init(wandb, note.read_text(), folder, config)
        self.run.define_metric("epoch")
        self.run.define_metric("*", step_metric="epoch")

    def _init(self, wandb: Any, run_id: str, folder: Path, config: dict[str, Any]) -> Any:
        s = self.settings
        return wandb.init(
            id=run_id,
            resume="allow",
            mode=s.mode,
            project=s.project,
            entity=s.entity,
            tags=redacted(s.tags),
            name=folder.name,
            group=folder.parent.name,
            dir=folder,
            config=redacted(config),
            reinit="create_new",  # several seeds of one process have a run each at once
            settings=wandb.Settings(init_timeout=s.timeout, login_timeout=s.timeout, silent=True, console="off"),
        )

    def log(self, epoch: int, numbers: dict[str, float]) -> None:
        # By epoch: what a resumed run measures again is not counted twice.
        self.run.log({"epoch": epoch, **numbers}, step=epoch)

    def illustrate(self, epoch: int, table: Table, pictures: dict[str, bytes]) -> None:
        import wandb
        from PIL import Image

        shown = {name: wandb.Image(Image.open(BytesIO(png))) for name, png in pictures.items()}
        last = wandb.Table(columns=table.columns, data=table.rows)
        self.run.log({"epoch": epoch, "last_by_layer": last, **shown}, step=epoch)

    def finish(self, summary: dict[str, Any]) -> None:
        for key in ("parameters_learnable", "parameters_total", "policy", "final", "headline"):
            self.run.summary[key] = summary[key]
        self.run.finish()

    def abort(self) -> None:
        if self.run is not None:
            self.run.finish(exit_code=1)


@contextmanager
def _masked_words() -> Iterator[None]:
    """wandb stores the command line of the process as it finds it."""
    words, sys.argv = sys.argv, redacted(sys.argv)
    try:
        yield
    finally:
        sys.argv = words
