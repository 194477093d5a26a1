"""The named compositions in conf/experiment/, those of the papers in a folder each."""

import re
from pathlib import Path

import yaml

from nclab.config.place import CONF

# What Hydra says of an unknown one: of a group it lists the files alone, not those in folders.
UNKNOWN = re.compile(r"(Could not find 'experiment/([^']+)'; Available options in 'experiment':);.*", re.DOTALL)


def experiments(conf: Path = CONF) -> dict[str, str]:
    """Option of the command line -> name of its folder of runs: {'simplex_etf/figure1': 'figure1', ...}."""
    root = conf / "experiment"
    files = {file.relative_to(root).with_suffix("").as_posix(): file for file in sorted(root.rglob("*.yaml"))}
    trees = {name: yaml.safe_load(file.read_text(encoding="utf-8")) or {} for name, file in files.items()}
    return {name: tree.get("experiment_name", "main") for name, tree in trees.items()}


def with_options(message: str) -> str:
    """Hydra's message on an unknown experiment with all valid ones, and the one of that old name; others unchanged."""
    if not (unknown := UNKNOWN.search(message)):
        return message
    there = experiments()
    meant = [name for name, folder in there.items() if folder == unknown[2]]
    hint = f"; expected experiment={meant[0]}" if meant else ""
    return f"{message[: unknown.start()]}{unknown[1]} {', '.join(there)}{hint}"
