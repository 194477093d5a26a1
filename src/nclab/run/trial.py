"""Trials: debug=fast and debug=overfit make a run of a few batches out of any configuration.

A trial goes by the same code as the real run: dataset, model, policy, objective, sampler and optimizer are built and
checked from the same keys, with all its epochs. Then it trains on two batches of them.
"""

from collections.abc import Callable
from dataclasses import replace

from nclab.config.schema import ConfigError, RunConfig
from nclab.training.fit import FitSettings
from nclab.training.phases import Phase

BATCHES = 2
WITHOUT_BATCHES = 256  # samples where a batch is the whole train split
LEAST_EPOCHS = 200  # in which debug=overfit may fit them


def trial_size(config: RunConfig) -> int:
    """How many samples of a split a trial keeps."""
    return WITHOUT_BATCHES if config.batch_size is None else BATCHES * config.batch_size


def as_trial(
    config: RunConfig, phases: list[Phase], rates: Callable[[int], float], settings: FitSettings
) -> tuple[list[Phase], Callable[[int], float], FitSettings]:
    """Phases, learning rates and settings of a trial, from those of the real run: `fast` trains one epoch of each
    phase; `overfit` goes on at the first learning rate until the samples are fitted, whatever else ends the run, for
    LEAST_EPOCHS or, where those are more, the epochs of the run. Raises ConfigError."""
    if config.trial == "fast":
        return [replace(phase, epochs=1) for phase in phases], rates, replace(settings, epochs=len(phases))
    if len(phases) > 1:
        raise ConfigError(
            f"debug=overfit: expected one phase, got phases={config.phases.name} with {len(phases)}; debug=fast trains "
            "an epoch of each"
        )
    epochs, first = max(config.epochs, LEAST_EPOCHS), rates(0)
    phases = [replace(phase, epochs=epochs) for phase in phases]
    # Nothing else ends it: not a loss, and not a number of a validation split that no longer gets better.
    until_fitted = replace(settings, epochs=epochs, until_fitted=True, stop_at_loss=None, best=None)
    return phases, lambda epoch: first, until_fitted
