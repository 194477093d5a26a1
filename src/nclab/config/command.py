"""The words of a command line, checked before Hydra acts on them: by itself it would take a group that is set to
nothing for a bug of ours, do things that nobody asked for, and open a pickle."""

import argparse
import re
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import yaml
from hydra._internal.utils import get_args_parser  # private: tests/test_command_line.py holds Hydra to it
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from nclab.config.composing import parsed
from nclab.config.docs import help_text
from nclab.config.hints import all_keys, as_override
from nclab.config.place import CONF
from nclab.config.schema import GROUPS, ConfigError, load_named
from nclab.interfaces.valid import unknown
from nclab.system.redact import redact

# Keys by which Hydra would write beside the run folder.
PLACES = re.compile(r"hydra[./](run|sweep|output_subdir|job\.chdir|job_logging|hydra_logging)([./].*)?")
# Hydra's own keys that are used here; any other would do nothing.
USED = re.compile(r"hydra(/launcher|\.launcher(\..+)?|\.mode|/sweeper|\.sweeper\..+|\.searchpath|/help|\.help(\..+)?)")
LAUNCHERS = ("basic", "local", "slurm")  # options of hydra/launcher
SWEEPERS = ("basic", "optuna")  # of hydra/sweeper

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
            raise _with_secret(word)
    if redact(line := " ".join(words)) != line:  # --password x: two words
        raise _with_secret(line)
    _refuse_keys_as_options(words)
    parser = get_args_parser()
    parser.error = partial(_refuse, words)
    for action in parser._actions:
        if "--version" in action.option_strings:
            action.version = f"nclab {version('nclab')}"  # instead of Hydra's
    args = parser.parse_intermixed_args(words)  # options anywhere among the overrides
    if args.experimental_rerun is not None:  # Hydra unpickles that file
        raise ConfigError(
            f"--experimental-rerun reads a pickle, which may run any code; got {args.experimental_rerun}. "
            "resume=FOLDER goes on with a run"
        )
    if args.config_path is not None:
        raise ConfigError(f"--config-dir FOLDER adds YAML files of yours; leave out --config-path {args.config_path}")
    args.only_shows = bool(args.help or args.hydra_help or args.shell_completion or args.cfg or args.info)
    asked = {"--run": args.run, "--multirun": args.multirun, "--cfg": args.cfg, "--info": args.info}
    if len(several := [option for option, value in asked.items() if value]) > 1:
        raise ConfigError(f"expected one of {', '.join(asked)}; got {' and '.join(several)}")
    if args.resolve and not (args.cfg or args.help):
        raise ConfigError("--resolve goes with --cfg or --help; leave it out")
    if args.package is not None and not args.cfg:
        raise ConfigError(f"--package goes with --cfg; leave out --package {args.package}")
    if args.hydra_help or args.shell_completion:
        return args
    overrides = parsed(args.overrides)
    load_named(named_plugins(overrides))  # before Hydra composes: it must know the options that they bring
    if not any(override.key_or_group == "plugins" for override in overrides):  # which takes the place of a file's
        _load_named_in_files(args, overrides)
    if not args.help:
        for override in overrides:
            check_word(override)
    return args


def _with_secret(words: str) -> ConfigError:
    return ConfigError(f"expected no secret among the words of the command, got {redact(words)}; leave it out")


def options_first(words: list[str], overrides: list[str]) -> list[str]:
    """The words as Hydra's own parser wants them, which takes no option behind an override."""
    left = list(words)
    for word in overrides:
        left.remove(word)
    return [*left, *overrides]


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


