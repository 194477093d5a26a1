"""A run that goes on with other machine keys than it began with: its bits may depend on them, so it says so. Where its
configuration is gone, it is written again."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from nclab.config.keys import KEPT_ON_RESUME
from nclab.config.schema import RunConfig
from nclab.config.stored import stored_run, to_yaml
from nclab.system.atomic import write_atomic


def move(config: RunConfig) -> str | None:
    """Store the typed keys on which the bits of a begun run may depend in its config.yaml, or the whole configuration
    where that is gone; returns what is to be said of it, None where nothing changed."""
    file = config.folder / "config.yaml"
    if not file.exists():
        write_atomic(file, to_yaml(config))
        return "has its config.yaml written again, by the command: config.yaml was gone"
    if not (typed := [key for key in KEPT_ON_RESUME if key in config.explicit]):
        return None
    started = stored_run(file)
    if not (changed := changes(started, config, typed)):
        return None
    write_atomic(file, to_yaml(replace(started, **changed)))
    return said(started, changed)


def changes(started: RunConfig, config: RunConfig, keys: Iterable[str] = KEPT_ON_RESUME) -> dict[str, Any]:
    """The keys of a run that goes on with which it did not start, and their new values."""
    return {key: value for key in keys if (value := getattr(config, key)) != getattr(started, key)}


def said(started: RunConfig, changed: dict[str, Any]) -> str:
    """The warning of changes."""
    pairs = ", ".join(f"{key}={new} in the place of {getattr(started, key)}" for key, new in changed.items())
    return f"goes on with {pairs}, as the command says; its numbers may differ in rounding"
