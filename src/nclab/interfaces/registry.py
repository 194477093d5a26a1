"""A registry finds its entries by importing every module of one package.

So that a new dataset, model, policy, optimizer, schedule or tracker is one Python file (which registers itself)
and one YAML file of the same name in conf/, and nothing else in the house changes.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """What one name stands for: the typed settings it accepts and the function or class that builds it."""

    settings: type  # a dataclass; its fields are the keys of the YAML file
    build: Callable[..., Any]


class Registry:
    """Names of one kind of thing, collected from the modules of `package`.

    >>> models = Registry("model", "nclab.models")
    >>> models["mlp"].settings.__name__
    'MLPSettings'
    """

    def __init__(self, kind: str, package: str):
        self.kind = kind
        self.package = package
        self._entries: dict[str, Entry] = {}

    def add(self, name: str, settings: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator: register the decorated builder under `name`; a name taken twice raises ValueError."""

        def register(build: Callable[..., Any]) -> Callable[..., Any]:
            if name in self._entries:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            self._entries[name] = Entry(settings, build)
            return build

        return register

    def names(self) -> list[str]:
        """All registered names, sorted."""
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(getattr(package, "__path__", [])):  # a single module registers on import
            importlib.import_module(f"{self.package}.{module.name}")
        return sorted(self._entries)

    def __getitem__(self, name: str) -> Entry:
        names = self.names()
        if name not in self._entries:
            raise KeyError(f"unknown {self.kind} '{name}'; valid: {', '.join(names)}")
        return self._entries[name]
