"""Slurm's commands: ask what jobs there are and what became of one, put a job back into the queue.

Imports no torch: see `nclab.cluster.job`.
"""

import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nclab.runs.queue import Queue, QueueError, ask
from nclab.runs.state import submission

SECONDS_TO_ANSWER = 30  # squeue and scontrol wait long for a controller that restarts
REQUEUE_TRIES = 5
AT_LIMIT = "reached its time limit (hydra.launcher.timeout_min)"
ENDS = {"OUT_OF_MEMORY": "ran out of memory (hydra.launcher.mem_gb)", "NODE_FAIL": "lost its node"}
JOBS_OF_AN_ARRAY = 1000  # Slurm's default MaxArraySize is 1001
SECONDS_FOR_FATE = (0, 1, 1)  # between looks: a job that Slurm ends is counted as requeued a moment later


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


def fate_of(job: str, restarts: int) -> str:
    """What Slurm does with a job that it sent a signal: it is `alive` (warned, or preempted and in its time of grace),
    `requeued` already, ended by its time limit (`timeout`) or `cancelled`. Where Slurm does not answer it is taken for
    alive."""
    for wait in SECONDS_FOR_FATE:
        time.sleep(wait)
        job_is = about(job)
        if int(job_is.get("Restarts", 0)) > restarts:
            return "requeued"
        if job_is.get("JobState", "RUNNING") in ("RUNNING", "SUSPENDED", "PREEMPTED"):
            return "alive"
        if _at_limit(job_is):
            return "timeout"
    return "cancelled"


def end_of(job: str) -> str:
    """How a job ended of which there is no other word: 'is cancelled', 'reached its time limit ...'."""
    job_is = about(job)
    state = job_is.get("JobState") or _accounted(job)
    if state is None:
        return "is gone (Slurm keeps no account here of how jobs end)"
    return AT_LIMIT if _at_limit({**job_is, "JobState": state}) else ENDS.get(state, f"is {state.lower()}")


def _at_limit(job_is: dict[str, str]) -> bool:
    """The state is COMPLETING until its processes are gone, the reason says why from the beginning."""
    return job_is.get("Reason") == "TimeLimit" or job_is.get("JobState") == "TIMEOUT"


def _accounted(job: str) -> str | None:
    """The state that Slurm's accounting has of a job; None without accounting, or where it does not answer."""
    try:
        done = _run("sacct", "--noheader", "--allocations", "--parsable2", "--format=State", f"--jobs={job}")
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.split()  # 'CANCELLED by 1000'
    return words[0] if done.returncode == 0 and words else None


def about(job: str) -> dict[str, str]:
    """What Slurm says of a job, also some minutes after its end: JobState, Restarts, ...; empty where it does not know
    the job or does not answer."""
    try:
        words = _run("scontrol", "show", "job", "--oneliner", job).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def most_of_an_array() -> int:
    """Jobs that one array may have here: an index is below the site's MaxArraySize. Slurm's default where it does not
    answer."""
    try:
        said = re.search(r"^MaxArraySize\s*=\s*(\d+)", _run("scontrol", "show", "config").stdout, re.MULTILINE)
    except (OSError, subprocess.TimeoutExpired):
        return JOBS_OF_AN_ARRAY
    return min(JOBS_OF_AN_ARRAY, max(1, int(said[1]) - 1)) if said else JOBS_OF_AN_ARRAY


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


def jobs_in_queue() -> Queue | None:
    """The jobs that Slurm has; None where Slurm does not answer: then nothing is known, and nobody should conclude that
    a job is gone."""
    try:
        return ask()
    except QueueError:
        return None


def job_of(folder: Path) -> str | None:
    """The job that a run folder was last submitted as."""
    noted = submission(folder)
    return noted["job"] if noted else None


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER, check=False)
