"""Sweeps by the launchers of conf/hydra/launcher: all runs are composed and checked before the first begins, finished
ones are skipped, and what a run is does not change any more, whatever happens to the YAML files meanwhile.

A sweep keeps no state of its own: the same command later looks at the run folders, takes up jobs that still wait or
run, and begins again what ended without being finished.
"""

import fcntl
import math
import os
import secrets
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from omegaconf import DictConfig

from nclab.cluster.fixed import FixedLayers
from nclab.cluster.intent import take_up
from nclab.cluster.job import submit
from nclab.cluster.slurm import SlurmError, SlurmSettings, end_of, job_of, jobs_in_queue
from nclab.cluster.standing import Standing
from nclab.cluster.workers import Outcome, SweepSettings, default_jobs, describe, run_all
from nclab.config.checks import checked
from nclab.config.schema import ConfigError, RunConfig, threads_by_default
from nclab.config.stored import to_yaml
from nclab.config.sweep import Job
from nclab.run.exit import same_command
from nclab.run.longer import parent_of
from nclab.run.moved import move
from nclab.run.started import as_started, requested
from nclab.runfolder import checkpoint
from nclab.runfolder.folder import RunFolder, note
from nclab.runs.queue import Queue
from nclab.runs.state import inspect, submission
from nclab.system.atomic import make_folder, write_atomic
from nclab.system.lock import is_held
from nclab.system.progress import telling
from nclab.system.signals import StopSignals
from nclab.system.words import install_hint
from nclab.system.written import is_finished

# A run counts as ended after its job was absent from the queue this many times: its files may take a moment to appear.
TIMES_ABSENT = 2


class SweepFailed(RuntimeError):
    """Some runs of a sweep failed."""


def prepared(launcher: str, settings: DictConfig) -> Callable[[list[RunConfig]], None]:
    """What starts the runs of a sweep with hydra/launcher=local or slurm. Raises ConfigError for wrong settings."""
    if launcher == "local":
        s = checked("hydra.launcher", SweepSettings, settings)
        return lambda configs: on_this_machine(configs, s.jobs, s.stack)
    s = checked("hydra.launcher", SlurmSettings, settings)
    return lambda configs: on_slurm(configs, s)


def runs_of(jobs: Iterable[Job]) -> list[RunConfig]:
    """The runs of a sweep's jobs as they were begun, in order."""
    return [as_started(run) for job in jobs for run in requested(job.config, job.words)]


def _clear(configs: list[RunConfig], queue: dict[str, str]) -> None:
    """Clear the folders of the runs that are to begin again: all of them or, where one cannot be had, none."""
    again = [run for run in configs if run.overwrite]
    cleared = {run.folder.resolve() for run in again}
    for run in again:
        if job_of(run.folder) in queue:
            raise ConfigError(f"overwrite=true: {run.folder} is in job {job_of(run.folder)}; scancel that first")
        parent_of(run)  # while there is something to lose
        if run.parent is not None and (run.folder.parent / run.parent).resolve() in cleared:
            raise ConfigError(f"overwrite=true: {run.folder} goes on from {run.parent}, which would begin again beside "
                              "it; give a command for each, one after the other")  # fmt: skip
    with ExitStack() as stack:
        for out in [stack.enter_context(RunFolder(run.folder)) for run in again]:
            out.clear()
    for run in again:
        run.overwrite = False


def on_this_machine(configs: list[RunConfig], jobs: int | None, stack: int) -> None:
    """Train side by side in `jobs` processes, which share out CPU threads and GPUs. Raises SweepFailed, Stopped."""
    jobs = default_jobs() if jobs is None else jobs
    submitted = any(job_of(config.folder) for config in configs if config.overwrite)
    _clear(configs, _queue() if submitted else {})
    left = sum(not _done(config.folder) for config in configs)
    for config in configs:
        if config.threads is None:
            config.threads = threads_by_default(side_by_side=max(1, min(jobs, left)))
    instead = "without hydra/launcher=local runs are trained one after the other"
    failed = [outcome for outcome in run_all(configs, jobs, stack, instead) if outcome.error is not None]
    _end(len(configs), [f"{outcome.folder}: {outcome.error}" for outcome in failed])


def on_slurm(configs: list[RunConfig], settings: SlurmSettings) -> None:
    """Submit what is neither finished nor in the queue, and follow the jobs until they have ended.

    Raises ConfigError where Slurm or submitit is not installed, SlurmError where Slurm refuses, SweepFailed.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError("hydra/launcher=slurm needs sbatch, which is not on the PATH here; hydra/launcher=local "
                          "trains on this machine")  # fmt: skip
    if find_spec("submitit") is None:
        raise ConfigError(f"hydra/launcher=slurm needs submitit; {install_hint('cluster')}")
    with _one_at_a_time(Path(configs[0].output_root) / ".slurm"), StopSignals():
        jobs = _in_queue(configs, settings)
    if settings.wait:
        _end(len(configs), _follow(jobs, settings.poll_seconds))


def _in_queue(configs: list[RunConfig], settings: SlurmSettings) -> dict[Path, str]:
    """The job of every run that is not finished, after those without one were submitted."""
    if found := take_up(Path(configs[0].output_root) / ".slurm"):
        print(f"{found} jobs of a launcher that was killed while it submitted are in the queue", flush=True)
    queue = _queue()
    _clear(configs, queue)
    todo = [config for config in configs if not _done(config.folder)]
    jobs = {config.folder: job_of(config.folder) or "" for config in todo}
    new = [config for config in todo if jobs[config.folder] not in queue and not is_held(config.folder)]
    print(f"{len(configs)} runs: {len(configs) - len(todo)} finished before, {len(todo) - len(new)} in the queue, "
          f"{len(new)} to submit", flush=True)  # fmt: skip
    if new:
        submitted = _submitted(new, settings)
        jobs |= submitted
        first = next(iter(submitted.values()))
        print(f"submitted as job {first.split('_')[0]}; {same_command()} attaches to it again", flush=True)
    return jobs


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Others who would submit to the same output_root wait: they must see what we submit. Where nothing is submitted,
    the folder goes if it came now."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]  # the innermost first
    with _locked(folder):
        try:
            yield
        except (SlurmError, ConfigError, OSError):
            if folder in new and [path.name for path in folder.iterdir()] == ["lock"]:
                (folder / "lock").unlink()
                with suppress(OSError):  # others may have begun something there
                    for place in new:
                        place.rmdir()
            raise


def _locked(folder: Path) -> TextIO:
    """The lock of a folder, held: that of the file which is there now, for whoever had it may have removed both."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            lock = (folder / "lock").open("w")
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_there(folder, lock):
                return lock
            lock.close()


