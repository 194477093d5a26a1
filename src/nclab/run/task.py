"""The jobs of a command line: which of them can be, and training them one after the other."""

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from nclab.config.schema import ConfigError, RunConfig
from nclab.config.sweep import MOST_TRIED, Job, Planned, Words, never_taken, refused, with_value_of
from nclab.data import MissingDataError
from nclab.run.execute import check, is_done, train, train_seeds
from nclab.run.exit import BAD, BAD_INPUT, FAILED, complain
from nclab.run.started import as_started, requested
from nclab.system.progress import telling
from nclab.system.signals import Stopped, StopSignals
from nclab.system.words import first_of
from nclab.training.fit import FAILURES


def possible(plan: Planned) -> list[Job]:
    """The jobs of a sweep that fit their dataset and network, each run in one of them; what skip_invalid=true leaves
    out is said.

    Raises ConfigError for the first one that does not fit; with skip_invalid=true where none does, and for a value that
    its key takes in none. Raises MissingDataError.
    """
    here = plan.launcher != "slurm"
    datasets: dict = {}

    def fitting(job: Job) -> list[RunConfig]:
        """The job's runs as they were begun."""
        runs = [as_started(run) for run in requested(job.config, job.words)]
        check([run for run in runs if not is_done(run)][:1], here, datasets)  # seeds are alike
        return runs

    def can_be(job: Job) -> bool:
        try:
            return bool(fitting(job))
        except (ConfigError, MissingDataError):
            return False

    fit: list[tuple[Job, list[RunConfig]]] = []
    wrong = dict(plan.wrong)
    for job in telling(plan.jobs, "checked"):
        try:
            fit.append((job, fitting(job)))
        except ConfigError as error:
            if not plan.skip_invalid:
                alike = {*with_value_of(error, job.words, [one.words for one in plan.jobs])}
                others = [one for one in plan.jobs if one is not job and one.words in alike][:MOST_TRIED]
                raise refused(error, job.words, plan, any(map(can_be, others))) from error
            wrong[job.words] = error
    if mistaken := never_taken(wrong, [job.words for job, _ in fit]):
        raise refused(wrong[mistaken], mistaken, plan, others=False)
    if not fit:
        raise next(iter(wrong.values()))
    _say_left_out(plan, wrong, {word for job, _ in fit for word in job.words})
    return _each_once(plan, fit)


def _each_once(plan: Planned, fit: list[tuple[Job, list[RunConfig]]]) -> list[Job]:
    """The jobs without runs of an earlier one, which is said: they differ in keys that are no part of what a run is."""
    first: dict[Path, Job] = {}
    kept = []
    for job, runs in fit:
        new = [run for run in runs if run.folder not in first]
        if len(new) < len(runs):
            held = first[next(run.folder for run in runs if run.folder in first)]
            print(f"left out: {_varied(plan, job.words)}: the same run as {_varied(plan, held.words)}")
        first |= {run.folder: job for run in new}
        if len(new) == len(runs):
            kept.append(job)
        elif new:  # of several seeds
            kept.append(replace(job, config=replace(job.config, seeds=[run.seed for run in new])))
    return kept


def _varied(plan: Planned, words: Words) -> str:
    """The words of a job in which it differs from others."""
    return " ".join(word for word in words if word not in plan.fixed) or " ".join(words)


def _say_left_out(plan: Planned, wrong: dict[Words, ConfigError], trained: set[str]) -> None:
    """A line a key that an option has not, and one a reason. trained: the words of what is trained."""
    for option, key in plan.idle:
        if option in trained:
            print(f"{key} means nothing with {option}, which is trained without it")
    reasons: dict[str, list[str]] = {}
    for words, error in wrong.items():
        reasons.setdefault(str(error), []).append(_varied(plan, words))
    for reason, runs in reasons.items():
        print(f"left out: {first_of(runs, most=1)}: {reason}")


def train_jobs(jobs: Iterable[Job], tell: bool = False) -> bool:
    """Train one job after the other; whether all went well. A run that fails is said, and the others are tried.
    `tell`: the terminal shows the configuration of each.

    Leaves by SystemExit where a job turns out to be wrong input, or a signal came.
    """
    well = True
    for job in jobs:
        try:
            well = train_job(job, tell and job.config.print_config) and well
        except BAD as error:
            if job.config.tracebacks:
                raise
            sys.exit(complain(error, BAD_INPUT))  # wrong input ends a sweep at once
        except FAILURES as error:
            if job.config.tracebacks:
                raise
            complain(error, FAILED)
            well = False
        except Stopped as stopped:  # a sweep stops too
            sys.exit(complain(stopped, stopped.exit_code))
    return well


def train_job(job: Job, tell: bool = False) -> bool:
    """False where some of its seeds failed, which is said."""
    with StopSignals() as stop:
        stop.check()
    configs = requested(job.config, job.words)
    if job.config.seeds is None:
        train(configs[0], tell)
        return True
    ended = train_seeds(configs)
    for folder, error in ended.items():
        if error is not None:
            complain(error, FAILED, f"{folder.name}: ")
    return not any(ended.values())
