"""A registry finds its entries by importing every module of one package, of the papers' wings and of plug-ins.

So that a new dataset, model, policy, loss, sampler, metric or tracker is one Python file, which registers itself,
in the core, in a wing or in a user's own package. Nothing else in the house changes.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nclab.interfaces.plugins import PluginError, load_installed
from nclab.interfaces.valid import unknown


@dataclass(frozen=True)
class Entry:
    """What one name stands for: the typed settings it accepts and the function or class that builds it."""

    settings: type  # a dataclass; its fields are the keys of the YAML file
    build: Callable[..., Any]


class Registry:
    """Names of one kind of thing, collected from the modules of `package`, of the wings and of plug-ins.

    >>> models = Registry("model", "nclab.models")
    >>> models["mlp"].settings.__name__
    'MLPSettings'
    """

    def __init__(self, kind: str, package: str):
        self.kind = kind
        self.package = package
        self._entries: dict[str, Entry] = {}

    def add(self, name: str, settings: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator: register the decorated builder under `name`.

        A definition that is executed again, as in a notebook, takes the place of its former self.

        Raises:
            PluginError (a ValueError): Another builder has this name already; the message names both modules.
        """

        def register(build: Callable[..., Any]) -> Callable[..., Any]:
            before = self._entries.get(name)
            if before is not None and _place(before.build) != _place(build):
                raise PluginError(
                    f"{self.kind} '{name}' is registered twice: by {before.build.__module__} and by {build.__module__}"
                )
            self._entries[name] = Entry(settings, build)
            return build

        return register

    def names(self) -> list[str]:
        """All registered names, sorted."""
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(getattr(package, "__path__", [])):  # a single module registers on import
            importlib.import_module(f"{self.package}.{module.name}")
        load_installed()
        return sorted(self._entries)

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:  # known ones need no look at the packages: every evaluation asks for its suites
            names = self.names()
            if name not in names:
                raise KeyError(unknown(self.kind, name, names))
        return self._entries[name]


def _place(build: Callable[..., Any]) -> tuple[str, str]:
    return build.__module__, getattr(build, "__qualname__", repr(build))
