"""Every make command of README.md and docs/ says by `make -n` what it would do: each command of its recipe is there and
takes its words. Nothing is run."""

import argparse
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_docs import ALL, CONF, ROOT, code, compose_all, relative, spans
from test_docs_commands import GENERATED, finish, planned

from nclab.analysis import cli
from nclab.analysis.drawings import DRAWINGS
from nclab.papers import command as paper_command

PLACEHOLDERS = {"WING": "depth"}
WORDLESS = {"nclab.config.docs", "scripts/bench_table.py"}  # programs that are given no words
# Their recipes have no line that is checked here: they install, or print.
UNCHECKED = ("setup", "setup TORCH=cpu", "audit", "help")
TOOLS = {"pytest", "ruff", "mypy", "sphinx"}  # their words are theirs to check


def documented() -> dict[str, list[str]]:
    """Every command once."""
    pages = [page.read_text() for page in ALL if relative(page) != GENERATED]
    lines = [line for text in pages for line in [*code(text), *spans(text)]]
    commands = [shlex.split(line.split(";")[0], comments=True) for line in lines if line.startswith("make ")]
    return {shlex.join(words): words for words in commands}


COMMANDS = documented()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the Makefile looks at, set up already."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    for plan in CONF.glob("paper/*/plan.yaml"):
        (folder / "conf" / "paper" / plan.parent.name).mkdir(parents=True)
    (folder / ".venv").mkdir()
    (folder / ".venv" / ".ready").touch()
    return folder


def recipe(checkout: Path, words: list[str]) -> list[list[str]]:
    """The words of every command that make would give."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    words = [words[0], "-n", *(PLACEHOLDERS.get(word, word) for word in words[1:]), f"UV={shutil.which('true')}"]
    done = subprocess.run(words, cwd=checkout, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith((".venv/bin/", "scripts/"))]


class ParsedError(Exception):
    """In the place of what a command does once it has read its words."""


def read_words(run, *words: str) -> None:
    """Let a program that is run by `run` parse its words and do no more. Raises SystemExit where they are wrong."""
    parse = argparse.ArgumentParser.parse_args

    def and_no_more(parser, args=None, namespace=None):
        parse(parser, args, namespace)
        raise ParsedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", and_no_more)
        patch.setattr(sys, "argv", ["program", *words])
        with pytest.raises(ParsedError):
            run()


def check_python(words: list[str]) -> None:
    """python SCRIPT or python -m MODULE, with its words."""
    if {*words[:2]} & WORDLESS:
        assert words[-1] in WORDLESS
        assert find_spec(words[1]) if words[0] == "-m" else (ROOT / words[0]).is_file()
    elif words[0] != "-m":
        read_words(lambda: runpy.run_path(str(ROOT / words[0]), run_name="__main__"), *words[1:])
    elif words[1] == "nclab.train":
        compose_all(words[2:])
    elif words[1] in TOOLS:
        assert find_spec(words[1])
    else:
        with pytest.MonkeyPatch.context() as patch:  # another test may have imported it, of which runpy warns
            patch.delitem(sys.modules, f"{words[1]}.__main__", raising=False)
            read_words(lambda: runpy.run_module(words[1], run_name="__main__"), *words[2:])


def check_nclab(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A console command with its words."""
    if words[0] == "nclab-draw":
        assert cli._parser().parse_args(words[1:]).name in DRAWINGS.names()
    elif words[:2] == ["nclab-paper", "run"]:
        planned(words)
    else:
        assert words[:2] == ["nclab-paper", "judge"]
        monkeypatch.setattr(paper_command, "judge_wing", lambda *_: None)
        assert finish(words) == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_what_make_would_do_can_be_done(command, checkout, monkeypatch):
    for words in recipe(checkout, COMMANDS[command]):
        program = Path(words[0]).name
        if program == "python":
            check_python(words[1:])
        elif program.startswith("nclab-"):
            check_nclab([program, *words[1:]], monkeypatch)
        else:
            assert (ROOT / words[0]).is_file(), words


def test_recipes_are_seen(checkout):
    """So that a Makefile written otherwise is not passed over."""
    seen = {command for command, words in COMMANDS.items() if recipe(checkout, words)}
    assert {*COMMANDS} - seen == {f"make {words}" for words in UNCHECKED}
    assert len(seen) > 50
    with pytest.raises(SystemExit):
        read_words(lambda: runpy.run_path(str(ROOT / "scripts" / "fuzz.py"), run_name="__main__"), "--case", "x")
    assert re.search("nclab-paper run depth", shlex.join(recipe(checkout, ["make", "depth"])[0]))
