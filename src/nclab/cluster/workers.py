"""Many runs on one machine: worker processes that take one run after the other, each in its own folder, or a few seeds
of one run at once in one process (`nclab.training.seeds`).

Everything that makes a sweep safe to stop is in the run folder: a finished run is skipped, an
interrupted one resumes. This file only hands runs out.
"""

import atexit
import contextlib
import io
import json
import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterable
from concurrent import futures
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import cycle
from multiprocessing import SimpleQueue
from pathlib import Path

import torch

from nclab.cluster.fixed import FixedLayers
from nclab.config.checks import as_config_error
from nclab.config.schema import ConfigError, RunConfig
from nclab.interfaces.plugins import PluginError
from nclab.parallel.group import refuse_several
from nclab.run.execute import check, train, train_seeds
from nclab.runfolder.folder import RunLocked
from nclab.runs.state import headline_of
from nclab.system.lifetime import end_with
from nclab.system.machine import free_cores
from nclab.system.signals import Stopped, StopSignals
from nclab.system.terminal import lasting_terminal
from nclab.system.written import is_finished
from nclab.training.fit import FAILURES

MOST_JOBS = 8  # several small runs share one GPU well, and a machine's memory too
SECONDS_BETWEEN_TRIES = 2.0
SECONDS_BETWEEN_LOOKS = 0.5  # at signals


@dataclass
class SweepSettings:
    """Keys of hydra.launcher with hydra/launcher=local; None: `default_jobs()`."""

    jobs: int | None = None
    stack: int = 1

    def __post_init__(self) -> None:
        for key, value in (("jobs", self.jobs), ("stack", self.stack)):
            if value is not None and value < 1:
                raise ValueError(f"hydra.launcher.{key} must be at least 1, got {value}")


@dataclass(frozen=True)
class Outcome:
    """How one run ended: its folder, the reason where it failed, and whether another process holds its folder."""

    folder: Path
    error: str | None = None
    locked: bool = False


def default_jobs() -> int:
    """As many runs side by side as there are free cores, at most MOST_JOBS; every run uses one thread."""
    return min(MOST_JOBS, free_cores())


def run_all(configs: list[RunConfig], jobs: int, stack: int = 1, instead: str = "") -> list[Outcome]:
    """Train what is not finished, `jobs` workers side by side, in the order given; prints one line a run. A worker
    takes up to `stack` runs at once that differ in their seed alone.

    Raises ConfigError or MissingDataError for wrong input before any run starts. A run that fails is reported and the
    others go on; those that another process is training are waited for at the end. Ctrl-C, and every other signal of
    `nclab.system.signals`, makes all save and raises Stopped. `instead` says what to do where no workers can
    be started.
    """
    as_config_error(refuse_several, "a sweep starts its runs by itself")
    for key, value in (("jobs", jobs), ("stack", stack)):
        if value < 1:
            raise ConfigError(f"{key} must be at least 1, got {value}")
    _check_shared_memory(instead)
    waiting = [config for config in configs if not is_finished(config.folder)]
    print(f"{len(configs)} runs, {len(configs) - len(waiting)} finished before, {len(waiting)} to do", flush=True)
    check(waiting)
    with StopSignals():
        fixed = FixedLayers()
        outcomes = _run_in_workers(waiting, jobs, stack, fixed)
        held = {outcome.folder for outcome in outcomes if outcome.locked}
        if held:
            print(f"{len(held)} of them are being trained by another process; waiting for it", flush=True)
            outcomes = [outcome for outcome in outcomes if not outcome.locked]
            again = [config for config in waiting if config.folder in held]
            outcomes += _run_in_workers(again, jobs, 1, fixed, wait=True)
    return outcomes


