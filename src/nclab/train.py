"""The one entrypoint: compose, check, build, fit, summarise.

    python -m nclab.train dataset=mnist5k etf=last_k etf.k=2          one run
    python -m nclab.train etf=last_k seeds=[0,1,2]                    three runs in one process
    python -m nclab.train --multirun etf=last_k etf.k=1,2,3 seed=0,1  a sweep
    torchrun --nproc-per-node=4 -m nclab.train model=vit              one run on four GPUs, or four CPU processes
    python -m nclab.train --help                                      every group and key

The same command again skips a finished run and resumes an interrupted one.
"""

import os
import sys
import time
import traceback
from collections.abc import Iterable
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nclab.config.command import PLANNED, arguments, sweep
from nclab.config.schema import KEPT_ON_RESUME, ConfigError, RunConfig, resolve_machine, stored_config, typed
from nclab.data import Dataset, MissingDataError, data_root, load_dataset
from nclab.parallel.group import PeerLost, is_first, joined, refuse_several, world_size
from nclab.run.build import as_config_error, built, finish, fit_for_several, opened, prepared
from nclab.runfolder import checkpoint
from nclab.runfolder.display import Display, SeedsDisplay
from nclab.runfolder.folder import provenance
from nclab.system.machine import OutOfMemory
from nclab.system.redact import masked_terminal
from nclab.system.signals import Stopped, StopSignals
from nclab.training.fit import FAILURES
from nclab.training.seeds import Member, batched_forward, train_all

HERE = Path(__file__).resolve().parent
CONF = next(p for p in (HERE.parents[1] / "conf", HERE / "conf") if (p / "train.yaml").exists())
BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
BAD = (ConfigError, MissingDataError, HydraException, OmegaConfBaseException)


