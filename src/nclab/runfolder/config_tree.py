"""The configuration of a run as a tree, for the terminal at its start."""

from typing import Any

from rich.text import Text
from rich.tree import Tree


def config_tree(title: str, keys: dict[str, Any], layers: str) -> Tree:
    """A branch a group with its option, below it the option's keys as they are typed; keys outside groups last. Keys
    that are null are left out.

    Args:
        title: what stands above the branches.
        keys: of the run, groups as dictionaries with their `name`, without secrets.
        layers: which layers are fixed, below the branch `etf`.
    """
    tree = Tree(Text(title))
    groups = {key: value for key, value in keys.items() if isinstance(value, dict)}
    for group, of_group in groups.items():
        branch = tree.add(Text(f"{group}={of_group['name']}" if "name" in of_group else group))
        if own := _line({key: value for key, value in of_group.items() if key != "name"}, f"{group}."):
            branch.add(own)
        if group == "etf" and layers:
            branch.add(Text(layers, style="bold"))
    tree.add(_line({key: value for key, value in keys.items() if key not in groups}))
    return tree


def _line(keys: dict[str, Any], prefix: str = "") -> Text:
    words = (f"{prefix}{key}={_typed(value)}" for key, value in keys.items() if value is not None)
    return Text(" ".join(words), style="dim")


def _typed(value: Any) -> str:
    """A value as the command line takes it, which no line break divides.

    >>> _typed(None), _typed(True), _typed([1, 2])
    ('null', 'true', '[1,2]')
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_typed, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_typed(one)}' for key, one in value.items())}}}"
    return str(value)
