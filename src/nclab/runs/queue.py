"""What Slurm knows of its jobs, asked once for all runs."""

import os
import subprocess
import time
from dataclasses import dataclass, field

COMMAND = ("squeue", "-h", "-r", "-o", "%i|%T|%r|%j")
TIMEOUT = 10.0  # seconds
SLACK = 10.0  # seconds by which clocks of a cluster may differ, and Slurm's list lag behind a submission
# What squeue shows of a job that is through; all other states are still to run, or running.
OVER = frozenset(
    ("COMPLETING", "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")
)


class QueueError(RuntimeError):
    """Slurm cannot be asked here and now; one line of text."""


@dataclass(frozen=True)
class Queue:
    """The jobs that Slurm has (id, `N` or `N_i`, to state such as PENDING, to name, and to the reason why it waits), as
    of `asked` (unix time)."""

    jobs: dict[str, str]
    asked: float
    names: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def state(self, job: str, submitted: float) -> str | None:
        """The state of a job, PENDING where it was submitted after we asked; None where Slurm knows it no more."""
        fresh = "PENDING" if submitted > self.asked - SLACK else None
        return self.jobs.get(job, fresh)


def ask() -> Queue:
    """Raises QueueError where squeue is absent, fails or does not answer."""
    # A user's SQUEUE_STATES, SQUEUE_PARTITION, ... would hide jobs, whose runs would then look interrupted.
    plain = {key: value for key, value in os.environ.items() if not key.startswith("SQUEUE_")}
    asked = time.time()
    try:
        done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=TIMEOUT, env=plain)
    except FileNotFoundError:
        raise QueueError("squeue is not installed here") from None
    except subprocess.TimeoutExpired:
        raise QueueError(f"squeue did not answer within {TIMEOUT:g} s") from None
    except OSError as error:
        raise QueueError(f"squeue cannot be run: {error}") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise QueueError(f"squeue failed: {said[-1]}")
    lines = [(*line.strip().split("|", 3), "", "", "")[:4] for line in done.stdout.splitlines() if line.strip()]
    jobs = {job: state for job, state, _, _ in lines}
    return Queue(jobs, asked, {job: name for job, *_, name in lines}, {job: reason for job, _, reason, _ in lines})