def _load_named_in_files(args: argparse.Namespace, overrides: list[Override]) -> None:
    """Import the plug-ins that the YAML files of `experiment=NAME` and --config-name list: the options that they bring
    may be chosen in the same file. A file that cannot be read is left to Hydra, which says why."""
    names = [f"{args.config_name}.yaml"] if args.config_name else []
    for override in overrides:
        if override.key_or_group == "experiment" and not override.is_delete():
            chosen = override.sweep_string_iterator() if override.is_discrete_sweep() else [override.value()]
            names += [f"experiment/{name}.yaml" for name in chosen]
    folders = [CONF, *([Path(args.config_dir)] if args.config_dir else [])]
    for file in (folder / name for name in names for folder in folders):
        with suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
            tree = yaml.safe_load(file.read_text(encoding="utf-8"))
            if isinstance(tree, dict) and isinstance(tree.get("plugins"), list):
                load_named(tree["plugins"], str(file))


def check_word(override: Override) -> None:
    """Raise ConfigError for a word that would do something else than it says."""
    key, line = override.key_or_group, override.input_line
    if not key:
        raise ConfigError(f"expected KEY=VALUE, got '{line}'")
    if key == "paper":
        raise ConfigError(f"paper is written by nclab-paper, which trains the runs of a paper; leave out {line}")
    if override.is_hydra_override() or key == "hydra":
        _check_hydra(override)
    elif key in GROUPS and not override.is_delete() and not override.is_sweep_override():
        value = override.value()
        if not isinstance(value, str):
            raise ConfigError(f"{key} must be one of {', '.join(GROUPS[key].names())}; got {line}")
    elif (
        key in {f"{group}.name" for group in GROUPS} and not override.is_delete() and isinstance(override.value(), str)
    ):
        group = key.partition(".")[0]
        raise ConfigError(f"{group} is chosen by its option: expected {group}={override.value()}, got {line}")
    elif key.startswith("experiment."):
        raise ConfigError(f"experiment is the name of a file in conf/experiment and has no keys; leave out {line}")
    elif key == "experiment" and (override.value() is None or isinstance(override.value(), int | float)):
        raise ConfigError(f"experiment must be the name of a file in conf/experiment, or be left out; got {line}")


def _check_hydra(override: Override) -> None:
    key, line = override.key_or_group, override.input_line
    if PLACES.fullmatch(key):
        raise ConfigError(f"a run writes to output_root/experiment_name/RUN and nowhere else; leave out {line}")
    if not USED.fullmatch(key) or override.is_delete():
        raise ConfigError(
            "of Hydra's own keys hydra/launcher, hydra.launcher.*, hydra.mode, hydra/sweeper, hydra.sweeper.* and "
            f"hydra.searchpath mean something here; leave out {line}"
        )
    if override.is_sweep_override() and not key.startswith("hydra.sweeper.params."):
        raise ConfigError(f"a sweep has one {key} for all its runs; got {line}")
    for own, valid in (("hydra/launcher", LAUNCHERS), ("hydra/sweeper", SWEEPERS)):
        if key == own and override.value() not in valid:
            raise ConfigError(unknown(key, override.value(), valid))


def _refuse_keys_as_options(words: list[str]) -> None:
    """Raise ConfigError for --epochs 5, which is written epochs=5; also where argparse would take it for an option
    whose name begins so."""
    for word in words:
        name = word[2:].partition("=")[0].replace("-", "_")
        if word.startswith("--") and name == "config":
            raise ConfigError(
                "unknown option --config; write experiment=NAME for a file in conf/experiment, --config-name NAME for "
                "one beside train.yaml, --config-dir FOLDER for files of yours"
            )
        if word.startswith("--") and name in {*all_keys(), *GROUPS, "experiment"}:
            _refuse(words, f"unrecognized arguments: {word}")


def _refuse(words: list[str], message: str) -> NoReturn:
    unknown_option = re.match(r"unrecognized arguments: (-\S+)", message)
    if unknown_option and unknown_option[1] in words:
        at = words.index(unknown_option[1])
        if hint := as_override(words[at], words[at + 1] if at + 1 < len(words) else None):
            raise ConfigError(f"unknown option {words[at]}; write {hint} (--help shows keys and options)")
    raise ConfigError(f"{message} (--help shows keys and options)")
