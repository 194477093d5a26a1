"""What to say of a value that is none of the valid ones."""

from collections.abc import Iterable
from difflib import get_close_matches


def closest(came: object, valid: Iterable[object]) -> str | None:
    """The valid one that resembles what came most, if one does.

    >>> closest("mnst", ["cifar10", "mnist"]), closest("tpu", ["cpu", "cuda"]), closest("x", ["mnist"])
    ('mnist', 'cpu', None)
    """
    near = get_close_matches(str(came), list(map(str, valid)), n=1)
    return near[0] if near else None


def unknown(kind: str, came: object, valid: Iterable[object]) -> str:
    """One line: what is unknown, what it may have been meant to be, and what is valid.

    >>> unknown("dataset", "mnst", ["cifar10", "mnist"])
    "unknown dataset 'mnst'; did you mean mnist? valid: cifar10, mnist"
    """
    valid = list(map(str, valid))
    near = closest(came, valid)
    hint = f"did you mean {near}? " if near else ""
    return f"unknown {kind} '{came}'; {hint}valid: {', '.join(valid)}"
