"""Secrets are masked wherever text leaves a process: on the terminal, in logs, in stored configurations.

A secret is

- the value of an environment variable that is named like one (WANDB_API_KEY, `..._TOKEN`), also URL-encoded or base64;
- the value of a key that is named like one (`password`, `api_key`): `key=x`, `key: x`, `{"key":"x"}`, `--key x`;
- what stands before the @ of an address, and the value of an Authorization or Cookie header;
- a token that begins as those of a known service do, and a private key;
- what becomes one of these when it is URL-decoded or base64-decoded, once.

Numbers and everything else stay as they are. docs/reliability.md says what is out of reach.
"""

import base64
import binascii
import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TextIO
from urllib.parse import quote, quote_plus, unquote

from nclab.system.token_rules import replace_tokens

MASK = "***"
SHORTEST = 8  # characters of an environment variable: shorter ones would be found in innocent words
LONGEST_KEPT = 1000  # characters of a text that is remembered, unmasked as it is

_WORD = r"(?:token|secret|password|passwd|passphrase|pwd|credentials?|auth)"
# `key` alone is every second word of an error; it is a secret's name only as the end of one: api_key, ACCESS_KEY.
_NAME = (
    rf"(?:[\w.+-]*[_.-])?(?:{_WORD}|(?:api|pg|my)\w{{0,30}}{_WORD})|[\w.+-]*(?:[_.-]|api|access|private)key"
    r"|(?-i:[a-z]\w*(?:Token|Secret|Password|Key))|(?-i:[A-Z0-9_]*_PASS)"
)
_HINT = re.compile(r"token|secret|pass|pwd|credential|auth|key", re.IGNORECASE)  # in each of these names
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_FOLDERS = ("PWD", "OLDPWD")  # the shell's, not passwords
# The parser's and OmegaConf's own words for where an error is, and numbers, are no secrets.
_NAMED = rf"(?!full_key|object_key)({_NAME})"
_NO_NUMBER = r"(?!-?[\d.]+(?:e[+-]?\d+)?(?![^\s,;)\]}'\"]))"
_VALUE = r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|['\"]?[^\s'\",;)\]}]+"
_ASSIGNED = re.compile(rf"(?<![\w.+-]){_NAMED}(['\"]?[ \t]*(?::=|=+>?|::?)[ \t]*){_NO_NUMBER}({_VALUE})", re.IGNORECASE)
_LINE = re.compile(rf"^([ \t]*(?:- )?){_NAMED}(:[ \t]+){_NO_NUMBER}([^\s'\"][^\n]*)", re.IGNORECASE | re.MULTILINE)
_OPTION = re.compile(rf"(?<![\w-])(--(?:{_NAME}))(\s+)(?!-)({_VALUE})", re.IGNORECASE)
_HEADER = re.compile(
    r"\b((?:proxy-)?authorization|(?:set-)?cookie)(['\"]?[ \t]*[:=][ \t]*)(?:(['\"])([^'\"\r\n]+)|([^'\"\s][^\r\n]*))",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"((?:Bearer|Basic|Digest|Token|Negotiate)\s+)?.*", re.IGNORECASE | re.DOTALL)
_BEARER = re.compile(r"\b(Bearer\s+)[\w.~+/-]{8,}=*", re.IGNORECASE)
_BASIC = re.compile(r"\b(Basic\s+)([\w+/-]{4,}={0,2})", re.IGNORECASE)
_PRIVATE = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [^-]*-----|\Z)", re.DOTALL)
# Before the @: with a colon, which is no port's and no sentence's, anything up to the last @; without one all that is
# given to a website, and elsewhere what is too long for a name. ssh://git@host is no secret. No scheme is longer than
# 31 letters; without that bound the time is quadratic.
_ADDRESS = re.compile(
    r"(\b[a-z][a-z0-9+.-]{0,30}:/{1,2})"
    r"(?:[^/\s@:'\"]*:(?!\s|\d+(?:[/\s'\",;)]|:\s|$))(?:(?:(?!://)[^\s'\"<>])*|[^/\n'\"<>]*)"
    r"|[^/\s@:'\"]{20,}|(?<=http://)[^/\s@:'\"]+|(?<=https://)[^/\s@:'\"]+)@(?=[\w\[*-])",
    re.IGNORECASE,
)
_PERCENT = re.compile(r"(?<![^\s'\"<>,])[^\s'\"<>,]*%[0-9a-f]{2}[^\s'\"<>,]*", re.IGNORECASE)
_BASE64 = re.compile(r"(?<![\w+/=-])[\w+/-]{12,}={0,2}(?![\w+/=-])")


