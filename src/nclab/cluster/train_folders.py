"""What a job does with its run folders: train each, wait for one that another process holds, say why one fails."""

import time
from contextlib import suppress
from pathlib import Path

from nclab.cluster.slurm import job_of
from nclab.cluster.workers import SECONDS_BETWEEN_TRIES, run_all
from nclab.config.schema import RunConfig
from nclab.run.execute import check, train
from nclab.run.exit import BAD, FAILED, complain
from nclab.run.started import as_started
from nclab.runfolder.folder import RunLocked, note
from nclab.runfolder.provenance import slurm_job
from nclab.system.signals import StopSignals
from nclab.training.fit import FAILURES


def train_folders(folders: list[Path], side_by_side: int) -> int:
    """Train the runs of these folders, as a job does; returns how many failed, which it said. Raises Stopped.

    A run that another process holds is waited for: where a node was lost to the cluster but lives, the requeued job
    meets what is left of its first life.
    """
    if len(folders) == 1:
        return int(not _trained(folders[0]))
    configs = []
    for folder in folders:
        try:
            config = as_started(RunConfig(resume=str(folder)))
            check([config])  # one that is wrong must not keep the others from their turn
            configs.append(config)
        except BAD as error:
            _cannot_begin(folder, error)
    failed = len(folders) - len(configs)
    outcomes = run_all(configs, side_by_side, instead="with hydra.launcher.runs_per_job=1 a job needs none")
    return failed + sum(outcome.error is not None for outcome in outcomes)


def _cannot_begin(folder: Path, error: Exception) -> None:
    """Say and note why, as the run's own log is not open yet."""
    complain(error, FAILED)
    with suppress(OSError):
        note(folder, "failed", reason=str(error), job=slurm_job())


def _trained(folder: Path) -> bool:
    """Train one run, when nobody else does; false where it failed."""
    while True:
        try:
            train(RunConfig(resume=str(folder)))
            return True
        except BAD as error:
            _cannot_begin(folder, error)
            return False
        except RunLocked as error:
            with StopSignals() as stop:
                stop.check()
            if job_of(folder) != slurm_job():
                print(f"left to job {job_of(folder)}: {error}", flush=True)
                return True
            print(f"waits: {error}", flush=True)
            time.sleep(SECONDS_BETWEEN_TRIES)
        except FAILURES as error:
            complain(error, FAILED)
            return False
