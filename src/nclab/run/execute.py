"""Train configurations: one, or several seeds in one process. Each run is checked, built, fitted and finished in its
folder; the same call again skips a finished run and resumes an interrupted one."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nclab.config.checks import as_config_error
from nclab.config.keys import KEPT_ON_RESUME
from nclab.config.schema import RunConfig
from nclab.data import Dataset, data_root
from nclab.parallel.group import joined, refuse_several, world_size
from nclab.run.build import built, fit_for_several, loaded, opened, prepared, require_tracker
from nclab.run.longer import parent_of
from nclab.run.moved import move
from nclab.run.started import as_started, on_this_machine
from nclab.run.summary import finish
from nclab.run.trial import trial_size
from nclab.runfolder.checkpoint import to_stderr
from nclab.runfolder.display import Display, SeedsDisplay
from nclab.runfolder.provenance import provenance
from nclab.system.redact import redacted
from nclab.system.signals import StopSignals
from nclab.system.written import is_finished
from nclab.training.fit import FAILURES, Fit
from nclab.training.seeds import Member, train_all
from nclab.training.stack import stacked_run
from nclab.training.step import PRECISIONS


def train(config: RunConfig, tell: bool = False) -> Path:
    """Train one configuration, or resume or skip it; returns its folder. Nothing is written before all is checked.
    `tell`: the terminal shows the configuration first.

    Raises ConfigError, MissingDataError (wrong input), Diverged, RecordError, RunLocked, OSError (a run that failed),
    Stopped (by a signal, and saved).
    """
    as_config_error(world_size)
    with joined() as world:
        begun = world.broadcast_call(partial(as_started, config))
        if world.broadcast_call(partial(_skipped, begun)):
            return begun.folder
        with world.raise_everywhere():
            fit_for_several(begun, world)
            dataset = prepared(on_this_machine(begun), world)
        # Now: the source tree may change while the run trains.
        origin = provenance(begun.device, begun.threads) if world.first else {}
        display = Display(begun.folder.name, begun.epochs, keys=told(begun) if tell else None)
        with StopSignals() as stop, opened(begun, dataset, display, stop, world) as fit:
            if fit is not None:
                result = fit.run()
                with world.raise_everywhere():
                    finish(begun, fit, result, origin)
        return begun.folder


def told(config: RunConfig) -> dict[str, Any]:
    """The keys that the terminal shows, without secrets: not those that are written by commands, where they are not
    set, nor those of the wish to resume or overwrite."""
    unset = {key for key in ("paper", "parent", "parent_epochs") if getattr(config, key) is None}
    hidden = {"resume", "overwrite", "skip_invalid", "seeds", "print_config", *unset}
    return {key: value for key, value in redacted(config.keys()).items() if key not in hidden}


def train_seeds(configs: list[RunConfig]) -> dict[Path, Exception | None]:
    """Train configurations that differ in their seed alone in one process; returns why each failed, by folder.

    Each is finished, resumed and skipped in its own folder as if it were trained alone, and one that fails (as `train`
    raises it) costs no other. Raises ConfigError and MissingDataError before anything is written, and Stopped.
    """
    as_config_error(refuse_several, "seeds=[...] trains in one process")
    ended: dict[Path, Exception | None] = {}
    alike: dict[str, list[RunConfig]] = {}
    for config in map(as_started, configs):
        if _skipped(config):
            ended[config.folder] = None
        else:  # a run that was begun with other threads, say, goes on with them, and then not beside the others
            machine = {key: vars(on_this_machine(config))[key] for key in KEPT_ON_RESUME}
            alike.setdefault(repr(machine), []).append(config)
    for group in alike.values():
        ended |= _train_alike(group)
    return ended


def _train_alike(configs: list[RunConfig]) -> dict[Path, Exception | None]:
    first = configs[0]
    dataset = prepared(first)
    origin = provenance(first.device, first.threads)
    display = SeedsDisplay(f"{first.stem}, seeds {', '.join(str(c.seed) for c in configs)}", first.epochs)
    ended: dict[Path, Exception | None] = {}
    runs: dict[Fit, tuple[RunConfig, ExitStack]] = {}  # what is open
    members = []

    def failed(config: RunConfig, error: Exception) -> None:
        if config.tracebacks:
            raise error
        display.say(f"  seed {config.seed} failed: {error}")
        ended[config.folder] = error

    with StopSignals() as stop, ExitStack() as all_runs:
        for config in configs:
            run = all_runs.enter_context(ExitStack())
            try:
                fit = run.enter_context(opened(config, dataset, display.of(config.seed), stop))
            except FAILURES as error:
                failed(config, error)
                continue
            if fit is None:
                ended[config.folder] = None
            else:
                members.append(Member(fit))
                runs[fit] = config, run
        if members:
            all_runs.enter_context(display)
        for fit, outcome in train_all(members, stacked_run(first.precision, first.compile), display.flush):
            config, run = runs[fit]
            try:
                with run:  # closed now: the others have long to go
                    if isinstance(outcome, Exception):
                        raise outcome
                    finish(config, fit, outcome, origin)
                ended[config.folder] = None
            except FAILURES as error:
                failed(config, error)
    return ended


def _skipped(config: RunConfig) -> bool:
    """Whether the run is finished already, which is said. Without its configuration nobody could read it."""
    if done := is_done(config):
        print(f"already finished: {config.folder}")
        if not (config.folder / "config.yaml").exists() and (said := move(on_this_machine(replace(config)))):
            to_stderr(f"{config.folder.name} {said}")
    return done


def is_done(config: RunConfig) -> bool:
    """Whether the run is finished, and is not to begin again."""
    return is_finished(config.folder) and not config.overwrite


def check(configs: Iterable[RunConfig], here: bool = True, datasets: dict[str, Dataset] | None = None) -> None:
    """Raise what `train` would raise for values that do not fit one another or the dataset, and for a tracker or a
    parent that cannot be had, without training: models are built without memory for their weights.

    here: on this machine, with its devices. datasets: those that several calls share, each loaded once.
    """
    datasets = {} if datasets is None else datasets
    for config in configs:
        if here:
            on_this_machine(replace(config))
        floats, few = PRECISIONS[config.precision].floats, config.trial and trial_size(config)
        key = repr((config.dataset, config.data_root, config.metrics.ood_dataset, floats, few))
        if key not in datasets:
            datasets[key] = loaded(config, str(data_root(config.data_root)), "cpu")
        built(config, datasets[key], "meta")
        require_tracker(config)
        parent_of(config)
