"""Secrets are masked wherever text leaves a process: on the terminal, in logs, in stored configurations.

A secret is the value of an environment variable or key that is named like one (WANDB_API_KEY, `..._TOKEN`, `password`),
and what stands before the @ of an address. Numbers and everything else stay as they are.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

MASK = "***"
SHORTEST = 8  # characters of an environment variable: shorter ones would be found in innocent words

_WORD = r"(?:token|secret|password|passwd|passphrase|pwd|credentials?|auth)"
# `key` alone is every second word of an error; it is a secret's name only as the end of one: api_key, ACCESS_KEY.
_NAME = rf"(?:[\w.+-]*[_.-])?(?:{_WORD}|(?:api|pg|my)\w*{_WORD})|[\w.+-]*(?:[_.-]|api|access|private)key"
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_FOLDERS = ("PWD", "OLDPWD")  # the shell's, not passwords
# The parser's and OmegaConf's own words for where an error is, and numbers, are no secrets.
_ASSIGNED = re.compile(
    rf"(?<![\w.+-])(?!full_key|object_key)({_NAME})(['\"]?(?:=+|\s*:\s+|\s=\s))(?!-?[\d.]+(?:e[+-]?\d+)?(?![^\s,;)\]}}'\"]))"
    r"(['\"]?)[^\s'\",;)\]}]+",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"(\b[a-z][a-z0-9+.-]*:/{1,2})(?:[^/\s@'\"]*:[^/\s@'\"]*|[^/\s@:'\"]{20,})@", re.IGNORECASE)
_BEARER = re.compile(r"\b(Bearer\s+)[\w.~+/-]{8,}=*", re.IGNORECASE)


def redact(text: str) -> str:
    """The text with every secret in it masked."""
    for secret in _from_environment():
        text = text.replace(secret, MASK)
    text = _ADDRESS.sub(rf"\1{MASK}@", text)
    text = _BEARER.sub(rf"\1{MASK}", text)
    return _ASSIGNED.sub(_masked, text)


def _masked(found: re.Match) -> str:
    name, sign, quote = found.groups()
    prose = sign.startswith(":") and name.lower() in ("token", "auth")  # "of the class token: block1"
    return found[0] if prose else f"{name}{sign}{quote}{MASK}"


def redacted(tree: Any) -> Any:
    """A copy of nested dicts and lists whose texts are redacted; under a key named like a secret, masked whole."""
    if isinstance(tree, dict):
        return {
            key: MASK if isinstance(v, str) and v and _SECRET_NAME.fullmatch(str(key)) else redacted(v)
            for key, v in tree.items()
        }
    if isinstance(tree, list | tuple):
        return [redacted(v) for v in tree]
    return redact(tree) if isinstance(tree, str) else tree


def _from_environment() -> list[str]:
    """Values of the variables that are named like secrets, the longest first: one may be a part of another."""
    values = {value for name, value in os.environ.items() if _SECRET_NAME.fullmatch(name) and name not in _FOLDERS}
    return sorted((v for v in values if len(v) >= SHORTEST and not v.isdigit()), key=len, reverse=True)


class _Masked:
    """A text stream that redacts what is written to it; all else is the stream's own."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redact(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def masked_terminal() -> Iterator[None]:
    """Within, what is printed is redacted: by us, by Hydra, by a traceback."""
    with contextlib.redirect_stdout(_Masked(sys.stdout)), contextlib.redirect_stderr(_Masked(sys.stderr)):
        yield
