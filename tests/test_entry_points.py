"""What a wheel's user can type: every command that a message names is one of the package, not of a checkout."""

import ast
import importlib
import re
import shlex
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from nclab.config.place import CONF
from nclab.data import DATASETS, MissingDataError, command
from nclab.data.fetching import SOURCES

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
TARGETS = re.findall(r"^([a-z0-9_-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
PARTS = ["figure1", "figure2", "figure3", "figure4", "table1", "table2", "controls", "controls_vit", "depth"]
OF_A_CHECKOUT = re.compile(rf"\bscripts/\w|\bmake ({'|'.join([*TARGETS, *PARTS])}|[A-Z]+=)")
ACTIONS = {
    "nclab-data": {"fetch", "list"},
    "nclab-paper": {"list", "run", "draw", "judge"},
    "nclab-runs": {"status", "failed", "show", "diff", "board", "export", "pack", "clean"},
}


def literals(source: str) -> list[str]:
    """Every text of a module: messages, help, docstrings, which help pages show; those with fields in pieces."""
    return [n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def of_a_checkout(text: str) -> list[str]:
    """The commands in a text that only a checkout has."""
    return [found[0] for found in OF_A_CHECKOUT.finditer(text)]


def absent(text: str) -> set[str]:
    """Commands in a text that the package does not have, or an action that they do not take."""
    found = set()
    for name, action in re.findall(r"(?<![\w./-])(nclab-[a-z]+)(?: ([a-z]+)\b)?", text):
        if name not in SCRIPTS or (action and action not in ACTIONS.get(name, {action})):
            found.add(f"{name} {action}".strip())
    return found


def test_such_commands_are_found():
    assert of_a_checkout("fetch it: python scripts/fetch_data.py") == ["scripts/f"]
    assert of_a_checkout("repeat with make figure1") == ["make figure1"]
    assert of_a_checkout("these runs make no such drawing") == []
    assert literals('raise E(f"run scripts/x.py {name}")') == ["run scripts/x.py "]
    assert absent("nclab-data get mnist; nclab-figures; nclab-data fetch mnist") == {"nclab-data get", "nclab-figures"}
    assert len(TARGETS) > 10


@pytest.mark.parametrize("name", ["nclab-data", "nclab-paper", "nclab-draw", "nclab-runs"])
def test_a_command_without_words_shows_its_help_and_exits_2(name, monkeypatch, capsys):
    module, _, function = SCRIPTS[name].partition(":")
    monkeypatch.setattr("sys.argv", [name])
    try:
        code = getattr(importlib.import_module(module), function)()
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr().out
    assert code == 2
    assert said.startswith(f"usage: {name}")
    assert all(action in said for action in ACTIONS.get(name, {"figure1"}))


@pytest.mark.fast
def test_no_text_of_the_package_names_what_only_a_checkout_has():
    found = {}
    for file in SRC.rglob("*.py"):
        for text in literals(file.read_text()):
            if wrong := [*of_a_checkout(text), *absent(text)]:
                found[str(file.relative_to(SRC))] = wrong
    for file in (*CONF.rglob("*.yaml"), *SRC.rglob("templates/*")):  # a wheel has them too
        if wrong := [*of_a_checkout(file.read_text()), *absent(file.read_text())]:
            found[str(file.relative_to(ROOT))] = wrong
    assert found == {}


def test_the_commands_are_installed_and_can_be_called():
    installed = {
        entry.name: entry for entry in entry_points(group="console_scripts") if entry.name.startswith("nclab-")
    }
    assert {name: entry.value for name, entry in installed.items()} == SCRIPTS
    assert {"nclab-train", "nclab-data", "nclab-draw", "nclab-paper", "nclab-runs"} <= SCRIPTS.keys()
    assert all(callable(entry.load()) for entry in installed.values())
    for value in SCRIPTS.values():
        module = importlib.import_module(value.partition(":")[0])
        assert Path(module.__file__).is_relative_to(SRC)  # what the wheel packs


def test_what_missing_data_say_to_type_is_taken(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(command, "fetch", lambda name, root, source: asked.append((name, root)) or "fetched")
    assert DATASETS.names()  # each of which says in SOURCES how it is fetched
    for name in sorted(SOURCES):
        entry = DATASETS[name]
        with pytest.raises(MissingDataError) as missing:
            entry.build(entry.settings(name=name), tmp_path / "with space")
        words = shlex.split(str(missing.value).partition("fetch it with: ")[2])
        assert words[0] in SCRIPTS
        assert command.run(words[1:]) == 0
        assert asked.pop() == (name, tmp_path / "with space")
    assert {"mnist", "fashion_mnist", "cifar10", "cifar100", "imdb"} <= SOURCES.keys()