def redact(text: str) -> str:
    """The text with every secret in it masked."""
    kept = len(text) <= LONGEST_KEPT
    return (_masked if kept else _masked.__wrapped__)(text, _from_environment())


@lru_cache(maxsize=4096)  # a run says the same things every epoch
def _masked(text: str, secrets: tuple[str, ...]) -> str:
    text = _plainly(text, secrets)
    if "%" in text:
        text = _PERCENT.sub(lambda found: _if_hidden(found[0], unquote(found[0]), secrets), text)
    return _BASE64.sub(lambda found: _if_hidden(found[0], _decoded(found[0]), secrets), text)


def _plainly(text: str, secrets: tuple[str, ...]) -> str:
    """The text with those secrets masked that stand in it as they are."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    text = _PRIVATE.sub(MASK, text)
    text = _HEADER.sub(_header, text)
    text = _BEARER.sub(rf"\1{MASK}", text)
    text = _BASIC.sub(lambda found: f"{found[1]}{MASK}" if ":" in _decoded(found[2]) else found[0], text)
    end = text.rfind("@") + 2  # behind it is no user of an address, and much to search
    text = _ADDRESS.sub(rf"\1{MASK}@", text[:end]) + text[end:]
    text = replace_tokens(text, MASK)
    if _HINT.search(text) is None:
        return text
    text = _LINE.sub(lambda found: found[0] if _prose(found[2], found[3]) else f"{found[1]}{found[2]}{found[3]}{MASK}",
                     text)  # fmt: skip
    text = _OPTION.sub(rf"\1\2{MASK}", text)
    return _ASSIGNED.sub(_assigned, text)


def _prose(name: str, sign: str) -> bool:
    """'features of the class token: block1' names no secret."""
    return sign.startswith(":") and sign != ":" and name.lower() in ("token", "auth")


def _assigned(found: re.Match) -> str:
    name, sign, value = found.groups()
    if _prose(name, sign):
        return found[0]
    quote = value[0] if value[0] in "'\"" else ""
    return f"{name}{sign}{quote}{MASK}{quote if len(value) > 1 and value[-1] == quote else ''}"


def _header(found: re.Match) -> str:
    name, sign, quote, quoted, plain = found.groups()
    if name.lower().endswith("cookie") and "=" not in (quoted or plain):
        return found[0]  # a cookie is name=value
    scheme = _SCHEME.fullmatch(quoted or plain)[1] or ""
    return f"{name}{sign}{quote or ''}{scheme}{MASK}"


def _if_hidden(text: str, decoded: str, secrets: tuple[str, ...]) -> str:
    """MASK, if what the text is decoded to holds a secret."""
    return text if _plainly(decoded, secrets) == decoded else MASK


def _decoded(text: str) -> str:
    """What base64 of a text, of either alphabet, stands for; empty if that is no text."""
    text = text.rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        said = data.decode("ascii")
    except (binascii.Error, ValueError):
        return ""
    return said if said.replace("\n", "").isprintable() else ""


def redacted(tree: Any) -> Any:
    """A copy of nested dicts and lists whose texts are redacted; under a key named like a secret, masked whole."""
    if isinstance(tree, dict):
        return {
            key: MASK if isinstance(v, str) and v and _names_secret(str(key)) else redacted(v)
            for key, v in tree.items()
        }
    if isinstance(tree, list | tuple):
        return [redacted(v) for v in tree]
    return redact(tree) if isinstance(tree, str) else tree


@lru_cache(maxsize=4096)
def _names_secret(name: str) -> bool:
    return _SECRET_NAME.fullmatch(name) is not None


def _from_environment() -> tuple[str, ...]:
    """Values of the variables that are named like secrets, in every form, the longest first: one may be a part of
    another."""
    values = {value for name, value in os.environ.items() if _names_secret(name) and name not in _FOLDERS}
    return _forms(frozenset(v for v in values if len(v) >= SHORTEST and not v.isdigit()))


@lru_cache(maxsize=8)
def _forms(values: frozenset[str]) -> tuple[str, ...]:
    """The values as they are, within JSON, within an address, and as they look in base64, wherever they begin there."""
    found = set()
    for value in values:
        found |= {value, json.dumps(value)[1:-1], quote(value), quote(value, safe=""), quote_plus(value)}
        for before in range(3):
            code = base64.b64encode(bytes(before) + value.encode())
            own = code.decode().rstrip("=")[(0, 2, 3)[before] :]
            own = own if (before + len(value.encode())) % 3 == 0 else own[:-1]  # its last letter is another's too
            found |= {own, own.translate(str.maketrans("+/", "-_"))}
    return tuple(sorted(found, key=len, reverse=True))


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
