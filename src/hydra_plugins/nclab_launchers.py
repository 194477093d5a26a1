"""The launchers of conf/hydra/launcher, where Hydra looks for them. Thin: Hydra imports this at every start, and
`nclab.cluster.launch` does the work."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class _SweepLauncher(Launcher):
    """Composes and checks all runs, then hands them to `start`."""

    here = True  # where the runs will be trained

    def __init__(self, **settings: Any) -> None:
        self.settings = OmegaConf.create(settings)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.config = hydra_context, config
        self.planned = task_function.planned  # an nclab.run.task.Task

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from nclab.cluster.launch import SweepFailed, composed
        from nclab.cluster.slurm import SlurmError
        from nclab.run.exit import FAILED, complain

        start = self.prepared()
        configs = composed(self.config, self.context.config_loader, job_overrides, self.planned, self.here)
        try:
            start(configs)
        except (SweepFailed, SlurmError) as error:
            sys.exit(complain(error, FAILED))
        return [JobReturn(status=JobStatus.COMPLETED, _return_value=str(config.folder)) for config in configs]

    def prepared(self) -> Callable[[list], None]:
        """What starts the runs, with its own settings checked."""
        raise NotImplementedError


class LocalLauncher(_SweepLauncher):
    """hydra/launcher=local: several processes on this machine."""

    def prepared(self) -> Callable[[list], None]:
        from nclab.cluster.launch import on_this_machine
        from nclab.cluster.workers import SweepSettings
        from nclab.config.schema import checked

        s = checked("hydra.launcher", SweepSettings, self.settings)
        return lambda configs: on_this_machine(configs, s.jobs, s.stack)


class SlurmLauncher(_SweepLauncher):
    """hydra/launcher=slurm: jobs of a cluster."""

    here = False

    def prepared(self) -> Callable[[list], None]:
        from nclab.cluster.launch import on_slurm
        from nclab.cluster.slurm import SlurmSettings
        from nclab.config.schema import checked

        s = checked("hydra.launcher", SlurmSettings, self.settings)
        return lambda configs: on_slurm(configs, s)