def _is_there(folder: Path, lock: TextIO) -> bool:
    with suppress(FileNotFoundError):
        return (folder / "lock").stat().st_ino == os.fstat(lock.fileno()).st_ino
    return False


def _queue() -> dict[str, str]:
    """The jobs in the queue. Raises SlurmError where Slurm does not say."""
    queue = jobs_in_queue()
    if queue is None:
        raise SlurmError("squeue does not answer; nothing was begun")
    return queue.jobs


def _submitted(configs: list[RunConfig], settings: SlurmSettings) -> dict[Path, str]:
    """Every run's configuration goes into its folder first: that is all that its job will read."""
    made, new = [], [place for place in {run.folder.parent for run in configs} if not place.exists()]
    logs = Path(configs[0].output_root) / ".slurm" / secrets.token_hex(4)
    try:
        for config in telling(configs, "written"):
            file = config.folder / "config.yaml"
            if checkpoint.exists(config.folder) and file.exists():  # begun before: it goes on as it was, but for
                if text := move(config):  # what was typed now: the job knows no more than the folder
                    note(config.folder, "warning", text=text)
                    print(f"{config.folder.name} {text}", file=sys.stderr)
                continue
            if config.threads is None:
                config.threads = threads_by_default(settings.cpus_per_task, settings.runs_per_job)
            if not file.exists():
                made.append(config.folder)
            make_folder(config.folder)
            write_atomic(file, to_yaml(config))
        return submit([config.folder for config in configs], f"nclab-{configs[0].experiment_name}", logs, settings)
    except (SlurmError, OSError):
        for folder in made:
            if job_of(folder) is None:  # of an array that was not accepted
                with suppress(OSError):
                    (folder / "config.yaml").unlink(missing_ok=True)
                    (folder / ".lock").unlink(missing_ok=True)
                    folder.rmdir()
        for place in new:
            with suppress(OSError):  # of runs that were accepted
                place.rmdir()
        raise


def _follow(jobs: dict[Path, str], seconds: float) -> list[str]:
    """Wait for all runs; prints one line a run; returns what failed. Ctrl-C leaves the jobs alone and exits."""
    absent: Counter[Path] = Counter()
    waiting, failures = dict(jobs), []
    fixed, standing = FixedLayers(), Standing()
    with StopSignals() as stop:
        while waiting:
            queue = jobs_in_queue()
            for folder in list(waiting):
                job = waiting[folder] = job_of(folder) or waiting[folder]  # someone may have submitted it again
                if queue is None or queue.jobs.get(job) != "PENDING":
                    fixed.look(folder)
                if _done(folder):
                    ended = describe(Outcome(folder))
                elif queue is None or job in queue.jobs or is_held(folder):
                    absent[folder] = 0
                    continue
                else:
                    absent[folder] += 1
                    if absent[folder] < TIMES_ABSENT:
                        continue
                    failures.append(f"{folder}: {_why(folder, job)}")
                    ended = f"FAILED {failures[-1]}"
                del waiting[folder]
                print(f"[{len(jobs) - len(waiting)}/{len(jobs)}] {ended}", flush=True)
            if waiting and queue is not None:
                standing.look(queue, waiting.values())
            wake = time.monotonic() + seconds
            while waiting and time.monotonic() < wake:
                if stop.number is not None:
                    print(f"left: the jobs go on; {same_command()} attaches to them again", file=sys.stderr)
                    sys.exit(128 + stop.number)
                time.sleep(min(0.2, seconds))
    return failures


def _why(folder: Path, job: str) -> str:
    """Why a run whose job is gone is not finished: its own last word, else Slurm's."""
    run = inspect(folder, Queue({}, asked=math.inf))  # the job is gone, we know
    since = (submission(folder) or {"submitted": 0})["submitted"]
    if run is not None and run.state == "failed" and run.age is not None and time.time() - run.age >= since:
        return run.reason
    return f"its job {job} {end_of(job) if job else 'is unknown'} and left no word; its log is in .slurm/"


def _end(total: int, failures: list[str]) -> None:
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    if failures:
        raise SweepFailed(f"{len(failures)} of {total} runs failed; the same command tries them again")
    print(f"all {total} runs are finished", flush=True)


def _done(folder: Path) -> bool:
    return is_finished(folder)
