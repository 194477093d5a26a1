"""Configurations composed from conf/ by Hydra, and what Hydra says of wrong words turned into one plain line."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from nclab.config.checks import ConfigError, NeverValid, UnknownKey, plain_reason
from nclab.config.hints import LAUNCHER, how_to_write, no_option, unknown_key
from nclab.config.options import searching
from nclab.config.schema import GROUPS, RunConfig, typed

ROOT = "train"  # conf/train.yaml
ROOT_KEYS = {field.name for field in fields(RunConfig)} - {*GROUPS}  # epochs, seed, ...: keys outside groups
NOT_THERE = re.compile(r"Could not (?:override|delete from config\.) '([^']+)'")
OF_A_LAUNCHER = re.compile(r"In '([^']+)': .*Key '([^']+)' not in 'BasicLauncherConf'")


@contextmanager
def composing(conf: Path, own: Path | None = None) -> Iterator[None]:
    """A context in which `composed` reads this folder, and behind it the user's own, that of --config-dir."""
    with searching(own), plainly(), initialize_config_dir(version_base="1.3", config_dir=str(conf)):
        yield


def composed(words: Sequence[str], name: str = ROOT) -> DictConfig:
    """The configuration that the words of a command line make, with Hydra's own keys in its node `hydra`. Raises
    ConfigError."""
    try:
        with plainly():
            return compose(name, list(words), return_hydra_config=True)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = " ".join(str(error).split("full_key")[0].split())  # of OmegaConf's own stumbles
        raise ConfigError(f"cannot compose {' '.join(words)}: {reason}") from error


class Composer:
    """What `composed` makes of many command lines, each within a `composing` of the same folders.

    Lines that differ in values alone (`etf.k=2`, `seed=1`) share what they choose. That is composed once, and
    the values are set in a copy, by the function by which Hydra sets them: a fifth of the time. So that none shows in
    another line, what is shared of Hydra's node refers to nothing outside it, and the node is read-only.
    """

    def __init__(self, name: str = ROOT):
        self.name = name
        self._chosen: dict[tuple[str, ...], tuple[DictConfig, dict[int, Any]]] = {}
        self._parsed: dict[str, Override] = {}  # the lines of a plan share most words

    def __call__(self, words: Sequence[str]) -> DictConfig:
        """The configuration of the words, free to be changed but for its node `hydra`. Raises ConfigError."""
        if any("={" in word for word in words):  # several values in one word: the order of the words counts
            return self.chosen(words)
        if not self._parsed.keys() >= set(words):
            self._parsed |= zip(words, parsed(words), strict=True)
        overrides = [self._parsed[word] for word in words]
        values = [override for override in overrides if _is_value(override)]
        choices = tuple(word for word, override in zip(words, overrides, strict=True) if not _is_value(override))
        if choices not in self._chosen:
            chosen = self.chosen(choices)
            OmegaConf.set_readonly(chosen.hydra, True)
            self._chosen[choices] = chosen, _shared(chosen.hydra)
        chosen, shared = self._chosen[choices]
        whole = deepcopy(chosen, shared.copy())
        with plainly():
            ConfigLoaderImpl._apply_overrides_to_config(values, whole)
        _tell(whole.hydra, overrides)
        return whole

    def chosen(self, words: Sequence[str]) -> DictConfig:
        """What Hydra itself composes of the words. Raises ConfigError."""
        return composed(words, self.name)


def _is_value(word: Override) -> bool:
    """Whether it sets one value of the configuration that the other words choose: no group has a dot in its name."""
    plain = not (word.is_delete() or word.is_sweep_override() or word.is_hydra_override())
    return plain and word.package is None and ("." in word.key_or_group or word.key_or_group in ROOT_KEYS)


def _shared(of_hydra: DictConfig) -> dict[int, Any]:
    """The parts of Hydra's node that need no copy, as `deepcopy` takes them. A part that refers to a value does: it
    looks for it in the configuration that it belongs to."""
    nodes = [of_hydra._get_node(key) for key in of_hydra if key not in ("job", "overrides")]  # see _tell
    parts = [node for node in nodes if isinstance(node, DictConfig) and not node._is_none()]
    return {id(node): node for node in parts if "${" not in str(OmegaConf.to_container(node))}


