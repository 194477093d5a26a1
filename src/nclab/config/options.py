"""The options of every group: a YAML file of conf/, of a plug-in's conf/ folder or an entry's settings.

So that a plug-in needs no YAML file: `model=mine` composes from the settings that `MODELS.add("mine", ...)` named.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from nclab.config.place import CONF
from nclab.config.schema import GROUPS, load_named
from nclab.interfaces.plugins import conf_folders

_own: ContextVar[Path | None] = ContextVar("folder of --config-dir", default=None)


@contextmanager
def searching(folder: Path | None) -> Iterator[None]:
    """A context in which Hydra, once it is initialised, searches this folder too; also for --config-name, which it does
    not look for in hydra.searchpath."""
    token = _own.set(folder)
    try:
        yield
    finally:
        _own.reset(token)


def offer_options() -> list[Path]:
    """Make every entry that has no YAML file an option of its group in Hydra; returns the folders in which Hydra must
    search too: the plug-ins' conf/ and the user's own. Raises ConfigError for an installed plug-in that cannot be
    imported."""
    load_named([])
    folders = conf_folders()
    store = ConfigStore.instance()
    for group, registry in GROUPS.items():
        for name in registry.names():
            if not any((folder / group / f"{name}.yaml").is_file() for folder in (CONF, *folders)):
                store.store(name, defaults(name, registry[name].settings), group=group, provider="nclab")
    own = _own.get()
    return folders if own is None else [*folders, own.resolve()]


def defaults(name: str, settings: type) -> dict[str, Any]:
    """What the YAML file of an entry holds: every key at its default; one without a default must be given.

    >>> from nclab.models import MODELS
    >>> defaults("mine", MODELS["rn"].settings)["name"], defaults("mine", MODELS["rn"].settings)["blocks"]
    ('mine', 5)
    """
    found = {field.name: _default(field) for field in dataclasses.fields(settings)}
    return {**found, "name": name}


def _default(field: dataclasses.Field) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return "???" if field.default_factory is dataclasses.MISSING else field.default_factory()
