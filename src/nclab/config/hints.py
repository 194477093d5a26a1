"""What a wrong word of a command line was meant to be: looked up among all keys, groups and options."""

import dataclasses
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice, takewhile
from typing import Any

from hydra.core.override_parser.types import Override

from nclab.config.checks import is_list, kinds
from nclab.config.experiments import experiments
from nclab.config.schema import GROUPS, RunConfig
from nclab.config.synonyms import NOT_HERE, named_elsewhere
from nclab.interfaces.valid import closest, unknown
from nclab.system.words import quoted
from nclab.training.evaluate import MetricsSettings

PAIRS = {"[": "]", "{": "}"}
QUOTES = "'\""
MOST_LISTED = 20  # values of a range
LAUNCHER = "choose hydra/launcher=local or slurm"


def all_keys() -> dict[str, list[str]]:
    """Every key, groups dotted -> the options of its group that have it; none for keys outside groups.

    >>> all_keys()["etf.k"], all_keys()["seed"]
    (['clock', 'last_k'], [])
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


def kinds_of(key: str) -> set[Any]:
    """The types that a key takes, in any option of its group.

    >>> kinds_of("seeds") == {list[int], type(None)}, kinds_of("debug"), kinds_of("xyz")
    (True, {<class 'bool'>, <class 'str'>}, set())
    """
    group, _, leaf = key.rpartition(".")
    settings: list[type] = {"": [RunConfig], "metrics": [MetricsSettings]}.get(group, [])
    if group in GROUPS:
        settings = [GROUPS[group][option].settings for option in GROUPS[group].names()]
    return {kind for one in settings for f in dataclasses.fields(one) if f.name == leaf for kind in kinds(f.type)}


def takes_list(key: str) -> bool:
    """Whether a key takes a list, in any option of its group."""
    return any(map(is_list, kinds_of(key)))


def meant(word: str, chosen: Mapping[str, str] | None = None) -> str | None:
    """The key or group that a wrong word resembles most, the key whose last part it is, or that is named so elsewhere.

    >>> meant("lr"), meant("datset"), meant("train_size"), meant("epoch"), meant("xyz"), meant("wd")
    ('optimizer.lr', 'dataset', 'dataset.train_size', 'epochs', None, 'optimizer.weight_decay')
    """
    word = _plain(word)
    if found := _named(word, chosen or {}):
        return found
    places = _places()
    near = get_close_matches(word, places, n=1, cutoff=0.7)
    return places[near[0]] if near else None


def _plain(word: str) -> str:
    return word.replace("-", "_").lower()


def _places() -> dict[str, str]:
    """Every key and group by its name, and by its last part where this is no other key's name."""
    keys = all_keys()
    places = {key: key for key in (*keys, *GROUPS, "experiment")}
    for key in sorted(keys, key=lambda key: -key.count(".")):
        places.setdefault(key.rpartition(".")[2], key)
    return places


def _named(word: str, chosen: Mapping[str, str]) -> str | None:
    """The key or group that is named so, here or elsewhere, or has this last part."""
    keys = all_keys()
    if word in (*keys, *GROUPS, "experiment"):
        return word
    return named_elsewhere(word, keys, chosen) or _places().get(word)


