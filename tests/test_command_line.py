"""What must be seen from outside the process: exit codes, one-line errors, sweeps, help."""

import subprocess
import sys

import pytest


def run_command(*overrides, cwd):
    command = [sys.executable, "-m", "nclab.train", *overrides]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_the_command_line(tmp_path):
    """One process for what must be seen from outside: a sweep, its folders, and that it leaves no litter."""
    tiny = ("dataset.train_size=200", "dataset.test_size=100", "model.depth=3", "model.width=16", "epochs=2")
    done = run_command("--multirun", *tiny, "seed=0,1", "threads=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "outputs" / "main").glob("*/DONE"))) == 2
    assert {p.name for p in tmp_path.iterdir()} == {"outputs"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model.widht=3"],
            "Could not override 'model.widht'. Valid keys of 'mlp': name, depth, width, norm, activation",
        ),
        (["etf=last_k", "etf.k=9"], "etf.k must be between 1 and 5"),
        (["etf=lastk"], "Available options in 'etf':; adaptive; last_k; none; transformer_ffn\n"),
        (["resume=somewhere", "epochs=9"], "takes the folder's configuration; leave out epochs=9"),
        (["seeds=[0,1]", "seed=3"], "seeds takes the place of seed; leave out one of them"),
        (["seeds=[0,0]"], "seeds must be distinct numbers"),
        (["seeds=[0,1]", "batch_size=9999"], "batch_size must be at most 1437"),
        (["dataset=mnist"], "fetch it with: nclab-data fetch mnist"),
    ],
)
def test_wrong_commands_end_in_one_line_and_exit_code_2(tmp_path, overrides, message):
    done = run_command(*overrides, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_tries_every_run_and_names_every_failure(tmp_path):
    tiny = ("dataset.train_size=200", "dataset.test_size=100", "model.width=16", "model.norm=none", "epochs=3")
    done = run_command("-m", *tiny, "threads=1", "optimizer.lr=1e30,0.01,1e31", cwd=tmp_path)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2 == len(done.stderr.splitlines())
    assert "1e+30" in errors[0]
    assert "1e+31" in errors[1]
    assert len(list((tmp_path / "outputs" / "main").glob("*/DONE"))) == 1


def test_seeds_are_one_command(tmp_path):
    """Two groups of a sweep: one whose seeds all fail, each on a line, and one that is done and then skipped."""
    tiny = ("dataset.train_size=200", "dataset.test_size=100", "model.width=16", "model.norm=none", "epochs=2")
    for lines, stdout in ((3, "3: 2 epochs"), (3, "already finished")):
        done = run_command("-m", *tiny, "threads=1", "seeds=[0,1,3]", "optimizer.lr=1e30,0.01", cwd=tmp_path)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == lines
        assert done.stderr.count(": training diverged in epoch 1") == 3
        assert stdout in done.stdout
        assert len(list((tmp_path / "outputs" / "main").glob("*/DONE"))) == 3


def test_help_explains_every_group(tmp_path):
    done = run_command("--help", cwd=tmp_path)
    assert done.returncode == 0
    for group in ("dataset", "model", "etf", "optimizer", "schedule", "tracker", "experiment"):
        assert f"\n  {group} " in done.stdout, group
