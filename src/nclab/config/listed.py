"""The lines of a list for the terminal, and the named compositions as such lines; without torch."""

import re
import textwrap
from pathlib import Path

WIDTH = 120
EXPERIMENT = "named compositions: several keys at once"


def experiments(*folders: Path) -> list[tuple[str, str]]:
    """Name and description of every named composition in folders such as conf/."""
    found = {}
    for folder in folders:
        for file in sorted((folder / "experiment").rglob("*.yaml")):
            found[file.relative_to(folder / "experiment").with_suffix("").as_posix()] = head(file)
    return sorted(found.items())


def experiment_lines(*folders: Path) -> str:
    """`experiments` as lines of the help, for a template of Hydra."""
    lines = entry(2, "experiment", EXPERIMENT)
    lines += [line for name, said in experiments(*folders) for line in entry(4, name, sentence(said))]
    return "\n".join([*lines, ""]).replace("$", "$$")


def head(file: Path) -> str:
    """The comment at the head of a YAML file, on one line, without indented lines, which are commands."""
    lines = []
    for line in file.read_text().splitlines():
        if line.startswith(("# @package", "#  ")):
            continue
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    return " ".join(lines)


def entry(indent: int, name: str, text: str) -> list[str]:
    """A name and what is said of it, from column 22 on, in as many lines as it takes."""
    column = 22
    start = f"{' ' * indent}{name} "
    filled = textwrap.wrap(text, WIDTH - column, break_long_words=False, break_on_hyphens=False) or [""]
    if len(start) > column:
        return [start.rstrip(), *(f"{' ' * column}{part}" for part in filled)]
    return [f"{start.ljust(column)}{filled[0]}".rstrip(), *(f"{' ' * column}{part}" for part in filled[1:])]


def sentence(text: str) -> str:
    """The first sentence of a text."""
    return re.split(r"(?<=[.])\s", text, maxsplit=1)[0]
