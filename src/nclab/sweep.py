"""Many runs on one machine: worker processes that take one run after the other, each in its own folder.

Everything that makes a sweep safe to stop is in the run folder (`nclab.record`): a finished run is skipped, an
interrupted one resumes. This file only hands runs out.
"""

import contextlib
import ctypes
import io
import json
import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from nclab.config import ConfigError, RunConfig
from nclab.data import MissingDataError
from nclab.fit import Diverged
from nclab.record import RecordError, RunLocked
from nclab.train import train

MOST_JOBS = 8  # several small runs share one GPU well, and a machine's memory too
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Outcome:
    """How one run ended: its folder, and the reason where it failed."""

    folder: Path
    error: str | None = None


def default_jobs() -> int:
    """As many runs side by side as there are free cores, at most MOST_JOBS; every run uses one thread."""
    free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(MOST_JOBS, free or 1)


def run_all(configs: list[RunConfig], jobs: int) -> list[Outcome]:
    """Train what is not finished, `jobs` runs side by side, in the order given; prints one line a run.

    A run that fails (diverged, disk full, held by another process) is reported, the others go on. Wrong input
    (ConfigError, MissingDataError) and Ctrl-C stop all; what was trained is kept.
    """
    if jobs < 1:
        raise ConfigError(f"jobs must be at least 1, got {jobs}")
    waiting = [config for config in configs if not (config.folder / "DONE").exists()]
    print(f"{len(configs)} runs, {len(configs) - len(waiting)} finished before, {len(waiting)} to do", flush=True)
    if not waiting:
        return []
    outcomes = []
    # Fresh interpreters: a forked one would share the thread pools and the GPU of this one.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(jobs, len(waiting)), mp_context=context, initializer=_die_with, initargs=(os.getpid(),)
    )
    try:
        futures = [pool.submit(_run, config) for config in waiting]
        for number, future in enumerate(as_completed(futures), 1):
            outcome = future.result()
            outcomes.append(outcome)
            print(f"[{number}/{len(waiting)}] {_line(outcome)}", flush=True)
    finally:
        # Also on Ctrl-C and errors: what waits is dropped, what runs is ended; it resumes from its checkpoint.
        if sys.exc_info()[0]:
            for process in multiprocessing.active_children():
                process.terminate()
        pool.shutdown(cancel_futures=True)
    return outcomes


def _run(config: RunConfig) -> Outcome:
    """One run, without its lines on the terminal, where several would mix."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return Outcome(train(config))
    except (Diverged, RecordError, RunLocked, OSError) as error:
        if isinstance(error, MissingDataError):
            raise
        return Outcome(config.folder, str(error))


def _line(outcome: Outcome) -> str:
    if outcome.error is not None:
        return f"FAILED {outcome.folder}: {outcome.error}"
    summary = json.loads((outcome.folder / "summary.json").read_text())
    accuracy, seconds = summary["final"]["test"]["accuracy"], summary["wall_seconds"]
    return f"{outcome.folder.parent.name}/{outcome.folder.name}  test accuracy {accuracy:.4f}  {seconds:.0f} s"


def _die_with(parent: int) -> None:
    """Where the kernel can (Linux), end with the parent: an orphan would hold its run folder against the next try.
    Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os.kill(os.getpid(), signal.SIGKILL)
