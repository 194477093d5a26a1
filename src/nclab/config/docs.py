"""Documentation made from the settings dataclasses: `nclab-train --help`, docs/configuration.md, comments in conf/.

python -m nclab.config.docs    # in a checkout: writes docs/configuration.md, comments of conf/ and shown.json again
"""

import json
import re
import textwrap
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from nclab.config import shown
from nclab.config.document import Key, Option, comments, groups, root_keys
from nclab.config.listed import EXPERIMENT, WIDTH, entry, experiment_lines, experiments, sentence
from nclab.config.options import defaults
from nclab.config.place import CONF
from nclab.config.schema import GROUPS, RunConfig
from nclab.interfaces.plugins import conf_folders
from nclab.training.evaluate import MetricsSettings

FILE = CONF.parent / "docs" / "configuration.md"
INTRODUCTION = """# Configuration

Made from the settings dataclasses by `python -m nclab.config.docs`; edit the comments there.

A run is what `conf/train.yaml` says, changed by the command line: `nclab-train GROUP=OPTION KEY=VALUE`, such as
`nclab-train dataset=mnist5k etf=last_k etf.k=2 epochs=30`. Options of plug-ins are listed by `nclab-train --help`.
"""


def help_text() -> str:
    """The groups, their options and the keys outside groups, for the terminal."""
    entries = tuple((group, name, registry[name]) for group, registry in GROUPS.items() for name in registry.names())
    return _help_text(entries, tuple(conf_folders()))


@cache  # Hydra asks for it at every composition; a plug-in that is loaded meanwhile adds to it
def _help_text(*_: tuple) -> str:
    before, behind = help_around_experiments(list(groups()))
    return before + experiment_lines(CONF, *conf_folders()) + behind


def help_around_experiments(known: list[tuple[str, str, list[Option]]]) -> tuple[str, str]:
    """The help of groups and options, and that of the keys outside groups."""
    lines = ["== Groups: GROUP=OPTION. Keys of an option follow its group, as in etf.k=2 ==", ""]
    for group, said, options in known:
        lines += entry(2, group, said)
        for option in options:
            keys = f" Keys: {', '.join(key.name for key in option.keys)}." if option.keys else ""
            lines += entry(4, option.name, f"{sentence(option.summary)}{keys}")
    last = ["", "== Keys: KEY=VALUE ==", ""]
    last += [line for key in root_keys() for line in entry(2, key.name, f"{key.text} ({key.default})")]
    both = "\n".join([*lines, ""]), "\n".join(last)
    return both[0].replace("$", "$$"), both[1].replace("$", "$$")  # Hydra puts this into a template


def configuration() -> str:
    """docs/configuration.md: every group, option and key, without those of plug-ins."""
    parts = [INTRODUCTION, "## Keys outside groups", _table(root_keys())]
    for group, said, options in groups():
        parts += [f"## {group}", f"{said[0].upper()}{said[1:]}."]
        alike: dict[str, list[Option]] = {}
        for option in options:
            if _ours(group, option.name):
                alike.setdefault(_table(option.keys, f"{group}."), []).append(option)
        for table, same in alike.items():
            parts += [_summaries(group, same), *([table] if table else [])]
    parts += ["## experiment", f"{EXPERIMENT[0].upper()}{EXPERIMENT[1:]}."]
    parts += ["\n".join(f"- `experiment={name}`: {said}" for name, said in experiments(CONF))]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _ours(group: str, name: str) -> bool:
    """Whether an entry is no plug-in's."""
    return GROUPS[group][name].build.__module__.split(".")[0] == "nclab"


def stored() -> str:
    """What `nclab.config.shown` reads: the help and the options without a YAML file, without those of plug-ins."""
    known = [(group, said, [o for o in options if _ours(group, o.name)]) for group, said, options in groups()]
    options = {
        group: {
            name: defaults(name, registry[name].settings)
            for name in registry.names()
            if _ours(group, name) and not (CONF / group / f"{name}.yaml").is_file()
        }
        for group, registry in GROUPS.items()
    }
    content = {"help": help_around_experiments(known), "options": options}
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def commented(text: str, said: dict[str, str]) -> str:
    """A YAML file with a comment behind every key: those that are there give way. Keys inside a mapping are dotted, and
    lines of other keys stay."""
    lines, parent, dropping = [], "", False
    for line in text.splitlines():
        if dropping and re.match(r"\s+#", line):  # the rest of a comment that gave way
            continue
        dropping = False
        found = re.match(r"( *)(\w+): *([^#\s].*?)?(\s+#.*)?$", line)
        if found is None:
            lines.append((line, ""))
            continue
        indent, key, value = found[1], found[2], found[3] or ""
        parent = parent if indent else key
        comment = said.get(f"{parent}.{key}" if indent else key, "")
        dropping = bool(comment)
        lines.append((f"{indent}{key}: {value}".rstrip(), comment) if comment else (line, ""))
    column = max((len(line) for line, comment in lines if comment), default=0) + 2
    return "\n".join(_beside(line, comment, column) if comment else line for line, comment in lines) + "\n"


def commented_files() -> dict[Path, str]:
    """The YAML files of conf/ whose keys are documented, with their comments as they should be."""
    found = {}
    for group, registry in GROUPS.items():
        for name in registry.names():
            if (file := CONF / group / f"{name}.yaml").is_file():
                found[file] = commented(file.read_text(), comments(registry[name].settings))
    root = CONF / "train.yaml"
    of_metrics = {f"metrics.{key}": text for key, text in comments(MetricsSettings).items()}
    of_run = {key: text for key, text in comments(RunConfig).items() if key not in GROUPS}
    return {**found, root: commented(root.read_text(), of_run | of_metrics)}


def main() -> None:
    FILE.write_text(configuration())
    for file, text in commented_files().items():
        file.write_text(text)
    shown.FILE.write_text(stored(), encoding="utf-8")


def _beside(line: str, comment: str, column: int) -> str:
    first, *more = textwrap.wrap(comment, WIDTH - column - 2, break_long_words=False, break_on_hyphens=False)
    return "\n".join([f"{line.ljust(column)}# {first}", *(f"{' ' * column}# {part}" for part in more)])


def _summaries(group: str, options: Iterable[Option]) -> str:
    return "\n".join(f"- `{group}={option.name}`: {option.summary}" for option in options)


def _table(keys: list[Key], prefix: str = "") -> str:
    if not keys:
        return ""
    rows = [
        " | ".join(("", f"`{prefix}{key.name}`", *map(_cell, (key.kind, key.default, key.text)), "")).strip()
        for key in keys
    ]
    return "\n".join(["| key | type | default | what it does |", "|---|---|---|---|", *rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
