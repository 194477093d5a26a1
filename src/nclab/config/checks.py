"""A node of a composed configuration as an instance of its settings dataclass, or one line on what is wrong."""

import re
from dataclasses import make_dataclass
from types import UnionType
from typing import Any, get_args, get_origin

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from nclab.interfaces.valid import OutOfRange

INTERPOLATED = re.compile(r"(\\*)\$\{")  # with the backslashes that OmegaConf would take off
_TYPED: dict[tuple[type, str], DictConfig] = {}


class ConfigError(ValueError):
    """The configuration is wrong; the message says what was expected, what came and what is valid."""


class NeverValid(ConfigError):
    """Wrong whatever stands beside it: an option that no group has, a value of a type that its key never takes."""


class NotTaken(ConfigError, OutOfRange):
    """A value that its key does not take in the option that is chosen; another option may have a key of this name."""


class UnknownKey(ConfigError):
    """No such key: its dotted name, and those that are valid beside it."""

    def __init__(self, message: str, key: str, valid: list[str]):
        super().__init__(message)
        self.key, self.valid = key, valid

    def __reduce__(self) -> tuple:  # processes hand errors to each other
        return UnknownKey, (str(self), self.key, self.valid)


def checked(group: str, schema: type, node: DictConfig) -> Any:
    """The node as an instance of its schema. Raises ConfigError for unknown keys, wrong types, values out of range."""
    prefix = f"{group}." if group else ""
    valid = [name for name in schema.__dataclass_fields__ if name != "name"]
    for key in node:
        if key not in schema.__dataclass_fields__:
            of = f" of {group}={node.name}" if "name" in node else ""
            said = f"unknown key '{prefix}{key}'{of}; valid: {', '.join(valid) or 'none'}"
            raise UnknownKey(said, f"{prefix}{key}", valid)
    try:
        plain = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
        for key, value in plain.items():
            kind = schema.__dataclass_fields__[key].type
            if _mistaken(value, kind):
                raise NeverValid(f"{prefix}{key}: expected {getattr(kind, '__name__', kind)}, got {value}")
        return _object(schema, plain)
    except ConfigError:
        raise
    except OmegaConfBaseException as error:
        key = str(error.full_key or error.key or "").removeprefix(prefix)  # of an interpolation the whole name
        kind = schema.__dataclass_fields__[key.split("[")[0]].type if key else ""
        raw = OmegaConf.to_container(node)
        came = raw[key] if key in raw else OmegaConf.select(node, key)
        wrong = NeverValid if isinstance(error, ValidationError) else ConfigError
        name = f"{prefix}{key}"
        expected = f"expected {getattr(kind, '__name__', kind)}, got {'nothing' if came == '' else came}"
        if is_list(kind) and "[" not in key and not isinstance(came, list | dict):
            hint = f"; write {name}=[{came}]" if _is_item(came, kind) else ""
            raise wrong(f"{name}: {expected}{hint}") from None
        reason = "" if came == "" else f"{plain_reason(error)}; "
        raise wrong(f"{name}: {f'{reason}{expected}' if kind else plain_reason(error)}") from None
    except ValueError as error:  # the settings' own checks
        raise config_error(error) from None


def _object(schema: type, plain: dict[str, Any]) -> Any:
    """The values as an instance of the schema. OmegaConf types them once: the runs of a plan share most. The instance
    is made anew, for its own checks may ask the environment."""
    key = schema, repr(plain)  # tells 1 from 1.0 and from '1'
    if key not in _TYPED:
        _TYPED[key] = OmegaConf.merge(OmegaConf.structured(schema), literal(plain))
    return OmegaConf.to_object(_TYPED[key])


def literal(tree: Any) -> Any:
    """Values as OmegaConf has to be told them, so that what looks like an interpolation stays a text."""
    if isinstance(tree, dict):
        return {key: literal(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [literal(value) for value in tree]
    return INTERPOLATED.sub(r"\1\1\\${", tree) if isinstance(tree, str) else tree


def config_error(error: ValueError) -> ConfigError:
    """What settings, models and data say of values, as the error of a configuration."""
    return NotTaken(str(error), error.key) if isinstance(error, OutOfRange) else ConfigError(str(error))


def as_config_error(call: Any, *args: Any) -> Any:
    """Values that do not fit one another are the caller's mistake, not ours."""
    try:
        return call(*args)
    except ValueError as error:
        raise config_error(error) from None


def plain_reason(error: OmegaConfBaseException) -> str:
    """The first line of OmegaConf's error, or how to write the environment variable that ${HOME} was meant to be."""
    said = str(error).splitlines()[0]
    if found := re.fullmatch(r"Interpolation key '([A-Z][A-Z0-9_]*)' not found", said):
        variable = f"${{oc.env:{found[1]}}}"
        return f"no key '{found[1]}'; for the environment variable write {variable}, or let the shell expand it"
    return said


def kinds(kind: Any) -> tuple[Any, ...]:
    """The types that a field of this type takes."""
    return get_args(kind) if isinstance(kind, UnionType) else (kind,)


def is_list(kind: Any) -> bool:
    """Whether a field of this type takes a list."""
    return any((get_origin(part) or part) is list for part in kinds(kind))


def _is_item(value: Any, kind: Any) -> bool:
    """Whether a field of this type, which takes a list, takes [value]."""
    try:
        OmegaConf.structured(make_dataclass("Own", [("key", kind, MISSING)])).key = [value]
    except OmegaConfBaseException:
        return False
    return True


def _mistaken(value: Any, kind: Any) -> bool:
    """Whether the value is of a type that OmegaConf would wrongly turn into `kind`, or stumble over: a number for true,
    true for a text, a list in a list. Texts that spell a number stay: they come from environment variables."""
    for part in kinds(kind):
        if get_origin(part) is list:
            items = value if isinstance(value, list) else ()
            return isinstance(value, dict) or any(
                isinstance(v, list | dict) or _mistaken(v, *get_args(part)) for v in items
            )
    return (bool in kinds(kind) and type(value) in (int, float)) or (
        str in kinds(kind) and bool not in kinds(kind) and type(value) is bool
    )
