"""What a user may choose, read from its one source: settings dataclasses, their comments, and the heads of YAML files.

The comment behind a field is its documentation; comment lines right above the field go before it.
"""

import ast
import dataclasses
import inspect
import textwrap
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nclab.config.listed import head
from nclab.config.options import defaults
from nclab.config.place import CONF
from nclab.config.schema import GROUPS, RunConfig
from nclab.interfaces.plugins import conf_folders
from nclab.training.evaluate import MetricsSettings


@dataclass(frozen=True)
class Key:
    """One key: its type and default as they are written in YAML, and one line on what it does."""

    name: str
    kind: str
    default: str
    text: str


@dataclass(frozen=True)
class Option:
    """One option of a group: its name, a summary and its keys."""

    name: str
    summary: str
    keys: list[Key]


def comments(settings: type) -> dict[str, str]:
    """The comment of every field of a dataclass, inherited ones included; a field without one is absent."""
    found: dict[str, str] = {}
    for kind in reversed(settings.__mro__):
        if dataclasses.is_dataclass(kind):
            found |= _own_comments(kind)
    return found


def _own_comments(kind: type) -> dict[str, str]:
    try:
        lines = textwrap.dedent(inspect.getsource(kind)).splitlines()
    except (OSError, TypeError):  # defined in an interpreter: no source, no comments
        return {}
    found = {}
    (body,) = ast.parse("\n".join(lines)).body
    for node in body.body:
        if isinstance(node, ast.AnnAssign):
            above = []
            for line in reversed(lines[: node.lineno - 1]):
                if not line.strip().startswith("#"):
                    break
                above.insert(0, line.strip())
            behind = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
            words = " ".join(part.strip().lstrip("#").strip() for part in (*above, behind)).strip()
            if words:
                found[node.target.id] = words
    return found


def keys(settings: type, name: str = "") -> list[Key]:
    """The keys of a settings dataclass, without its name."""
    said, values = comments(settings), defaults(name, settings)
    return [
        Key(field.name, _kind(field.type), _yaml(values[field.name]), said.get(field.name, ""))
        for field in dataclasses.fields(settings)
        if field.name not in ("name", "metrics", "explicit") and "registry" not in field.metadata
    ]


def groups() -> Iterator[tuple[str, str, list[Option]]]:
    """Name, documentation and options of every group, those of plug-ins included."""
    said = comments(RunConfig)
    for group, registry in GROUPS.items():
        options = [
            Option(name, _summary(group, name, registry[name].build), keys(registry[name].settings, name))
            for name in registry.names()
        ]
        yield group, said.get(group, ""), options


def root_keys() -> list[Key]:
    """The keys outside groups, and those of `metrics`."""
    of_metrics = [dataclasses.replace(key, name=f"metrics.{key.name}") for key in keys(MetricsSettings)]
    return [*keys(RunConfig), *of_metrics]


def _summary(group: str, name: str, build: Any) -> str:
    """The head of the option's YAML file, else what its builder says of itself."""
    for folder in (CONF, *conf_folders()):
        if (file := folder / group / f"{name}.yaml").is_file():
            return head(file)
    return " ".join((inspect.getdoc(build) or "").split("\n\n")[0].split())


def _kind(kind: Any) -> str:
    if isinstance(kind, str):
        return kind
    if isinstance(kind, types.UnionType | types.GenericAlias):
        return str(kind).replace("None", "null").replace("NoneType", "null")
    return getattr(kind, "__name__", str(kind)).replace("Any", "any")


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    return "required" if value == "???" else str(value)