def unknown_key(key: str, chosen: Mapping[str, str], valid: Iterable[str] = ()) -> str:
    """What to say of a key that is not there, beside these valid ones, where these options of the groups are chosen."""
    keys, valid = all_keys(), list(valid)
    prefix, _, leaf = key.rpartition(".")
    of = f" of {prefix}={chosen[prefix]}" if prefix in GROUPS and prefix in chosen else ""
    said = f"unknown key '{key}'{of}"
    if leaf in NOT_HERE:
        return f"{said}; {NOT_HERE[leaf]}"
    elsewhere = named_elsewhere(key, keys, chosen) or named_elsewhere(_plain(leaf), keys, chosen)
    same_group = elsewhere is not None and elsewhere.startswith(f"{prefix}.")
    if (options := keys.get(key)) and not same_group:
        return f"{said}; choose {_one_of(prefix, options)}"
    if prefix == "hydra.launcher" and not valid:
        return f"{said}; {LAUNCHER}"
    inside = prefix in (*GROUPS, "metrics") or prefix.startswith("hydra.")
    of_group = [name.removeprefix(f"{prefix}.") for name in keys if name.startswith(f"{prefix}.")]
    near = elsewhere if same_group else None
    if near is None and inside and (name := closest(leaf, valid) or closest(leaf, of_group)):
        near = f"{prefix}.{name}"
    if near is None:  # a name that only resembles a key of another group is no good guess
        near = _named(_plain(leaf), chosen) if inside else meant(key, chosen) or meant(leaf, chosen)
    if near is None:
        there = valid if inside else [*(name for name in keys if "." not in name), *GROUPS, "metrics", "experiment"]
        return f"{said}; valid: {', '.join(there) or 'none'}"
    options, home = keys.get(near, []), near.partition(".")[0]
    of_others = options and chosen.get(home, options[0]) not in options
    first = _one_of(home, options) if of_others else "hydra/launcher=local" if home == "hydra" else ""
    return f"{said}; did you mean {near}{f' (choose {first})' if first else ''}?"


def _one_of(group: str, options: list[str]) -> str:
    return f"{group}={options[0]}" if len(options) == 1 else f"one of {group}={', '.join(options)}"


def no_option(group: str, name: str, there: Iterable[str]) -> str:
    """What to say of an option that a group has not, where Hydra knows of these in the folder that was named."""
    home, _, folder = group.partition("/")
    valid = sorted({*there, *(experiments() if group == "experiment" else ())})
    if folder and home in (*GROUPS, "experiment"):  # Hydra takes what stands before the last / for the group
        group, name = home, f"{folder}/{name}"
        valid = sorted(experiments() if home == "experiment" else GROUPS[home].names())
    if group == "experiment":
        folders = [option for option, folder in experiments().items() if folder == name]
        if folders:
            return f"unknown experiment '{name}'; did you mean {folders[0]}? valid: {', '.join(valid)}"
    return unknown(group, name, valid)


def as_override(option: str, following: str | None) -> str | None:
    """`--epochs=5`, or `--epochs` and the word 5 that follows it, as nclab-train wants it: epochs=5; None for an option
    that resembles no key.

    >>> as_override("--epochs", "5"), as_override("--batch-size=64", None), as_override("--debug", "seed=1")
    ('epochs=5', 'batch_size=64', 'debug=true')
    """
    name, sign, value = option.lstrip("-").partition("=")
    key = meant(name)
    if key is None or "=" in key:
        return key
    if not sign:
        value = "VALUE" if following is None or "=" in following or following.startswith("-") else following
        if bool in kinds_of(key) and value.lower() not in ("true", "false"):
            value = "true"
    return f"{key}={value}"


def how_to_write(words: Sequence[str], at: int = 0) -> str:
    """How to write the word at this place of a command line, which Hydra's grammar cannot read.

    >>> print(how_to_write(["output_root=ünï"]))
    cannot read 'output_root=ünï': quote the value within quotes for the shell: "output_root='ünï'"
    >>> print(how_to_write(["seeds=[0,", "1]"]))
    cannot read 'seeds=[0,': a list is [a,b], a mapping {a: b}, without spaces or in quotes for the shell: 'seeds=[0,1]'
    """
    word = words[at]
    key, sign, value = word.partition("=")
    if not sign:
        return f"expected KEY=VALUE, got '{word}'{_of_a_bare(words, at)}"
    if not key:
        return f"expected KEY=VALUE, got '{word}'"
    said = f"cannot read '{word}'"
    if len(several := word.split()) > 1 and all("=" in one and _named(one.partition("=")[0], {}) for one in several):
        return f"{said}; write it as words of their own: {shlex.join(several)}"
    if not re.fullmatch(r"[+~]{0,2}[\w./@:$-]+", key, re.ASCII):
        near = meant(key.strip("+~ "))
        return f"{said}: {key!r} is no key" + (f"; did you mean {near}?" if near else "")
    if set(value) & set("[]{}"):
        fixed = _closed(value, words[at + 1 :])
        example = f": {shlex.quote(f'{key}={fixed}')}" if fixed else ""
        return f"{said}: a list is [a,b], a mapping {{a: b}}, without spaces or in quotes for the shell{example}"
    if (plain := value.lstrip("=").strip(",")) != value and re.fullmatch(r"[\w./,-]+", plain, re.ASCII):
        return f"{said}; write {key}={plain}"
    if re.fullmatch(r"\([^()]+\)", value) and takes_list(key.strip("+")):
        return f"{said}; write {shlex.quote(f'{key}=[{value[1:-1]}]')}"
    return f"{said}: quote the value within quotes for the shell: {_for_the_shell(f'{key}={quoted(value)}')}"


