"""What Hydra calls for every run of a command line."""

import sys
from collections.abc import Mapping

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from nclab.config.schema import RunConfig, typed
from nclab.run.execute import train, train_seeds
from nclab.run.exit import BAD, BAD_INPUT, FAILED, complain
from nclab.run.started import requested
from nclab.system.signals import Stopped, StopSignals
from nclab.training.fit import FAILURES


class Task:
    """A Hydra task function that remembers what failed.

    Hydra hands the object itself to a launcher's `setup`, so that a launcher finds in `planned` what was checked
    already, and need not compose it again (0.1 s a run).

    Attributes:
        planned: the checked configuration of each job of a sweep, by its overrides.
        failures: the errors of the runs that failed, in order.
    """

    def __init__(self, planned: Mapping[tuple[str, ...], RunConfig]) -> None:
        self.planned = planned
        self.failures: list[Exception] = []

    def __call__(self, composed: DictConfig) -> str:
        """Train the run, or its seeds; returns the folders. A failed run is noted, and the sweep goes on."""
        try:
            with StopSignals() as stop:
                stop.check()
            configs = requested(typed(composed), HydraConfig.get().overrides.task)
            if composed.get("seeds") is None:
                return str(train(configs[0]))
            ended = train_seeds(configs)
        except BAD as error:
            if composed.get("debug") is True:
                raise
            sys.exit(complain(error, BAD_INPUT))  # wrong input ends a sweep at once
        except FAILURES as error:
            if composed.get("debug") is True:
                raise
            self._failed(error)  # the other runs of a sweep are tried
            return ""
        except Stopped as stopped:  # a sweep stops too
            sys.exit(complain(stopped, stopped.exit_code))
        for folder, error in ended.items():
            if error is not None:
                self._failed(error, f"{folder.name}: ")
        return " ".join(map(str, ended))

    def _failed(self, error: Exception, whose: str = "") -> None:
        complain(error, FAILED, whose)
        self.failures.append(error)
