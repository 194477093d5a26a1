"""The folder of a run as its training finds it: made, its logs cut back to the checkpoint, its configuration stored."""

import errno
from typing import Any

from nclab.config.schema import ConfigError, RunConfig
from nclab.config.stored import to_yaml
from nclab.data import Dataset
from nclab.run.longer import Parent, begin_longer, parent_of
from nclab.run.moved import move
from nclab.runfolder import checkpoint
from nclab.runfolder.folder import RunFolder
from nclab.runfolder.logs import disagreement
from nclab.system.atomic import make_folder, write_atomic


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
