"""Train the trials of `hydra/sweeper=optuna`, one after the other.

The study lies in memory and the run folders are its storage: every trial is drawn by a sampler with the seed of its
number, from the values of those before it. So the same command draws the same trials again, takes the values of
finished runs from their folders, resumes the one that was interrupted, and goes on to the same end.
"""

import json
import math
from statistics import fmean
from typing import Any

from nclab.config.job import Job
from nclab.config.schema import ConfigError
from nclab.config.search import Between, Dimension, Search
from nclab.run.execute import check, is_done
from nclab.run.exit import FAILED, complain
from nclab.run.started import as_started, requested
from nclab.run.task import train_job
from nclab.system.words import install_hint
from nclab.training.fit import FAILURES

MOST_CHECKED = 30  # combinations, before the search begins


def search_trials(search: Search) -> bool:
    """Train all trials; whether one of them at least ended with a number. Raises ConfigError before anything is trained
    where the search cannot be; Stopped."""
    optuna = _optuna()
    _check(search)
    settings = search.settings
    study = optuna.create_study(direction=settings.direction)
    distributions = {key: _distribution(optuna, dimension) for key, dimension in search.space.items()}
    for number in range(settings.trials):
        study.sampler = _sampler(optuna, search, number)
        trial = study.ask(distributions)
        said = " ".join(search.words(trial.params))
        value = _value(search, trial.params, said)
        if value is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        study.tell(trial, value)
        best = study.best_trial
        so_far = f"best {best.value:.4f}, trial {best.number + 1}"
        print(f"trial {number + 1}/{settings.trials}: {said}: {value:.4f} ({so_far})")
    if not any(trial.value is not None for trial in study.trials):
        print("no trial ended with a number")
        return False
    best = study.best_trial
    print(f"best: trial {best.number + 1}: {' '.join(search.words(best.params))}: {best.value:.4f}")
    for run in _runs(search.job(best.params)):
        print(f"  {run.folder}")
    return True


def _optuna() -> Any:
    try:
        import optuna  # here, not above: only a search needs it
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"hydra/sweeper=optuna: optuna cannot be imported ({reason}); {install_hint('optuna')}"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _sampler(optuna: Any, search: Search, number: int) -> Any:
    settings = search.settings
    seed = (settings.seed * 1_000_003 + number) % 2**32
    if settings.algorithm == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=settings.startup)


def _distribution(optuna: Any, dimension: Dimension) -> Any:
    if not isinstance(dimension, Between):
        return optuna.distributions.CategoricalDistribution(dimension.values)
    whole = isinstance(dimension.low, int) and isinstance(dimension.high, int)
    kinds = optuna.distributions
    if whole:
        return kinds.IntDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step or 1)
    return kinds.FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)


def _check(search: Search) -> None:
    """Raise ConfigError where a trial cannot be, as far as the ends of what is searched say; MissingDataError."""
    corners = search.corners()
    datasets: dict = {}
    for values in corners[:: math.ceil(len(corners) / MOST_CHECKED)]:
        try:
            job = search.job(values)
            _require_validation(job)
            check([run for run in _runs(job) if not is_done(run)][:1], datasets=datasets)
        except ConfigError as error:
            raise ConfigError(f"{error} (in {' '.join(search.words(values))})") from error


def _require_validation(job: Job) -> None:
    headline = job.config.metrics.headline
    if headline is None or not headline.startswith("valid"):
        raise ConfigError(
            "hydra/sweeper=optuna goes by metrics.headline, which must be of a validation split: expected "
            f"metrics.headline=valid/accuracy and dataset.valid_size=N, got metrics.headline={headline or 'null'}"
        )


def _runs(job: Job) -> list:
    return [as_started(run) for run in requested(job.config, job.words)]


def _value(search: Search, values: dict[str, Any], said: str) -> float | None:
    """The headline of a trial's run, of several seeds the mean; None where it failed or cannot be, which is said."""
    try:
        job = search.job(values)
    except ConfigError as error:
        print(f"left out: {said}: {error}")
        return None
    try:
        if not train_job(job):
            return None
    except ConfigError as error:
        print(f"left out: {said}: {error}")
        return None
    except FAILURES as error:
        if job.config.tracebacks:
            raise
        complain(error, FAILED)
        return None
    found = [json.loads((run.folder / "summary.json").read_text())["headline"]["value"] for run in _runs(job)]
    if any(value is None for value in found):
        print(f"left out: {said}: its headline is undefined")
        return None
    return fmean(found)
