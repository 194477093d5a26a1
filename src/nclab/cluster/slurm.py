"""Runs as jobs of a Slurm cluster: submitted as arrays through submitit, saved, requeued and resumed in their folders.

A job carries the names of run folders and nothing else: the configuration of a run lies in its folder from the moment
of submission, and what happened to it is read from there (DONE, events.jsonl). Slurm is asked for one thing only, which
jobs it still has. This module imports no torch: a job must be able to take signals before that is loaded.
"""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nclab.runs.queue import QueueError, ask
from nclab.runs.state import submission

NOTE = "slurm.json"  # in a run folder: the job that it was last submitted as
SECONDS_TO_ANSWER = 30  # squeue and scontrol wait long for a controller that restarts
REQUEUE_TRIES = 5
SECONDS_FOR_FATE = (0, 1, 1)  # between looks: a job that Slurm ends is counted as requeued a moment later
JOBS_OF_AN_ARRAY = 1000  # Slurm's default MaxArraySize is 1001


class SlurmError(RuntimeError):
    """Slurm refused what was asked; the message is its own."""


@dataclass
class SlurmSettings:
    """Keys of hydra.launcher with hydra/launcher=slurm; the comments in conf/hydra/launcher/slurm.yaml explain them."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    timeout_min: int = 240
    cpus_per_task: int = 4
    gpus_per_node: int | None = None
    mem_gb: float | None = None
    array_parallelism: int = 256
    runs_per_job: int = 1
    requeues: int = 20
    signal_delay_s: int = 120
    setup: list[str] = field(default_factory=list)
    additional_parameters: dict[str, Any] = field(default_factory=dict)
    wait: bool = True
    poll_seconds: float = 10.0

    def __post_init__(self) -> None:
        least = {
            "timeout_min": 1, "cpus_per_task": 1, "gpus_per_node": 0, "mem_gb": 0.001, "array_parallelism": 1,
            "runs_per_job": 1, "requeues": 0, "signal_delay_s": 1, "poll_seconds": 0.1,
        }  # fmt: skip
        for key, value in least.items():
            came = getattr(self, key)
            if came is not None and not came >= value:
                raise ValueError(f"hydra.launcher.{key} must be at least {value}, got {came}")
        if self.signal_delay_s >= 60 * self.timeout_min:
            raise ValueError(
                f"hydra.launcher.signal_delay_s must be shorter than timeout_min={self.timeout_min} (minutes), "
                f"got {self.signal_delay_s} seconds"
            )


@dataclass
class Work:
    """What a job does, once and after every requeue: train the runs of its folders as far as they go."""

    folders: list[str]
    side_by_side: int
    requeues: int

    def __call__(self) -> None:
        from nclab.system.redact import masked_terminal
        from nclab.system.signals import Stopped, StopSignals

        with StopSignals(), masked_terminal():  # from here on signals are noted, also while torch is loaded
            from nclab.cluster.launch import train_folders

            try:
                failures = train_folders([Path(folder) for folder in self.folders], self.side_by_side)
            except Stopped as stopped:
                print(f"{stopped}", file=sys.stderr)
                self._leave(stopped.number)
        if failures:
            raise SystemExit(1)  # Slurm then says FAILED

    def checkpoint(self) -> Any:
        """For submitit, should a signal come before `__call__` takes them: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _leave(self, number: int) -> None:
        """End the job; requeued if Slurm goes on with it."""
        from nclab.runfolder.folder import note
        from nclab.runfolder.provenance import slurm_job

        job, restarts = slurm_job(), int(os.environ.get("SLURM_RESTART_COUNT", 0))
        unfinished = [Path(folder) for folder in self.folders if not (Path(folder) / "DONE").exists()]

        def tell(event: str, **what: Any) -> None:
            for folder in unfinished:
                with contextlib.suppress(OSError):  # a full disk must not keep the job from the queue
                    if job_of(folder) == job:  # else the run is another job's by now
                        note(folder, event, job=job, restarts=restarts, **what)

        fate = fate_of(job, restarts)
        if fate == "cancelled":
            tell("failed", reason=f"job {job} was cancelled, or its time was up; the same command resumes")
        elif fate == "requeued":
            tell("requeue", by="slurm")
        elif restarts >= self.requeues:
            tell("failed", reason=f"job {job} was requeued {restarts} times, hydra.launcher.requeues; "
                 "the same command resumes")  # fmt: skip
        else:
            tell("requeue", by="itself")  # before: Slurm kills this process while it carries the order out
            error = requeue(job)
            if error:
                tell("failed", reason=f"job {job} could not be requeued: {error}; the same command resumes")
        raise SystemExit(128 + number)


