"""Values as a user types them: quoted for nclab-train, folders below ~; and a list of names as a message tells it."""

import re
from collections.abc import Iterable
from pathlib import Path

TRUE = ("true", "yes", "on", "y")  # as OmegaConf reads them, in letters of either case
FALSE = ("false", "no", "off", "n")


def quoted(value: str) -> str:
    r"""The value in single quotes, in which the grammar takes everything as it is.

    >>> print(quoted("ünï"), quoted("it's"), quoted("a\\"))
    'ünï' 'it\'s' 'a\\'
    """
    # Backslashes stay as they are, but for those right before a quote.
    end = value[len(value.rstrip("\\")) :]
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", value) + end + "'"


def key_of(word: str) -> str:
    """The key of a word of a command line, without the signs that may stand before it.

    >>> key_of("++etf.k=2"), key_of("~tracker")
    ('etf.k', 'tracker')
    """
    return word.split("=")[0].strip("+~")


def typed_true(key: str, words: Iterable[str]) -> bool:
    """Whether the words of a command line set the key to true, however they write it; the last one counts.

    >>> typed_true("debug", ["++debug=yes"]), typed_true("debug", ["debug=true", "debug=false"])
    (True, False)
    """
    values = [value for name, sign, value in (word.partition("=") for word in words) if name.lstrip("+") == key]
    return bool(values) and values[-1].strip("'\"").lower() in TRUE


def is_true(value: str) -> bool | None:
    """What a word says of true or false; None: neither.

    >>> is_true("Yes"), is_true("off"), is_true("maybe")
    (True, False, None)
    """
    word = value.lower()
    return word in TRUE if word in (*TRUE, *FALSE) else None


def first_of(names: Iterable[str], most: int = 5, between: str = ", ") -> str:
    """The first names, and how many there are beside them.

    >>> first_of(["a", "b", "c", "d"], most=2), first_of(["a", "b"], most=2), first_of("abc", 2, between="; ")
    ('a, b and 2 more', 'a, b', 'a; b and 1 more')
    """
    names = list(names)
    return between.join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def install_hint(extra: str) -> str:
    """The command that adds an extra of pyproject.toml, for an installed wheel and for a checkout.

    >>> install_hint("optuna")
    "install the extra optuna: pip install 'nclab[optuna]', in a checkout pip install -e '.[optuna]'"
    """
    return f"install the extra {extra}: pip install 'nclab[{extra}]', in a checkout pip install -e '.[{extra}]'"


def at_home(folder: str) -> str:
    """The folder with a leading ~ or ~user expanded, as a shell does where it sees one. Raises ValueError for a user
    without a home."""
    if not folder.startswith("~"):
        return folder
    try:
        return str(Path(folder).expanduser())
    except RuntimeError:
        raise ValueError(f"'{folder}' names the home folder of a user who has none here") from None
