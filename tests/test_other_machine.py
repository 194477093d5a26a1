"""A run that goes on elsewhere than it began: what is typed wins where it makes no other run, and it is said."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TINY, TINY_MODELS
from run_folders import assert_same_run, events, killed_after
from run_states import START, make

from nclab.config.schema import ConfigError
from nclab.run.execute import train, train_seeds
from nclab.run.started import requested
from nclab.runs.command import resume_command


@pytest.fixture
def cut(tiny):
    """cut(...) -> the folder of a run that was killed after three of its six epochs."""

    def begin(*overrides: str) -> Path:
        return killed_after(3, tiny(*overrides))

    return begin


@pytest.fixture
def train_on(tiny):
    """train_on("threads=2") -> the folder of the run that a command line with these words asks for."""

    def run(*words: str) -> Path:
        (config,) = requested(tiny(*words), words)
        return train(config)

    return run


def stored(folder: Path, **values) -> Path:
    """config.yaml with other values, as another machine would have written it."""
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **values}, sort_keys=False))
    return file


def warnings(folder: Path) -> list[str]:
    return [event["text"] for event in events(folder, "warning")]


@pytest.mark.parametrize("by", ["name", "folder"])
def test_a_typed_machine_key_wins_with_a_warning(tiny, cut, train_on, tmp_path, capsys, by):
    folder = cut()
    stored(folder, device="cuda:1")
    again = [f"resume={folder}"] if by == "folder" else []
    assert train_on(*again, "device=cpu", "threads=2") == folder
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    said = "device=cpu in the place of cuda:1, threads=2 in the place of 1"
    assert len(warnings(folder)) == 1
    assert said in warnings(folder)[0]
    assert capsys.readouterr().err.count(said) == 1
    now = yaml.safe_load((folder / "config.yaml").read_text())
    assert (now["device"], now["threads"]) == ("cpu", 2)


def test_a_typed_key_that_changes_nothing_keeps_bits_and_says_nothing(tiny, cut, train_on, tmp_path):
    folder = cut()
    before = (folder / "config.yaml").read_bytes()
    train_on("device=auto" if not torch.cuda.is_available() else "device=cuda", "threads=1", "checkpoint_seconds=1")
    assert warnings(folder) == []
    assert (folder / "config.yaml").read_bytes() == before
    assert_same_run(folder, train(tiny(root=tmp_path / "whole")))


def test_the_place_in_the_plan_stays_where_a_run_moves(cut, train_on):
    """What the command does not say stays stored."""
    folder = cut()
    stored(folder, paper="simplex_etf/cpu/figure1")
    train_on("threads=2")
    torch.set_num_threads(1)
    assert yaml.safe_load((folder / "config.yaml").read_text())["paper"] == "simplex_etf/cpu/figure1"


@pytest.mark.parametrize("key", ["precision=bf16", "seed=1", "optimizer.lr=0.1", "output_root=elsewhere"])
def test_what_makes_another_run_stays_refused_beside_resume(tiny, cut, key):
    folder = cut()
    words = [f"resume={folder}", "device=cpu", key]
    with pytest.raises(ConfigError, match=f"takes the folder's configuration; leave out {key}$"):
        requested(tiny(*words), words)


def test_keys_that_leave_the_bits_alone_may_stand_beside_resume(cut, train_on):
    folder = cut()
    train_on(f"resume={folder}", "checkpoint_seconds=7", "metrics.memory_gib=0", "tracker=none")
    assert warnings(folder) == []
    assert (folder / "DONE").exists()


def test_seeds_move_together(tiny, cut):
    folder = cut("seed=1")
    stored(folder, device="cuda:1")
    words = ["seeds=[0,1]", "device=cpu"]
    ended = train_seeds(requested(tiny(*words), words))
    assert set(ended.values()) == {None}
    assert "device=cpu in the place of cuda:1" in warnings(folder)[0]


def test_an_absent_device_names_its_file_and_what_to_type(tiny, cut, train_on):
    folder = cut()
    file = stored(folder, device="cuda:77")
    for words in ([], [f"resume={folder}"], [f"resume={folder}", "epochs=9"]):
        with pytest.raises(ConfigError) as caught:
            train_on(*words)
        text = str(caught.value)
        assert text.startswith("device 'cuda:77' cannot be used")
        assert f"it is stored in {file}: type device=cpu to go on here" in text
        assert "\n" not in text
    with pytest.raises(ConfigError) as caught:  # typed: the file has nothing to do with it
        train_on("device=cuda:77")
    assert str(file) not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("threads", 99999, "threads must be at most 1024, got 99999"),
        ("threads", "foo", "threads"),
        ("threads", 0, "threads must be at least 1"),
        ("device", [1], r"device: Cannot convert .*; expected str, got \[1\]"),
        ("device", "toaster", "unknown device 'toaster'"),
        ("compile", 3, "compile: expected bool, got 3"),
    ],
)
@pytest.mark.parametrize("by", ["name", "folder"])
def test_stored_machine_keys_are_checked_as_typed_ones_are(cut, train_on, by, key, value, message):
    folder = cut()
    file = stored(folder, **{key: value})
    with pytest.raises(ConfigError, match=message) as caught:
        train_on(*([f"resume={folder}"] if by == "folder" else []))
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_a_copy_keeps_what_was_typed(tiny):
    (config,) = requested(tiny(), ["device=cpu"])
    assert replace(config).explicit == config.of_seed(3).explicit == {"device"}
    assert config.run_name == tiny().run_name


@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_keys_typed_at_a_sweep_reach_its_runs(tiny, cut, tmp_path, launcher):
    folder = cut()
    stored(folder, device="cuda:1")
    words = (*TINY, *TINY_MODELS["model=mlp"], f"output_root={tmp_path}", "epochs=6", "seed=0", "device=cpu")
    command = [sys.executable, "-m", "nclab.train", "-m", f"hydra/launcher={launcher}", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("device=cpu in the place of cuda:1") == 1
    assert len(warnings(folder)) == 1


def test_the_command_for_a_run_of_a_gpu_works_without_one(tmp_path):
    folder = make(tmp_path, START)
    (folder / "config.yaml").write_text("seed: 0\nepochs: 10\ndevice: cuda:63\n")
    assert resume_command(folder) == f"python -m nclab.train resume={folder} device=auto"
    (folder / "config.yaml").write_text("seed: 0\nepochs: 10\ndevice: cpu\n")
    assert resume_command(folder) == f"python -m nclab.train resume={folder}"
