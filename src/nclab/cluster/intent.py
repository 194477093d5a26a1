"""What is about to be submitted, written down before: a launcher that is killed between sbatch and its notes leaves
jobs that no run folder names. The next one looks for them in the queue, by the name they were given for that.

Imports no torch: see `nclab.cluster.job`.
"""

import json
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nclab.cluster.slurm import SlurmError
from nclab.runs.queue import SLACK, QueueError, ask
from nclab.system.atomic import write_atomic
from nclab.system.signals import StopSignals

NOTE = "slurm.json"  # in a run folder: the job that it was last submitted as
PATTERN = "*/intent-*.json"  # below the folder of all logs
SECONDS_BETWEEN_LOOKS = 0.5  # at the queue


def intend(file: Path, name: str, jobs: list[list[Path]]) -> None:
    """Write down that the jobs of an array, called `name`, will be submitted with these run folders each."""
    folders = [[str(folder.resolve()) for folder in of_job] for of_job in jobs]
    write_atomic(file, json.dumps({"name": name, "jobs": folders, "submitted": round(time.time(), 3)}) + "\n")


def note(array: str, jobs: list[list[Path]], submitted: float) -> dict[Path, str]:
    """Note in every run folder which job it is in; returns that. `array`: the id that sbatch gave them. A folder that
    somebody removed meanwhile is passed over."""
    at = {}
    for i, of_job in enumerate(jobs):
        for folder in of_job:
            at[folder] = array if len(jobs) == 1 else f"{array}_{i}"
            text = json.dumps({"job": at[folder], "submitted": round(submitted, 3)}) + "\n"
            with suppress(FileNotFoundError):
                write_atomic(folder / NOTE, text)
    return at


def take_up(logs: Path) -> int:
    """Note the jobs that earlier launchers submitted and did not get to note, if they are in the queue still; returns
    their number. To be called where nobody else submits below `logs`. Raises SlurmError where Slurm does not say, and
    Stopped."""
    found, until = 0, time.time() + SLACK
    for file in sorted(logs.glob(PATTERN)):
        try:
            intent = _read(file)
        except ValueError as error:
            print(f"warning: {file} does not say what was to be submitted ({error}), and is removed", file=sys.stderr)
        else:
            there = _ids(intent, until)
            if there:
                note(there[0].partition("_")[0], intent.jobs, intent.submitted)
            found += len(there)
        file.unlink()
    return found


@dataclass(frozen=True)
class _Intent:
    name: str
    jobs: list[list[Path]]
    submitted: float


def _read(file: Path) -> _Intent:
    """Raises ValueError for what `intend` has not written."""
    tree = json.loads(file.read_text())
    try:
        jobs = [[Path(folder) for folder in of_job] for of_job in tree["jobs"]]
        return _Intent(str(tree["name"]), jobs, float(tree["submitted"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"expected name, jobs and submitted; {type(error).__name__}: {error}") from None


def _ids(intent: _Intent, until: float) -> list[str]:
    """Its jobs in the queue. The sbatch of a launcher that was killed ended with it (`nclab.system.lifetime`), but what
    it had sent by then may be accepted still, and squeue lists a job a moment after that: that there is none counts
    only when that time is over. `until`: unix time."""
    with StopSignals() as stop:
        while True:
            asked = time.time()
            try:
                there = [job for job, name in ask().names.items() if name == intent.name]
            except QueueError:
                raise SlurmError("squeue does not answer; nothing was begun") from None
            if there or asked > until:
                return there
            stop.check()
            time.sleep(SECONDS_BETWEEN_LOOKS)