def _check_shared_memory(instead: str) -> None:
    """Workers take turns by semaphores, which some containers and full machines do not give."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except OSError as error:
        raise ConfigError(
            f"workers side by side: expected semaphores in shared memory (/dev/shm), got {error}"
            + (f"; {instead}" if instead else "")
        ) from None


def _batches(configs: list[RunConfig], stack: int) -> list[list[RunConfig]]:
    """Up to `stack` runs that differ in their seed alone in each, in the order of their first."""
    alike: dict[str, list[RunConfig]] = {}
    for config in configs:
        alike.setdefault(repr(config.of_seed(0)), []).append(config)
    batches = [runs[i : i + stack] for runs in alike.values() for i in range(0, len(runs), stack)]
    place = {config.folder: i for i, config in enumerate(configs)}
    return sorted(batches, key=lambda batch: place[batch[0].folder])


def _run_in_workers(
    configs: list[RunConfig], jobs: int, stack: int, fixed: FixedLayers, wait: bool = False
) -> list[Outcome]:
    """One outcome a run, in their order. A worker that dies takes its pool with it; the runs under way then are tried
    again one by one at the end, so that the next death has one cause."""
    outcomes: dict[Path, Outcome] = {}
    left, suspects = _batches(configs, stack), []
    while left:
        broken = _run_in_pool(left, jobs, wait, outcomes, len(configs), fixed)
        left = [batch for batch in left if batch[0].folder not in outcomes]
        if broken:  # a pool hands out batches in their order: the first of those left were under way
            suspects += [config for batch in left[:jobs] for config in batch]
            left = left[jobs:]
            print("a worker was killed; what it was at is tried again at the end", flush=True)
    for config in suspects:
        if _run_in_pool([[config]], 1, wait, outcomes, len(configs), fixed):
            outcomes[config.folder] = Outcome(config.folder, "its worker was killed, again (out of memory?)")
    return [outcomes[config.folder] for config in configs]


def _run_in_pool(
    batches: list[list[RunConfig]],
    jobs: int,
    wait: bool,
    outcomes: dict[Path, Outcome],
    total: int,
    fixed: FixedLayers,
) -> bool:
    """Add the outcome of every run; true where a worker died, which leaves some without one."""
    # Fresh interpreters: a forked one would share the thread pools and the GPU of this one.
    context = multiprocessing.get_context("spawn")
    workers = min(jobs, len(batches))
    mine = context.SimpleQueue()  # each worker takes one entry: its GPUs
    for _, gpu in zip(range(workers), cycle(shared_gpus(config.device for batch in batches for config in batch))):
        mine.put(gpu)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(os.getpid(), mine))
    try:
        with StopSignals() as stop:
            of = {pool.submit(_unpacked, _run, pickle.dumps(batch), wait): batch for batch in batches}
            running = {*of}
            while running:
                done, running = futures.wait(running, SECONDS_BETWEEN_LOOKS, futures.FIRST_COMPLETED)
                stop.check()
                for future in (*done, *filter(futures.Future.running, running)):
                    fixed.look(of[future][0].folder)  # of seeds at once the first: they are alike
                for outcome in (outcome for future in done for outcome in _results(future, of[future])):
                    outcomes[outcome.folder] = outcome
                    print(f"[{len(outcomes)}/{total}] {describe(outcome)}", flush=True)
    except BrokenProcessPool:
        return True
    finally:
        if sys.exc_info()[0]:  # asked to stop: what waits is dropped, what runs saves and ends
            for process in multiprocessing.active_children():
                process.terminate()
        pool.shutdown(cancel_futures=True)
    return False


def _unpacked(run: Callable[[list[RunConfig], bool], list[Outcome]], batch: bytes, wait: bool) -> list[Outcome]:
    """Configurations travel as bytes: where a plug-in of theirs cannot be imported here, it is this call that fails. In
    the pool's own unpickling it would end the worker."""
    return run(pickle.loads(batch), wait)  # noqa: S301 packed by `_run_in_pool`


def _results(future: futures.Future, batch: list[RunConfig]) -> list[Outcome]:
    try:
        return future.result()
    except PluginError as error:
        return [_outcome(config.folder, error) for config in batch]


def _run(configs: list[RunConfig], wait: bool) -> list[Outcome]:
    """Runs at once, without their lines on the terminal, where several would mix."""
    while True:
        try:
            with StopSignals() as stop:
                stop.check()
            with contextlib.redirect_stdout(io.StringIO()):
                if len(configs) > 1:
                    return [_outcome(folder, error) for folder, error in train_seeds(configs).items()]
                return [Outcome(train(configs[0]))]
        except Stopped as stopped:  # no next run: whoever asked wants this process to end
            os._exit(stopped.exit_code)
        except Exception as error:  # out of memory, a bug: no reason to lose the other runs
            if isinstance(error, RunLocked) and wait:
                time.sleep(SECONDS_BETWEEN_TRIES)
                continue
            if configs[0].tracebacks:
                raise
            done = [is_finished(config.folder) for config in configs]  # some seeds may be through
            return [_outcome(c.folder, None if d else error) for c, d in zip(configs, done, strict=True)]


def _outcome(folder: Path, error: Exception | None) -> Outcome:
    if error is None:
        return Outcome(folder)
    known = isinstance(error, (*FAILURES, ConfigError, PluginError))
    text = str(error) if known else f"{type(error).__name__}: {error}".splitlines()[0]
    return Outcome(folder, text, isinstance(error, RunLocked))


def describe(outcome: Outcome) -> str:
    """The line of a run that ended."""
    if outcome.locked:
        return f"waits: {outcome.error}"
    if outcome.error is not None:
        return f"FAILED {outcome.folder}: {outcome.error}"
    summary = json.loads((outcome.folder / "summary.json").read_text())
    number = headline_of(summary) or "headline undefined"
    return f"{outcome.folder.parent.name}/{outcome.folder.name}  {number}  {summary['wall_seconds']:.0f} s"


def shared_gpus(devices: Iterable[str]) -> list[str | None]:
    """What CUDA_VISIBLE_DEVICES is set to in one worker after the other; None: left as it is, where there are not
    several GPUs to share out, or a run names one by its number."""
    if not all(device in ("auto", "cuda") for device in devices):
        return [None]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [*map(str, range(torch.cuda.device_count()))] if visible is None else [g for g in visible.split(",") if g]
    return gpus if len(gpus) > 1 else [None]


def _begin(parent: int, mine: SimpleQueue) -> None:
    """End with the parent: an orphan would hold its run folder against the next try. Ctrl-C is the parent's to
    handle."""
    life = contextlib.ExitStack()
    atexit.register(life.close)  # which keeps it: a context that nobody holds is closed at once
    life.enter_context(lasting_terminal())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    life.enter_context(StopSignals())  # a signal between two runs counts as well
    gpu = mine.get()
    if gpu is not None:  # CUDA has not been started yet, and numbers the devices it sees from 0
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    end_with(parent)
