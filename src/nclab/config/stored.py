"""config.yaml of a run folder: what is stored of a run, and how it is read: literally, for it was resolved before."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nclab.config.checks import ConfigError, literal
from nclab.config.keys import not_of_its_folder, with_later_keys
from nclab.config.schema import GROUPS, RunConfig, load_named, typed
from nclab.system.redact import redacted


def stored_config(path: Path) -> dict[str, Any]:
    """What config.yaml of a run folder holds. Raises ConfigError for a file that is no such configuration."""
    try:
        tree = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines())
        raise ConfigError(f"{path} cannot be read: expected the configuration of a run, got {reason}") from None
    if isinstance(tree, dict):
        tree = with_later_keys(tree)
        if isinstance(tree["plugins"], list):
            load_named(tree["plugins"], f"{path}")
    missing = [group for group in GROUPS if not isinstance(tree, dict) or group not in tree]
    if missing:
        came = f"none of {', '.join(missing)}" if isinstance(tree, dict) else type(tree).__name__
        raise ConfigError(f"{path} cannot be read: expected the configuration of a run, got {came}")
    if changed := not_of_its_folder(path, tree):
        raise ConfigError(changed)
    return tree


def stored_run(path: Path) -> RunConfig:
    """The run in config.yaml of its folder, checked as if it were typed. Raises ConfigError."""
    return _checked_tree(path, stored_config(path))


def stored_keys(path: Path, names: Iterable[str]) -> dict[str, Any]:
    """Of keys outside groups those that config.yaml of a run folder holds, checked as if they were typed, whatever else
    it holds. Raises ConfigError."""
    tree = stored_config(path)
    there = {name: tree[name] for name in names if name in tree}
    run = _checked_tree(path, RunConfig().keys() | there)
    return {name: getattr(run, name) for name in there}


def _checked_tree(path: Path, tree: dict[str, Any]) -> RunConfig:
    try:
        return typed(OmegaConf.create(literal(tree)))
    except (ConfigError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from None


def to_yaml(c: RunConfig) -> str:
    """What config.yaml holds: the run, without secrets, the wish to resume or overwrite it, and the seeds beside it."""
    folders = {"output_root": c.output_root, "data_root": c.data_root}  # what is read back must be what it was
    unasked = {"resume": None, "overwrite": False, "seeds": None, "skip_invalid": False}
    kept = {**redacted(c.keys()), **folders, **unasked}
    return yaml.safe_dump(kept, sort_keys=False)