def fate_of(job: str, restarts: int) -> str:
    """What Slurm does with a job that it sent a signal: it is `alive` (warned, or preempted and in its time of grace),
    `requeued` already or `cancelled`. Where Slurm does not answer it is taken for alive."""
    for wait in SECONDS_FOR_FATE:
        time.sleep(wait)
        job_is = about(job)
        if int(job_is.get("Restarts", 0)) > restarts:
            return "requeued"
        if job_is.get("JobState", "RUNNING") in ("RUNNING", "SUSPENDED", "PREEMPTED"):
            return "alive"
    return "cancelled"


def about(job: str) -> dict[str, str]:
    """What Slurm says of a job, also some minutes after its end: JobState, Restarts, ...; empty where it does not know
    the job or does not answer."""
    try:
        words = _run("scontrol", "show", "job", "--oneliner", job).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def requeue(job: str) -> str:
    """Put the job back into the queue; returns why not."""
    reason = ""
    for attempt in range(REQUEUE_TRIES):
        time.sleep(attempt)
        try:
            done = _run("scontrol", "requeue", job)
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
            continue
        if done.returncode == 0:
            return ""
        reason = " ".join(done.stderr.split())
    return reason


def jobs_in_queue() -> dict[str, str] | None:
    """State (PENDING, RUNNING, ...) of every job that Slurm has, by id (`N`, `N_i` in an array); None where Slurm does
    not answer: then nothing is known, and nobody should conclude that a job is gone."""
    try:
        return ask().jobs
    except QueueError:
        return None


def job_of(folder: Path) -> str | None:
    """The job that a run folder was last submitted as."""
    noted = submission(folder)
    return noted["job"] if noted else None


def submit(folders: list[Path], name: str, logs: Path, settings: SlurmSettings) -> dict[Path, str]:
    """Submit arrays of jobs, `runs_per_job` folders each, and note in every folder which job it is in; returns that.

    Raises SlurmError where sbatch refuses; jobs of earlier arrays stay submitted and noted.
    """
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    from nclab.runfolder.folder import write_atomic

    size = settings.runs_per_job
    jobs = [folders[i : i + size] for i in range(0, len(folders), size)]
    at: dict[Path, str] = {}
    for start in range(0, len(jobs), JOBS_OF_AN_ARRAY):
        logs.mkdir(parents=True, exist_ok=True)
        executor = submitit.SlurmExecutor(folder=logs, max_num_timeout=settings.requeues)
        executor.update_parameters(**_parameters(name, settings))
        part = jobs[start : start + JOBS_OF_AN_ARRAY]
        work = [Work([str(folder.resolve()) for folder in of_job], size, settings.requeues) for of_job in part]
        try:
            # submitit repeats on the terminal what sbatch says; it is in the error too.
            with contextlib.redirect_stderr(io.StringIO()), executor.batch():
                submitted = [executor.submit(w) for w in work]
        except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError, OSError) as error:
            if not any(logs.glob("*submission.sh")):
                shutil.rmtree(logs, ignore_errors=True)
            raise SlurmError(" ".join(str(error).split())) from None
        for job, of_job in zip(submitted, part, strict=True):
            for folder in of_job:
                at[folder] = job.job_id
                text = json.dumps({"job": job.job_id, "submitted": round(time.time(), 3)}) + "\n"
                write_atomic(folder / NOTE, text)
    return at


def _parameters(name: str, s: SlurmSettings) -> dict[str, Any]:
    asked = {
        "partition": s.partition,
        "account": s.account,
        "qos": s.qos,
        "constraint": s.constraint,
        "gpus_per_node": s.gpus_per_node or None,
        "mem": None if s.mem_gb is None else f"{round(s.mem_gb * 1024)}M",
        "setup": s.setup or None,
    }
    return {
        "job_name": name,
        "time": s.timeout_min,
        "cpus_per_task": s.cpus_per_task,
        "array_parallelism": s.array_parallelism,
        "signal_delay_s": s.signal_delay_s,
        "stderr_to_stdout": True,
        **{key: value for key, value in asked.items() if value is not None},
        # Requeued by Slurm itself where it kills without a warning; logs of a later start do not erase the first's.
        "additional_parameters": {"requeue": True, "open-mode": "append", **s.additional_parameters},
        "srun_args": ["--open-mode=append"],
    }


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER, check=False)
