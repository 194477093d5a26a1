"""What a wrong word of a command line was meant to be: looked up among all keys, groups and options."""

import dataclasses
import re
import shlex
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from nclab.config.experiments import experiments
from nclab.config.schema import GROUPS, RunConfig
from nclab.interfaces.valid import closest, unknown
from nclab.system.words import quoted
from nclab.training.evaluate import MetricsSettings


def all_keys() -> dict[str, list[str]]:
    """Every key, groups dotted -> the options of its group that have it; none for keys outside groups.

    >>> all_keys()["etf.k"], all_keys()["seed"]
    (['last_k'], [])
    """
    found: dict[str, list[str]] = {
        f.name: [] for f in dataclasses.fields(RunConfig) if f.name not in (*GROUPS, "metrics", "explicit")
    }
    found |= {f"metrics.{f.name}": [] for f in dataclasses.fields(MetricsSettings)}
    for group, registry in GROUPS.items():
        for option in registry.names():
            for f in dataclasses.fields(registry[option].settings):
                if f.name != "name":
                    found.setdefault(f"{group}.{f.name}", []).append(option)
    return found


def meant(word: str) -> str | None:
    """The key or group that a wrong word resembles most, or the key whose last part it is.

    >>> meant("lr"), meant("datset"), meant("train_size"), meant("epoch"), meant("xyz")
    ('optimizer.lr', 'dataset', 'dataset.train_size', 'epochs', None)
    """
    keys = all_keys()
    word = word.replace("-", "_")
    places = {key: key for key in (*keys, *GROUPS, "experiment")}
    for key in sorted(keys, key=lambda key: -key.count(".")):
        places.setdefault(key.rpartition(".")[2], key)
    if word in places:
        return places[word]
    near = get_close_matches(word, places, n=1, cutoff=0.7)
    return places[near[0]] if near else None


def unknown_key(key: str, chosen: Mapping[str, str], valid: Iterable[str] = ()) -> str:
    """What to say of a key that is not there, beside these valid ones, where these options of the groups are chosen."""
    keys, valid = all_keys(), list(valid)
    prefix, _, leaf = key.rpartition(".")
    of = f" of {prefix}={chosen[prefix]}" if prefix in GROUPS and prefix in chosen else ""
    said = f"unknown key '{key}'{of}"
    if options := keys.get(key):
        return f"{said}; choose {_one_of(prefix, options)}"
    if prefix == "hydra.launcher" and not valid:
        return f"{said}; choose hydra/launcher=local or slurm"
    inside = prefix in (*GROUPS, "metrics") or prefix.startswith("hydra.")
    of_group = [name.removeprefix(f"{prefix}.") for name in keys if name.startswith(f"{prefix}.")]
    near = closest(leaf, valid) or closest(leaf, of_group) if inside else None
    near = f"{prefix}.{near}" if near else (None if inside else meant(key)) or meant(leaf)
    if near is None:
        there = valid if inside else [*(name for name in keys if "." not in name), *GROUPS, "metrics", "experiment"]
        return f"{said}; valid: {', '.join(there) or 'none'}"
    options, home = keys.get(near, []), near.partition(".")[0]
    of_others = options and chosen.get(home, options[0]) not in options
    return f"{said}; did you mean {near}{f' (choose {_one_of(home, options)})' if of_others else ''}?"


def _one_of(group: str, options: list[str]) -> str:
    return f"{group}={options[0]}" if len(options) == 1 else f"one of {group}={', '.join(options)}"


def no_option(group: str, name: str, there: Iterable[str]) -> str:
    """What to say of an option that a group has not, where Hydra knows of these."""
    valid = sorted({*there, *(experiments() if group == "experiment" else ())})
    if group == "experiment":
        folders = [option for option, folder in experiments().items() if folder == name]
        if folders:
            return f"unknown experiment '{name}'; did you mean {folders[0]}? valid: {', '.join(valid)}"
    return unknown(group, name, valid)


def as_override(option: str, following: str | None) -> str | None:
    """`--epochs=5`, or `--epochs` and the word 5 that follows it, as nclab-train wants it: epochs=5; None for an option
    that resembles no key.

    >>> as_override("--epochs", "5"), as_override("--batch-size=64", None), as_override("--lr", "0.1")
    ('epochs=5', 'batch_size=64', 'optimizer.lr=0.1')
    """
    name, sign, value = option.lstrip("-").partition("=")
    key = meant(name)
    if key is None:
        return None
    if not sign:
        value = "VALUE" if following is None or "=" in following or following.startswith("-") else following
    return f"{key}={value}"


def how_to_write(word: str) -> str:
    """How to write a word that Hydra's grammar cannot read.

    >>> print(how_to_write("output_root=ünï"))
    cannot read 'output_root=ünï': quote the value within quotes for the shell: "output_root='ünï'"
    >>> print(how_to_write("seeds=[0"))
    cannot read 'seeds=[0': a list is [a,b], a mapping {a: b}, without spaces or in quotes for the shell: 'seeds=[0]'
    """
    key, sign, value = word.partition("=")
    if not sign:
        options = [f"{group}={word}" for group, registry in GROUPS.items() if word in registry.names()]
        hint = f"; did you mean {options[0]}?" if options else ""
        if near := closest(word, [*all_keys(), *GROUPS, "experiment"]):
            hint = f"; did you mean {near}=VALUE?"
        return f"expected KEY=VALUE, got '{word}'{hint}"
    if not key:
        return f"expected KEY=VALUE, got '{word}'"
    said = f"cannot read '{word}'"
    if not re.fullmatch(r"[+~]{0,2}[\w./@:$-]+", key, re.ASCII):
        near = meant(key.strip("+~ "))
        return f"{said}: {key!r} is no key" + (f"; did you mean {near}?" if near else "")
    if set(value) & set("[]{}"):
        fixed = _closed(value)
        example = f": {shlex.quote(f'{key}={fixed}')}" if fixed else ""
        return f"{said}: a list is [a,b], a mapping {{a: b}}, without spaces or in quotes for the shell{example}"
    return f"{said}: quote the value within quotes for the shell: {_for_the_shell(f'{key}={quoted(value)}')}"


def _for_the_shell(word: str) -> str:
    """In double quotes where that is enough, which is easier to read around single ones."""
    return shlex.quote(word) if set(word) & set('"$`\\!') else f'"{word}"'


def _closed(value: str) -> str | None:
    """The value with the brackets that it lacks; None where that does not make it a list or mapping."""
    pairs = {"[": "]", "{": "}"}
    open_ones: list[str] = []
    for sign in value:
        if sign in pairs:
            open_ones.append(pairs[sign])
        elif sign in pairs.values() and (not open_ones or open_ones.pop() != sign):
            return None
    return value + "".join(reversed(open_ones)) if open_ones and value[0] in pairs else None
