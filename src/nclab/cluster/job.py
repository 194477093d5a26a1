"""Runs as jobs of a Slurm cluster: submitted as arrays through submitit, saved, requeued and resumed in their folders.

A job carries the names of run folders and nothing else: the configuration of a run lies in its folder from the moment
of submission, and what happened to it is read from there (DONE, events.jsonl). Imports no torch at its top: a job must
be able to take signals before that is loaded.
"""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nclab.cluster.intent import intend, note
from nclab.cluster.slurm import AT_LIMIT, SlurmError, SlurmSettings, fate_of, job_of, most_of_an_array, requeue
from nclab.system.lifetime import ending_with_this_process
from nclab.system.redact import masked_terminal
from nclab.system.signals import Stopped, StopSignals
from nclab.system.terminal import lasting_terminal
from nclab.system.written import is_finished


@dataclass
class Job:
    """What a job does, once and after every requeue: train the runs of its folders as far as they go."""

    folders: list[str]
    side_by_side: int
    requeues: int

    def __call__(self) -> None:
        with (
            StopSignals(),
            lasting_terminal(),
            masked_terminal(),
        ):  # from here on signals are noted, also while torch is loaded
            from nclab.cluster.train_folders import train_folders

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
        unfinished = [Path(folder) for folder in self.folders if not is_finished(Path(folder))]

        def tell(event: str, **what: Any) -> None:
            for folder in unfinished:
                with contextlib.suppress(OSError):  # a full disk must not keep the job from the queue
                    if job_of(folder) == job:  # else the run is another job's by now
                        note(folder, event, job=job, restarts=restarts, **what)

        fate = fate_of(job, restarts)
        if fate == "cancelled":
            tell("failed", reason=f"job {job} was cancelled; the same command resumes")
        elif fate == "requeued":
            tell("requeue", by="slurm")
        elif restarts >= self.requeues:
            tell("failed", reason=f"job {job} was requeued {restarts} times, hydra.launcher.requeues; "
                 "the same command resumes")  # fmt: skip
        else:
            tell("requeue", by="itself")  # before: Slurm kills this process while it carries the order out
            error = requeue(job)
            if error:
                late = f"{AT_LIMIT} and " if fate == "timeout" else ""
                tell("failed", reason=f"job {job} {late}could not be requeued: {error}; the same command resumes")
        raise SystemExit(128 + number)


def submit(folders: list[Path], name: str, logs: Path, settings: SlurmSettings) -> dict[Path, str]:
    """Submit arrays of jobs, `runs_per_job` folders each, and note in every folder which job it is in; returns that.
    Their name ends in that of the folder `logs`: by it they are found where this process does not get to note them.

    Raises SlurmError where sbatch refuses; jobs of earlier arrays stay submitted and noted.
    """
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    class SlurmExecutor(submitit.SlurmExecutor):
        """Its sbatch ends with this process: it would go on alone, and nobody would wait for it."""

        def _make_submission_command(self, file: Path) -> list[str]:
            return ending_with_this_process(super()._make_submission_command(file))

    size = settings.runs_per_job
    jobs = [folders[i : i + size] for i in range(0, len(folders), size)]
    at: dict[Path, str] = {}
    most = most_of_an_array()
    for start in range(0, len(jobs), most):
        logs.mkdir(parents=True, exist_ok=True)
        executor = SlurmExecutor(folder=logs, max_num_timeout=settings.requeues)
        unique = f"{name}-{logs.name}-{start // most}"
        executor.update_parameters(**_parameters(unique, settings))
        part = jobs[start : start + most]
        work = [Job([str(folder.resolve()) for folder in of_job], size, settings.requeues) for of_job in part]
        intent = logs / f"intent-{start // most}.json"
        began = time.time()
        intend(intent, unique, part)
        try:
            # submitit repeats on the terminal what sbatch says; it is in the error too.
            with contextlib.redirect_stderr(io.StringIO()), executor.batch():
                submitted = [executor.submit(w) for w in work]
        except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError, OSError) as error:
            intent.unlink()
            if not any(logs.glob("*submission.sh")):
                shutil.rmtree(logs, ignore_errors=True)
            raise SlurmError(" ".join(str(error).split())) from None
        at |= note(submitted[0].job_id.partition("_")[0], part, began)
        intent.unlink()
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
