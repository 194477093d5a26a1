"""Values that a key does not take, and what to say of one that is none of the valid ones."""

from collections.abc import Iterable
from difflib import get_close_matches

# Names that other libraries give to values.
SAME = {"gpu": "cuda", "fp32": "float32", "single": "float32", "float": "float32"}
SAME |= dict.fromkeys(("double", "fp64"), "float64")
SAME |= dict.fromkeys(("bf", "bfloat16", "fp16", "float16", "half"), "bf16")


class OutOfRange(ValueError):
    """A value that its key does not take whatever stands beside it: none of its choices, or beyond its bounds.

    key: the dotted key. A sweep tells by it a wrong value from values that do not fit one another.
    """

    def __init__(self, message: str, key: str = ""):
        super().__init__(message)
        self.key = key


def closest(came: object, valid: Iterable[object]) -> str | None:
    """The valid one that resembles what came most, if one does: in whatever case, without the folder before it, or
    by the name that it has elsewhere.

    >>> closest("mnst", ["cifar10", "mnist"]), closest("tpu", ["cpu", "cuda"]), closest("x", ["mnist"])
    ('mnist', 'cpu', None)
    >>> closest("ViT", ["mlp", "vit"]), closest("fig1", ["depth/rn1", "simplex_etf/figure1"]), closest("gpu", ["cuda"])
    ('vit', 'simplex_etf/figure1', 'cuda')
    """
    names = list(map(str, valid))
    places = {name.lower(): name for name in names}
    for name in names:
        places.setdefault(name.rpartition("/")[2].lower(), name)
    low = str(came).lower()
    spellings = (low, low.rpartition("/")[2])
    same = SAME.get(low.partition(":")[0])  # gpu:0 too
    if same in names:
        return same
    exact = [places[spelling] for spelling in spellings if spelling in places]
    near = [found for spelling in spellings for found in get_close_matches(spelling, places, n=1)]
    return next(iter([*exact, *(places[found] for found in near)]), None)


def unknown(kind: str, came: object, valid: Iterable[object]) -> str:
    """One line: what is unknown, what it may have been meant to be, and what is valid.

    >>> unknown("dataset", "mnst", ["cifar10", "mnist"])
    "unknown dataset 'mnst'; did you mean mnist? valid: cifar10, mnist"
    """
    valid = list(map(str, valid))
    near = closest(came, valid)
    hint = f"did you mean {near}? " if near else ""
    return f"unknown {kind} '{came}'; {hint}valid: {', '.join(valid)}"


def no_choice(key: str, came: object, valid: Iterable[object]) -> OutOfRange:
    """The error to raise for a value that is none of a key's choices."""
    return OutOfRange(unknown(key, came, valid), key)