def train(config: RunConfig) -> Path:
    """Train one configuration, or resume or skip it; returns its folder. Nothing is written before all is checked.

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
            dataset = prepared(resolve_machine(begun), world)
        # Now: the source tree may change while the run trains.
        origin = provenance(begun.device, begun.threads) if world.first else {}
        display = Display(begun.folder.name, begun.epochs)
        with StopSignals() as stop, opened(begun, dataset, display, stop, world) as fit:
            if fit is not None:
                with display:
                    result = fit.run()
                with world.raise_everywhere():
                    finish(begun, fit, result, origin)
        return begun.folder


def train_together(configs: list[RunConfig]) -> dict[Path, Exception | None]:
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
            machine = {key: vars(resolve_machine(config))[key] for key in KEPT_ON_RESUME}
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
    runs: dict[Path, tuple[RunConfig, ExitStack]] = {}  # what is open
    members = []

    def failed(config: RunConfig, error: Exception) -> None:
        if config.debug:
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
                runs[fit.folder.path] = config, run
        if members:
            all_runs.enter_context(display)
        for fit, outcome in train_all(members, batched_forward(first.precision, first.compile), display):
            config, run = runs[fit.folder.path]
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
    """Whether the run is finished already, which is said."""
    if done := _done(config):
        print(f"already finished: {config.folder}")
    return done


def _done(config: RunConfig) -> bool:
    return (config.folder / "DONE").exists() and not config.overwrite


def check(configs: Iterable[RunConfig], here: bool = True) -> None:
    """Raise what `train` would raise for values that do not fit one another or the dataset, without training: each
    dataset is loaded once, models are built without memory for their weights. here: on this machine, with its devices.
    """
    datasets: dict[str, Dataset] = {}
    for config in configs:
        if here:
            resolve_machine(replace(config))
        key = repr((config.dataset, config.data_root))
        if key not in datasets:
            root = str(data_root(config.data_root))
            datasets[key] = as_config_error(load_dataset, config.dataset, root, "cpu")
        with torch.device("meta"):
            built(config, datasets[key])


def as_started(config: RunConfig) -> RunConfig:
    """The configuration that a run was started with, if it was.

    `resume=FOLDER` takes all of it, whatever conf/ says by now, but for overwrite and a tracker that is named anew.
    A run found by its name has the same identity already; it goes on with the machine keys on which its bits depend.
    """
    stored = config.folder / "config.yaml"
    if config.resume is not None:
        if not stored.exists():
            raise ConfigError(f"resume must name a run folder, one with a config.yaml; got '{config.resume}'")
        started = typed(OmegaConf.create(stored_config(stored)))
        tracker = started.tracker if config.tracker.name == "none" else config.tracker
        return replace(started, resume=config.resume, tracker=tracker, overwrite=config.overwrite)
    if not config.overwrite and checkpoint.exists(config.folder) and stored.exists():
        before = stored_config(stored)
        for key in KEPT_ON_RESUME:
            setattr(config, key, before.get(key, getattr(config, key)))
    return config


def requested(config: RunConfig, overrides: Iterable[str]) -> list[RunConfig]:
    """The runs that a command line asks for: one, or one for each of `seeds`. Raises ConfigError."""
    if config.resume is not None:
        _only_resume(overrides)
    if config.seeds is None:
        return [config]
    if any(_key(override) == "seed" for override in overrides):
        came = f"seed={config.seed} and seeds={config.seeds}"
        raise ConfigError(f"seeds takes the place of seed; leave out one of them; got {came}")
    return [config.of_seed(seed) for seed in config.seeds]


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def _hydra_main(composed: DictConfig) -> str:
    try:
        with StopSignals() as stop:
            stop.check()
        configs = requested(typed(composed), HydraConfig.get().overrides.task)
        if composed.get("seeds") is None:
            return str(train(configs[0]))
        ended = train_together(configs)
    except BAD as error:
        if composed.get("debug") is True:
            raise
        sys.exit(complain(error, BAD_INPUT))  # wrong input ends a sweep at once
    except FAILURES as error:
        if composed.get("debug") is True:
            raise
        _failures.append(complain(error, FAILED))  # the other runs of a sweep are tried
        return ""
    except Stopped as stopped:  # a sweep stops too
        sys.exit(complain(stopped, stopped.exit_code))
    for folder, error in ended.items():
        if error is not None:
            _failures.append(complain(error, FAILED, f"{folder.name}: "))
    return " ".join(map(str, ended))


def main() -> None:
    """Console entry: exit code 0 done, 2 wrong input (one line, nothing written), 1 failed, 128 + n stopped by signal
    n (130 Ctrl-C, 143 TERM), after saving."""
    try:
        _main()
    except SystemExit as end:
        if end.code and os.environ.get("WORLD_SIZE") not in (None, "1"):
            # At once: with another process gone, libraries that tidy up would wait for it.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else FAILED)
        raise


def _main() -> None:
    # Hydra would print a wrong override in its own way and exit with 1; with this set it raises it to us.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    _failures.clear()
    with masked_terminal():
        code = _command()
    if code:
        sys.exit(code)


def _command() -> int:
    """Do what sys.argv says; returns the exit code. A traceback is printed here, where secrets in it are masked."""
    try:
        args = arguments(sys.argv[1:])
        if args.multirun:
            as_config_error(refuse_several, "--multirun starts its runs by itself")
        planned = sweep(args, CONF)
        # All, before the first is trained.
        new = (c for c in planned.configs.values() if c.resume is None and not _done(c))
        check(new, here=planned.launcher != "slurm")
        PLANNED.update(planned.configs)
        # One for all runs of a sweep: a signal that comes when one is just through ends the others too.
        with StopSignals() if args.multirun else nullcontext():
            _hydra_main()
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return INTERRUPTED
    except BAD as error:
        if "debug=true" not in sys.argv:
            return complain(error, BAD_INPUT)
        traceback.print_exc()
        return BAD_INPUT
    except FAILURES as error:
        if "debug=true" not in sys.argv:
            return complain(error, FAILED)
        traceback.print_exc()
        return FAILED
    except Stopped as stopped:
        return complain(stopped, stopped.exit_code)
    except Exception:
        traceback.print_exc()
        return FAILED
    return FAILED if _failures else 0


def _only_resume(overrides: Iterable[str]) -> None:
    """Raise ConfigError for keys that `resume=FOLDER`, whose configuration lies in the folder, would ignore."""
    valid = ("resume", "overwrite", "debug", "tracker")
    ignored = [override for override in overrides if _key(override).split(".")[0] not in valid]
    if ignored:
        raise ConfigError(f"resume=FOLDER takes the folder's configuration; leave out {', '.join(ignored)}")


def _key(override: str) -> str:
    return override.lstrip("+~").split("=")[0]


SECONDS_FOR_THE_FIRST = 30.0  # process of several to say what is wrong
_failures: list[int] = []  # of this process's runs


SAME_COMMAND = "the same command"


def same_command() -> str:
    """What goes on with this one's runs: with overwrite=true it would begin again."""
    return SAME_COMMAND + (" without overwrite=true" if "overwrite=true" in sys.argv else "")


def complain(error: BaseException, code: int, whose: str = "") -> int:
    """The message on one line, with the keys that would have been right where Hydra does not name them."""
    if not is_first():
        if isinstance(error, Stopped) or (isinstance(error, PeerLost) and error.said):
            return code
        if isinstance(error, OutOfMemory):  # of this process, as a rule
            whose = f"process {os.environ['RANK']}: {whose}"
        elif not isinstance(error, PeerLost):
            # The first process has the same to say, as a rule, and its launcher then ends this one. It may still be
            # starting, and would be ended itself if this one left before.
            time.sleep(SECONDS_FOR_THE_FIRST)
    lines = [line.strip() for line in str(error).split("Config search path")[0].splitlines() if line.strip()]
    text = "; ".join(lines) or type(error).__name__
    parent = getattr(error.__cause__, "parent_node", None)
    if isinstance(parent, DictConfig):
        of = f" of '{parent.name}'" if "name" in parent else ""
        text = f"{lines[0]} Valid keys{of}: {', '.join(map(str, parent))}"
    elif parent is not None:  # a list
        text = f"{lines[0]}: expected a list such as {parent}"
    if isinstance(error, OSError) and not isinstance(error, MissingDataError) and code == FAILED:
        text += "; what was saved is kept, the same command resumes"
    text = text.replace(SAME_COMMAND, same_command())
    print(f"error: {whose}{text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
