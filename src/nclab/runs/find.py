"""Where run folders may be: below an output root, an experiment folder, or the folder named itself."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from nclab.runs.state import Queue, RunState, inspect, is_run

DEPTH = 2  # <output_root>/<experiment_name>/<run name>
# Threads that read folders. They gain little from a local disk; on a network file system each file waits for a server.
READERS = 16


class NoFolder(ValueError):
    """A path that was asked for is no folder."""


def find_runs(paths: Iterable[Path], links: list[Path] | None = None) -> list[RunState]:
    """The runs in `paths`, by experiment and name; each once. Nothing is asked of a cluster here.

    With a list of `links`, symbolic links are not followed, except for a path named that is no run folder itself, but
    added to it. Raises NoFolder.
    """
    paths = list(paths)
    for path in paths:
        if not path.is_dir():
            raise NoFolder(f"no such folder: {path}")
    folders = {folder.resolve(): folder for path in paths for folder in _candidates(path, links)}
    return sorted(_inspected(folders.values()), key=lambda run: (run.experiment, run.name, str(run.path)))


def ask_again(runs: list[RunState], queue: Queue) -> list[RunState]:
    """The runs as they are with what the cluster's queue says of those that were submitted."""
    waiting = {run.path for run in runs if is_up_to_slurm(run)}
    now = {run.path: run for run in _inspected(waiting, queue)}
    known = (now.get(run.path) if run.path in waiting else run for run in runs)
    return [run for run in known if run is not None]


def is_up_to_slurm(run: RunState) -> bool:
    """Whether what the run is depends on its job; a failed one may have been requeued."""
    return run.state == "submitted" or (run.state == "failed" and run.job is not None)


def _inspected(folders: Iterable[Path], queue: Queue | None = None) -> list[RunState]:
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(partial(inspect, queue=queue), folders)
        return [run for run in found if run is not None]


def _candidates(path: Path, links: list[Path] | None) -> list[Path]:
    """Folders that may be run folders. Those at the last level are not looked into: to read them is to know."""
    if is_run(path):
        if links is not None and path.is_symlink():
            links.append(path)
            return []
        return [path]
    return _below(path, DEPTH, links)


def _below(folder: Path, depth: int, links: list[Path] | None) -> list[Path]:
    found = []
    try:
        below = _subfolders(folder, links)
    except FileNotFoundError:
        return []
    except PermissionError:
        return [folder]  # to be shown as what cannot be read
    for path in below:
        if depth == 1 or is_run(path):
            found.append(path)
        else:
            found += _below(path, depth - 1, links)
    return found


def _subfolders(folder: Path, links: list[Path] | None) -> list[Path]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.is_dir():
                continue
            if links is not None and entry.is_symlink():
                links.append(folder / entry.name)
            else:
                found.append(folder / entry.name)
    return found
