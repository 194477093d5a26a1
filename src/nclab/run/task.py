"""The jobs of a command line: which of them can be, and training them one after the other."""

import sys
from collections.abc import Iterable

from nclab.config.schema import ConfigError
from nclab.config.sweep import Job, Planned, Words, left_out
from nclab.run.execute import check, is_done, train, train_seeds
from nclab.run.exit import BAD, BAD_INPUT, FAILED, complain
from nclab.run.started import as_started, requested
from nclab.system.signals import Stopped, StopSignals
from nclab.training.fit import FAILURES


def possible(plan: Planned) -> list[Job]:
    """The jobs of a sweep that fit their dataset and network; what skip_invalid=true leaves out is said.

    Raises ConfigError for the first one that does not fit, or where none does, and MissingDataError.
    """
    here = plan.launcher != "slurm"
    datasets: dict = {}
    fitting, wrong = [], dict(plan.wrong)
    for job in plan.jobs:
        try:
            new = [run for run in map(as_started, requested(job.config, job.words)) if not is_done(run)]
            check(new[:1], here, datasets)  # seeds are alike
            fitting.append(job)
        except ConfigError as error:
            if not plan.skip_invalid:
                raise (left_out(error, job.words, plan) if len(plan.jobs) > 1 else error) from error
            wrong[job.words] = error
    if not fitting:
        raise next(iter(wrong.values()))
    _say_left_out(plan, wrong)
    return fitting


def _say_left_out(plan: Planned, wrong: dict[Words, ConfigError]) -> None:
    """A line a reason, and one a key that an option has not."""
    for (option, key), number in plan.merged.items():
        print(f"left out: {key} with {option}, which has no such key ({number} combinations)")
    reasons: dict[str, list[str]] = {}
    for words, error in wrong.items():
        reasons.setdefault(str(error), []).append(" ".join(word for word in words if word not in plan.fixed))
    for reason, runs in reasons.items():
        more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
        print(f"left out: {runs[0]}{more}: {reason}")


def train_jobs(jobs: Iterable[Job]) -> bool:
    """Train one job after the other; whether all went well. A run that fails is said, and the others are tried.

    Leaves by SystemExit where a job turns out to be wrong input, or a signal came.
    """
    well = True
    for job in jobs:
        try:
            well = _trained(job) and well
        except BAD as error:
            if job.config.debug:
                raise
            sys.exit(complain(error, BAD_INPUT))  # wrong input ends a sweep at once
        except FAILURES as error:
            if job.config.debug:
                raise
            complain(error, FAILED)
            well = False
        except Stopped as stopped:  # a sweep stops too
            sys.exit(complain(stopped, stopped.exit_code))
    return well


def _trained(job: Job) -> bool:
    """False where some of its seeds failed, which is said."""
    with StopSignals() as stop:
        stop.check()
    configs = requested(job.config, job.words)
    if job.config.seeds is None:
        train(configs[0])
        return True
    ended = train_seeds(configs)
    for folder, error in ended.items():
        if error is not None:
            complain(error, FAILED, f"{folder.name}: ")
    return not any(ended.values())
