"""Commands that only show something do not import torch, and say the same as those that do."""

import contextlib
import os
import subprocess
import sys

import pytest
from hydra._internal.hydra import Hydra

from nclab.config import shown
from nclab.train import main

LOADED = "import sys; sys.argv = sys.argv[1:]; {}; print('torch loaded:', 'torch' in sys.modules, file=sys.stderr)"
START = "from nclab.start import main; main()"
RUNS = "from nclab.runs import main; sys.exit = lambda code=0: None; main()"


def run(code: str, *words: str, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", LOADED.format(code), *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env})


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--help", "etf=last_k", "etf.k=2", "model=vit"], ""),
        (["-sc", "query=bash"], "nclab-train etf=last_k etf."),
    ],
)
def test_help_and_completion_need_no_torch(words, line, monkeypatch, capfd):
    """The whole command runs in this process, where torch is imported already."""
    env = {"COMP_LINE": line, "COMP_POINT": str(len(line))} if line else {}
    quick = run(START, "nclab-train", *words, **env)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["nclab-train", *words])
    with contextlib.suppress(SystemExit):
        main()
    assert quick.stdout == capfd.readouterr().out
    assert len(quick.stdout.split()) >= 2
    assert quick.stderr.endswith("torch loaded: False\n")


def test_help_lists_no_group_that_its_template_lacks(monkeypatch, capfd):
    """Hydra's own list of groups takes nine tenths of the time of the help."""
    monkeypatch.setattr(sys, "argv", ["nclab-train", "--help"])
    monkeypatch.setattr(Hydra, "format_config_groups", lambda *_: pytest.fail("listed"))
    ours = Hydra.format_config_groups
    assert shown.shown(["--help"])
    assert "== Groups: GROUP=OPTION." in capfd.readouterr().out
    assert Hydra.format_config_groups is ours


def test_another_version_of_hydra_is_left_to_the_whole_command(monkeypatch, capfd):
    """One that has moved what is private to it."""
    monkeypatch.setattr(sys, "argv", ["nclab-train", "--help"])
    monkeypatch.delattr("hydra._internal.hydra.Hydra")
    assert not shown.shown(["--help"])
    assert capfd.readouterr() == ("", "")


def test_the_status_of_runs_needs_no_torch(tmp_path):
    assert run(RUNS, "nclab-runs", "status", str(tmp_path)).stderr.endswith("torch loaded: False\n")


@pytest.mark.parametrize(
    "words",
    [
        ["epochs=2"],  # trains
        ["--help", "plugins=[mine]"],
        ["--help", "experiment=demo"],
        ["--help", "--config-dir", "here"],
        ["--hepl"],
        ["--help", "etf=nonsense"],  # for an error that says what is valid
        ["--help", "no_such_key=1"],
        ["--help", "tracker.entity=hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"],  # a secret
    ],
)
def test_what_it_cannot_show_is_left_to_the_whole_command(words, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["nclab-train", *words])
    assert not shown.shown(words)
    assert capfd.readouterr() == ("", "")


def test_an_installed_plugin_is_asked(monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["nclab-train", "--help"])
    monkeypatch.setattr(shown, "entry_points", lambda group: [group])
    assert not shown.shown(["--help"])
    assert capfd.readouterr() == ("", "")
