"""The named compositions in conf/experiment/, those of the papers in a folder each."""

from pathlib import Path

import yaml

from nclab.config.place import CONF


def experiments(conf: Path = CONF) -> dict[str, str]:
    """Option of the command line -> name of its folder of runs: {'simplex_etf/figure1': 'figure1', ...}."""
    root = conf / "experiment"
    files = {file.relative_to(root).with_suffix("").as_posix(): file for file in sorted(root.rglob("*.yaml"))}
    trees = {name: yaml.safe_load(file.read_text(encoding="utf-8")) or {} for name, file in files.items()}
    return {name: tree.get("experiment_name", "main") for name, tree in trees.items()}
