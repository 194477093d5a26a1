"""What is about to be submitted, written down before: a launcher that is killed between sbatch and its notes leaves
jobs that no run folder names. The next one looks for them in the queue, by the name they were given for that.

Imports no torch: see `nclab.cluster.job`.
"""

import json
import time
from pathlib import Path

from nclab.cluster.slurm import SlurmError
from nclab.runs.queue import QueueError, ask
from nclab.system.atomic import write_atomic

NOTE = "slurm.json"  # in a run folder: the job that it was last submitted as
PATTERN = "*/intent-*.json"  # below the folder of all logs


def intend(file: Path, name: str, jobs: list[list[Path]]) -> None:
    """Write down that the jobs of an array, called `name`, will be submitted with these run folders each."""
    folders = [[str(folder.resolve()) for folder in of_job] for of_job in jobs]
    write_atomic(file, json.dumps({"name": name, "jobs": folders, "submitted": round(time.time(), 3)}) + "\n")


def note(array: str, jobs: list[list[Path]], submitted: float) -> dict[Path, str]:
    """Note in every run folder which job it is in; returns that. `array`: the id that sbatch gave them."""
    at = {}
    for i, of_job in enumerate(jobs):
        for folder in of_job:
            at[folder] = array if len(jobs) == 1 else f"{array}_{i}"
            text = json.dumps({"job": at[folder], "submitted": round(submitted, 3)}) + "\n"
            write_atomic(folder / NOTE, text)
    return at


def take_up(logs: Path) -> int:
    """Note the jobs that earlier launchers submitted and did not get to note, if they are in the queue still; returns
    their number. To be called where nobody else submits below `logs`. Raises SlurmError where Slurm does not say."""
    found = 0
    for file in sorted(logs.glob(PATTERN)):
        intent = json.loads(file.read_text())
        try:
            there = [job for job, name in ask().names.items() if name == intent["name"]]
        except QueueError:
            raise SlurmError("squeue does not answer; nothing was begun") from None
        if there:
            jobs = [[Path(folder) for folder in of_job] for of_job in intent["jobs"]]
            found += len(there)
            note(there[0].partition("_")[0], jobs, intent["submitted"])
        file.unlink()
    return found
