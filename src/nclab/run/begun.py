"""The folder of a run as its training finds it: made, its logs cut back to the checkpoint, its configuration stored."""

import errno
from typing import Any

from nclab.config.schema import ConfigError, RunConfig
from nclab.config.stored import to_yaml
from nclab.data import Dataset
from nclab.run.longer import Parent, begin_longer, parent_of
from nclab.run.moved import move
from nclab.runfolder import checkpoint
from nclab.runfolder.folder import RecordError, RunFolder
from nclab.runfolder.logs import disagreement
from nclab.system.atomic import make_folder, remove, write_atomic


def make_folder_of(config: RunConfig) -> None:
    """Raise ConfigError where output_root cannot hold a run; a full disk stays the OSError it is."""
    try:
        make_folder(config.folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigError(
            f"output_root must be a folder that can be written, got '{config.output_root}' "
            f"({error.filename}: {error.strerror})"
        ) from None


def begun(config: RunConfig, out: RunFolder, dataset: Dataset, parent: Parent | None) -> dict[str, Any] | None:
    """Open the logs where the checkpoint left them, and return it; where there is none, begin, a longer run with what
    its parent knows."""
    if config.overwrite:
        out.clear()
    damaged: list[str] = []
    state = checkpoint.load(out.path, damaged.append, disagreement)
    if state is None:
        remove(out.path / checkpoint.BEST)  # of a run that was killed before its first checkpoint
    elif config.best is not None:
        _know_best(out, state)
    if state is None and config.parent is not None:
        state = begin_longer(config, out, dataset, parent or parent_of(config))
    out.open_logs(state["lengths"] if state else None)
    for text in damaged:
        out.event("warning", epoch=state["progress"]["epoch"], text=text)
        checkpoint.to_stderr(text)
        checkpoint.promote(out.path)
    if state is None:
        write_atomic(out.path / "config.yaml", to_yaml(config))
    elif text := move(config):
        out.event("warning", epoch=state["progress"]["epoch"], text=text)
        checkpoint.to_stderr(f"{config.folder.name} {text}")
    return state


def _know_best(out: RunFolder, state: dict[str, Any]) -> None:
    """Put into the state what the checkpoint of the best epoch says of itself: it may be of a later epoch than the
    state, which a process saved that was killed then. Raises RecordError where it is gone or damaged."""
    kept, known = checkpoint.load_best(out.path), state["progress"].get("best")
    if kept is None and known is not None:
        raise RecordError(
            f"{out.path / checkpoint.BEST} is missing, of epoch {known['epoch']}; overwrite=true starts the run again"
        )
    state["progress"]["best"] = kept and kept["progress"]["best"]
