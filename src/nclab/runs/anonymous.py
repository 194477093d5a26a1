"""Files of a run without the names of machines, users and folders, for those who get them from somebody else.

What decides a number stays: of a path its last part, and versions, commit, processor and times. What was not changed
stays as it is byte for byte.
"""

import getpass
import json
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

import yaml

from nclab.system.redact import MASK

PROCESS = ("host", "pid", "job", "restarts")  # of an event: which process was at work; no number depends on it
TIMED = "epoch"  # an event of its times alone, as many as epochs; their sums are in summary.json
PROSE = ("text", "reason")  # of an event: words that may name a machine or a user
# `and/or`, `1/2`, `../x` and addresses are no absolute paths.
_QUOTED = re.compile(r"""(['"])(?:~[\w.-]*)?/(?!/)[^'"\n]+\1""")
_BARE = re.compile(r"""(?<![\w./~-])(?:~[\w.-]*)?/(?!/)[^\s'",;:()\[\]{}=<>|]+""")
_WHOLE = re.compile(r"(?:~[\w.-]*)?/(?!/)[^\n]+")


class CannotRead(ValueError):
    """A file is not what a run writes; the message says where and why, without its name."""


def config(text: str) -> str:
    """config.yaml with the last part of each path, and tracker `none` in place of one with an account."""
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise CannotRead(f": not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(root, yaml.MappingNode):
        raise CannotRead(": expected keys with values")
    changes = []
    for key, node in root.value:
        if key.value == "tracker" and yaml.safe_load(yaml.serialize(node)) != {"name": "none"}:
            changes.append((node.start_mark.index, node.end_mark.index, "{name: none}\n"))
        else:
            changes += _changes(node)
    for start, end, new in sorted(changes, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def events(text: str) -> str:
    """events.jsonl without processes, without the names of their machines and ours in its prose, and without the times
    of single epochs: of a long run they would be most of an archive."""
    lines = text.splitlines()
    there = [_object(line, f", line {i}") for i, line in enumerate(lines, 1)]
    names = {str(event["host"]) for event in there if event.get("host")} | _ours()
    kept = [pair for pair in zip(lines, there, strict=True) if pair[1].get("event") != TIMED]
    return "".join(f"{_line(line, event, names)}\n" for line, event in kept)


def summary(text: str) -> str:
    """summary.json with the last part of each path."""
    before = _object(text, "")
    after = _tree(before)
    return text if after == before else json.dumps(after, indent=1) + "\n"


def without_paths(text: str) -> str:
    """Prose with the last part of each absolute path.

    >>> without_paths("cannot write /home/anna/outputs/run1/metrics.csv: disk full")
    'cannot write metrics.csv: disk full'
    """
    text = _QUOTED.sub(lambda found: f"{found[1]}{_last(found[0][1:-1])}{found[1]}", text)
    return _BARE.sub(lambda found: _last(found[0]), text)


def _last(path: str) -> str:
    return PurePosixPath(path).name or path


def _value(text: str) -> str:
    """A text that may be a path as a whole, blanks included."""
    return _last(text) if _WHOLE.fullmatch(text) else without_paths(text)


def _tree(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tree(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_tree(inner) for inner in value]
    return _value(value) if isinstance(value, str) else value


def _changes(node: yaml.Node) -> list[tuple[int, int, str]]:
    """(start, end, new text) of every scalar below the node that holds a path."""
    if isinstance(node, yaml.ScalarNode):
        new = _value(node.value)
        return [] if new == node.value else [(node.start_mark.index, node.end_mark.index, json.dumps(new))]
    inner = [value for _, value in node.value] if isinstance(node, yaml.MappingNode) else node.value
    return [change for one in inner for change in _changes(one)]


def _line(line: str, event: dict, names: set[str]) -> str:
    kept = {key: value for key, value in event.items() if key not in PROCESS}
    kept = {
        key: _masked(without_paths(value), names) if key in PROSE and isinstance(value, str) else _tree(value)
        for key, value in kept.items()
    }
    return line if kept == event else json.dumps(kept)


def _masked(text: str, names: Iterable[str]) -> str:
    """The text with each of these whole words masked."""
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", MASK, text)
    return text


def _ours() -> set[str]:
    """The names of this machine and user, as far as they have one."""
    names = {socket.gethostname()}
    with suppress(OSError, KeyError):  # KeyError: of Python before 3.13
        names.add(getpass.getuser())
    return {name for name in names if name}


def _object(text: str, where: str) -> dict:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CannotRead(f"{where}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise CannotRead(f"{where}: expected an object, got {text.strip()[:40]}")
    return value
