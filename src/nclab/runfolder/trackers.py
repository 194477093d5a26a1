"""Trackers mirror what a run records; a tracker that fails says so once and never costs the run."""

import math
import netrc
import os
import secrets
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nclab.interfaces.registry import Registry
from nclab.runfolder.folder import write_atomic
from nclab.system.redact import redacted

TRACKERS = Registry("tracker", "nclab.runfolder.trackers")
MODES = ("online", "offline", "disabled")
NOT_IN_PROJECT = frozenset("/\\#?%:")  # wandb refuses them, after the run has begun


@dataclass
class TrackerSettings:
    name: str = "none"


@dataclass
class WandbSettings(TrackerSettings):
    name: str = "wandb"
    mode: str = "online"  # online | offline (upload later with `wandb sync`) | disabled
    project: str = "nclab"
    entity: str | None = None
    tags: list[str] = field(default_factory=list)
    timeout: float = 30.0  # seconds to wait for the server at the start

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"unknown tracker.mode '{self.mode}'; valid: {', '.join(MODES)}")
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


class Tracker:
    """Mirrors nothing. `start(folder, config)` once, `log(epoch, numbers)` an epoch, `finish(summary)` once."""

    def start(self, folder: Path, config: dict[str, Any]) -> None:
        """Begin, or continue, the mirror of the run in `folder`."""

    def log(self, epoch: int, numbers: dict[str, float]) -> None:
        """`numbers` are those of metrics.csv at this epoch, under split/layer/metric."""

    def finish(self, summary: dict[str, Any]) -> None:
        """End the mirror of a finished run."""

    def abort(self) -> None:
        """Let go of the mirror of a run that failed or was interrupted; it may be continued later."""


@TRACKERS.add("none", TrackerSettings)
def no_tracker(settings: TrackerSettings) -> Tracker:
    return Tracker()


@TRACKERS.add("wandb", WandbSettings)
class WandbTracker(Tracker):
    """Weights & Biases (the extra `nclab[wandb]`). The run's wandb id lies in its folder, in `wandb_id`, so that a
    resumed run continues the same wandb run; an offline one leaves a further piece of it for `wandb sync`."""

    def __init__(self, settings: WandbSettings):
        self.settings = settings
        self.run: Any = None

    def start(self, folder: Path, config: dict[str, Any]) -> None:
        import wandb  # here, not above: only this tracker needs it, and it takes a second

        s = self.settings
        if s.mode == "online" and not _has_key():  # wandb would ask at the terminal, and the run would wait
            raise RuntimeError("no wandb API key: run `wandb login`, set WANDB_API_KEY, or use tracker.mode=offline")
        note = folder / "wandb_id"
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

    def finish(self, summary: dict[str, Any]) -> None:
        for key in ("parameters_learnable", "parameters_total", "policy", "final"):
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


def _has_key() -> bool:
    """Whether wandb can log in by itself: a key or token in the environment, or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class Guarded(Tracker):
    """Calls the tracker inside until its first failure, reports that through `on_failure`, and is silent after."""

    def __init__(self, inner: Tracker, on_failure: Callable[[str], None]):
        self.inner: Tracker | None = inner
        self.on_failure = on_failure

    def _try(self, method: str, *args: Any) -> None:
        if self.inner is None:
            return
        try:
            # A tracker's own deprecation and resource warnings are no business of the run.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                getattr(self.inner, method)(*args)
        except Exception as error:
            failed, self.inner = self.inner, None
            with suppress(Exception):  # it has failed already; this only lets go of what it holds
                failed.abort()
            self.on_failure(f"{type(error).__name__}: {error}")

    def start(self, folder: Path, config: dict[str, Any]) -> None:
        self._try("start", folder, config)

    def log(self, epoch: int, numbers: dict[str, float]) -> None:
        self._try("log", epoch, numbers)

    def finish(self, summary: dict[str, Any]) -> None:
        self._try("finish", summary)

    def abort(self) -> None:
        self._try("abort")