def _tell(of_hydra: DictConfig, overrides: list[Override]) -> None:
    """Tell Hydra's node all words of the line, as Hydra does."""
    own = [override for override in overrides if not override.is_hydra_override()]
    job = of_hydra.job
    with flag_override(of_hydra, "readonly", False):
        of_hydra.overrides.task = [override.input_line for override in own]
        job.override_dirname = get_overrides_dirname(overrides=own, **job.config.override_dirname)


def run_config(whole: DictConfig) -> RunConfig:
    """What `composed` made as a checked configuration. Raises ConfigError."""
    HydraConfig.instance().cfg = whole  # for ${hydra:runtime.choices.model}; `set_config` would copy it first
    try:
        with plainly():
            return typed({key: whole[key] for key in whole if key != "hydra"})
    except UnknownKey as error:
        if error.key == "experiment" and (name := whole.hydra.runtime.choices.get("experiment")):
            first = "expected '# @package _global_' as the first line of the YAML file of"
            raise ConfigError(f"{first} experiment={name}") from error
        said = unknown_key(error.key, _chosen("", whole), error.valid)
        raise UnknownKey(said, error.key, error.valid) from error


def parsed(words: Sequence[str], parser: OverridesParser | None = None) -> list[Override]:
    """The words of a command line by Hydra's grammar. Raises ConfigError that says how to write what it cannot read."""
    parser = parser or OverridesParser.create()
    found = []
    for at, word in enumerate(words):
        try:
            found += parser.parse_overrides([word])
        except HydraException as error:
            raise NeverValid(how_to_write(words, at)) from error
    return found


@contextmanager
def plainly() -> Iterator[None]:
    """A context in which what Hydra and OmegaConf raise becomes a ConfigError of one plain line."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise _plain(error) from error
    except YAMLError as error:
        raise ConfigError(_broken(error)) from error


def _broken(error: YAMLError) -> str:
    """Where a YAML file is broken, and what was expected there."""
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    if mark is None:  # bytes that are no text
        return " ".join(str(error).split())
    reason = " ".join(filter(None, (error.context, error.problem)))
    return f"{mark.name}, line {mark.line + 1}: expected YAML; {reason}"


def _plain(error: Exception) -> ConfigError:
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if group:
            return NeverValid(no_option(group, name, error.options or []))
        return ConfigError(
            f"no configuration '{name}': expected --config-name to name a YAML file beside {ROOT}.yaml or in the "
            "folder of --config-dir"
        )
    lines = [line.strip() for line in str(error).split("Config search path")[0].splitlines() if line.strip()]
    cause = error.__cause__
    parent = getattr(cause, "parent_node", None)
    if lines and (found := NOT_THERE.match(lines[0])) and (parent is None or isinstance(parent, DictConfig)):
        there = [] if parent is None else [str(key) for key in parent if key not in ("name", "hydra", "_target_")]
        return UnknownKey(unknown_key(found[1], _chosen(found[1], parent), there), found[1], there)
    if lines and (found := OF_A_LAUNCHER.match(" ".join(lines))):
        return ConfigError(f"hydra.launcher.{found[2]} in {found[1]}.yaml belongs to a launcher; {LAUNCHER}")
    if isinstance(error, InterpolationKeyError):
        return ConfigError(f"{error.full_key}: {plain_reason(error)}")
    if parent is not None and not isinstance(parent, DictConfig):
        return ConfigError(f"{lines[0]}: expected a list such as {parent}")
    if lines and lines[0].startswith("Error merging override") and cause is not None:  # which says why
        lines = [f"{lines[0].removeprefix('Error merging override ')}: {str(cause).splitlines()[0]}"]
    said = lines or str(cause or type(error).__name__).splitlines()
    return ConfigError(" ".join(line.strip() for line in said if line.strip()))


def _chosen(key: str, parent: DictConfig | None) -> dict[str, str]:
    """The options chosen, as far as the node shows that lacks the key: of all groups at the root, else of its own."""
    if parent is None:
        return {}
    nodes = {key.partition(".")[0]: parent} if "name" in parent else {group: parent.get(group) for group in GROUPS}
    return {group: str(node.get("name")) for group, node in nodes.items() if isinstance(node, DictConfig)}
