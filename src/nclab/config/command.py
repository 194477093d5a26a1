"""The words of a command line, checked before Hydra acts on them: by itself it would write files of its own before we
see a wrong value, take a group that is set to nothing for a bug of ours, and open a pickle."""

import argparse
import re
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import NoReturn

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser  # private: tests/test_command_line.py holds Hydra to it
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from nclab.config.docs import help_text
from nclab.config.schema import GROUPS, ConfigError, RunConfig, load_named, typed
from nclab.system.redact import redact

# Keys by which Hydra writes beside the run folder, or goes elsewhere before it calls us.
PLACES = re.compile(r"hydra[./](run|sweep|output_subdir|job\.chdir|job_logging|hydra_logging)([./].*)?")

HOME = re.compile(r"(?<=[=,])~(/[^,'\"\[\]{}]*)?(?=,|$)")


def with_home_quoted(words: list[str]) -> list[str]:
    """The words with quotes around values such as ~/data, which no shell expands there and Hydra's grammar refuses.

    >>> with_home_quoted(["dataset.path=~/a.npz,b.npz", "~hydra/launcher"])
    ["dataset.path='~/a.npz',b.npz", '~hydra/launcher']
    """
    return [word if {"'", '"'} & set(word) else HOME.sub(lambda found: f"'{found[0]}'", word) for word in words]


OmegaConf.register_new_resolver("nclab_help", help_text, replace=True)  # conf/hydra/help/nclab.yaml puts it into --help


def arguments(words: list[str]) -> argparse.Namespace:
    """The options and overrides of a command line. Raises ConfigError for words that Hydra must not see."""
    for word in words:  # Hydra and trackers store the command line, and everyone on the machine can see it
        if redact(word) != word:
            raise ConfigError(f"expected no secret among the words of the command, got {redact(word)}; leave it out")
    parser = get_args_parser()
    parser.error = _refuse
    args = parser.parse_args(words)
    if args.experimental_rerun is not None:  # Hydra unpickles that file
        raise ConfigError(
            f"--experimental-rerun reads a pickle, which may run any code; got {args.experimental_rerun}. "
            "resume=FOLDER goes on with a run"
        )
    if args.hydra_help or args.shell_completion:
        return args
    overrides = OverridesParser.create().parse_overrides(args.overrides)
    load_named(named_plugins(overrides))  # before Hydra composes: it must know the options that they bring
    if not args.help:
        for override in overrides:
            _check(override)
            # Hydra would ignore it, and train here.
            if override.key_or_group == "hydra/launcher" and not (args.multirun or args.cfg or args.info):
                raise ConfigError(f"a launcher starts sweeps: expected -m (--multirun) beside {override.input_line}")
    return args


@dataclass
class Sweep:
    """The jobs of a sweep, by their overrides, and the launcher (conf/hydra/launcher) that will be given them."""

    configs: dict[tuple[str, ...], RunConfig] = field(default_factory=dict)
    launcher: str = "basic"


def sweep(args: argparse.Namespace, conf: Path) -> Sweep:
    """The checked configuration of every job of a sweep. Raises as `arguments` and `typed` do, and what Hydra raises.

    None where the command line brings a configuration folder of its own: then each job is checked as it comes.
    """
    if not args.multirun or args.config_dir or args.config_name or args.config_path or args.cfg or args.info:
        return Sweep()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf)):
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        parsed = parser.parse_overrides(args.overrides)
        overrides = [o for o in parsed if not o.is_hydra_override()]
        of_hydra = [o.input_line for o in parsed if o.is_hydra_override()]
        jobs = split(overrides)
        if not jobs:
            raise ConfigError(f"the sweep has no run: expected at least one value of each key, got {args.overrides}")
        for job in jobs:
            for override in parser.parse_overrides(job):
                _check(override)
        first = compose("train", [*of_hydra, *jobs[0]], return_hydra_config=True)
        return Sweep(
            {tuple(job): typed(compose("train", job)) for job in jobs}, first.hydra.runtime.choices["hydra/launcher"]
        )


def split(overrides: list[Override]) -> list[list[str]]:
    """The overrides of every job of a sweep, in the words of Hydra's own sweeper, which hands them to a launcher."""
    choices: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_discrete_sweep():
            choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        elif override.is_sweep_override():
            raise ConfigError(f"a sweep needs values that can be listed, as 1,2 or range(3); got {override.input_line}")
        else:
            choices[key] = [f"{key}={override.get_value_element_as_str()}"]
    return [list(job) for job in product(*choices.values())]


def named_plugins(overrides: list[Override]) -> list[str]:
    """The modules that the key `plugins` of a command line names."""
    for override in reversed(overrides):
        if override.key_or_group == "plugins" and not override.is_delete():
            names = None if override.is_sweep_override() else override.value()
            if not isinstance(names, list):
                raise ConfigError(
                    "plugins must be a list of modules such as [my_package], the same for all runs of a sweep; "
                    f"got {override.input_line}"
                )
            return [str(name) for name in names]
    return []


def _check(override: Override) -> None:
    key, line = override.key_or_group, override.input_line
    if not key:
        raise ConfigError(f"expected KEY=VALUE, got '{line}'")
    if key == "paper":
        raise ConfigError(f"paper is written by nclab-paper, which trains the runs of a paper; leave out {line}")
    if PLACES.fullmatch(key):
        raise ConfigError(f"a run writes to output_root/experiment_name/RUN and nowhere else; leave out {line}")
    if key in GROUPS and not override.is_delete() and not override.is_sweep_override():
        value = override.value()
        if not isinstance(value, str):
            raise ConfigError(f"{key} must be one of {', '.join(GROUPS[key].names())}; got {line}")
    elif key == "experiment" and (override.value() is None or isinstance(override.value(), int | float)):
        raise ConfigError(f"experiment must be the name of a file in conf/experiment, or be left out; got {line}")


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message} (--help shows keys and options)")