def _of_a_bare(words: Sequence[str], at: int) -> str:
    """What a word without = was meant to be: an option, a key, or more of the value before it; with the sign before."""
    word = words[at]
    for group, names in {
        "experiment": experiments(),
        **{g: registry.names() for g, registry in GROUPS.items()},
    }.items():
        if word in names:
            return f"; did you mean {group}={word}?"
    if named := _named(_plain(word), {}):
        return f"; did you mean {named}{'' if '=' in named else '=VALUE'}?"
    key, sign, value = words[at - 1].partition("=") if at else ("", "", "")
    if sign and str in kinds_of(key.strip("+")):
        more = list(takewhile(lambda following: "=" not in following, words[at:]))
        whole = f"{key}={quoted(' '.join([value.strip(QUOTES), *more]))}"
        return f"; write a value with spaces in quotes: {_for_the_shell(whole)}"
    whole_names = [key for key in _places() if key in (*GROUPS, "experiment") or (key in all_keys() and "." not in key)]
    near = get_close_matches(_plain(word), whole_names, n=1, cutoff=0.75)
    return f"; did you mean {near[0]}=VALUE?" if near else ""


def several_values(word: Override) -> str:
    """What to write instead of a word that names several values where one run is asked for."""
    key, values = word.key_or_group, word.input_line.partition("=")[2]
    if key in GROUPS or not (word.is_choice_sweep() or word.is_range_sweep()):
        return "add -m to train a run for each"
    if word.is_range_sweep() or values.startswith("choice"):
        listed = list(islice(word.sweep_string_iterator(), MOST_LISTED + 1))
        values = ",".join(listed if len(listed) <= MOST_LISTED else [*listed[:3], "..."])
    if takes_list(key):
        return f"write {key}=[{values}] for one list"
    as_seeds = f", or write seeds=[{values}] for one process" if key == "seed" else ""
    return f"add -m to train a run for each{as_seeds}"


def _for_the_shell(word: str) -> str:
    """In double quotes where that is enough, which is easier to read around single ones."""
    return shlex.quote(word) if set(word) & set('"$`\\!') else f'"{word}"'


def _closed(value: str, following: Sequence[str]) -> str | None:
    """The value with the brackets that it lacks, from the words that follow it if these bring them; None where neither
    makes it a list or mapping."""
    for more in range(1, len(following) + 1):
        whole = "".join([value, *following[:more]])
        if "=" in following[more - 1]:
            break
        if (brackets := _lacking(whole)) is None or not brackets:
            return whole if brackets == "" and value[0] in PAIRS else None
    brackets = _lacking(value)
    return value.rstrip(",") + brackets if brackets and value[0] in PAIRS else None


def _lacking(value: str) -> str | None:
    """The brackets that would close the value; None where one closes what is not open.

    >>> _lacking("[0,{a:1"), _lacking("[0]"), _lacking("0]")
    ('}]', '', None)
    """
    lacking = ""
    for sign in value:
        if sign in PAIRS:
            lacking = PAIRS[sign] + lacking
        elif sign in PAIRS.values():
            if not lacking.startswith(sign):
                return None
            lacking = lacking[1:]
    return lacking
