"""What must be seen from outside the process: exit codes, one-line errors, sweeps, help."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser

from nclab.config.command import arguments
from nclab.config.schema import ConfigError
from nclab.config.sweep import split
from nclab.train import main


def run_command(*overrides, cwd):
    command = [sys.executable, "-m", "nclab.train", *overrides]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


TRAIN = """
import sys
from nclab.train import main
main()
from torch.optim import Optimizer
own = [getattr(method, "__wrapped__", None) for method in (Optimizer.add_param_group, Optimizer.zero_grad)]
print([name for name in ("pandas", "matplotlib") if name in sys.modules])
print([method for method in own if hasattr(method, "__dynamo_disable")])  # set by torch's compiler, or against it
print([name for name in ("torch._dynamo", "triton") if name in sys.modules])
"""


def test_the_command_line(tmp_path):
    """One process for what must be seen from outside: a sweep, its folders, that it leaves no litter, and that it did
    not spend its first seconds on imports that it has no use for."""
    tiny = ("dataset.train_size=200", "dataset.test_size=100", "model.depth=3", "model.width=16", "epochs=2")
    words = ("--multirun", *tiny, "seed=0,1", "threads=1")
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    ours, written, compiler = done.stdout.splitlines()[-3:]
    assert ours == "[]"
    assert len(list((tmp_path / "outputs" / "main").glob("*/DONE"))) == 2
    assert {p.name for p in tmp_path.iterdir()} == {"outputs"}
    if compiler != "[]" and not torch.__version__.startswith("2.15."):
        pytest.skip(
            f"torch {torch.__version__} imports its compiler where 2.15 does not: see nclab.training.optim.WRAPPERS"
        )
    assert (compiler, written) == ("[]", "[]")


def test_a_wrong_command_ends_in_one_line_and_exit_code_2(tmp_path):
    """Many more in tests/test_bad_input.py, without a process each."""
    done = run_command("model.widht=3", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: unknown key 'model.widht' of model=mlp; did you mean model.width?\n"
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


def test_seeds_are_one_command(tmp_path, monkeypatch, capfd):
    """Two groups of a sweep: one whose seeds all fail, each on a line, and one that is done and then skipped."""
    tiny = ("dataset.train_size=200", "dataset.test_size=100", "model.width=16", "model.norm=none", "epochs=2")
    words = ("-m", *tiny, "threads=1", "seeds=[0,1,3]", "optimizer.lr=1e30,0.01")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["nclab-train", *words])
    for lines, stdout in ((3, "3: 2 epochs"), (3, "already finished")):
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 1
        out, err = capfd.readouterr()
        assert len(err.splitlines()) == lines
        assert err.count(": training diverged in epoch 1") == 3
        assert stdout in out
        assert len(list((tmp_path / "outputs" / "main").glob("*/DONE"))) == 3


def test_help_explains_every_group(tmp_path):
    done = run_command("--help", cwd=tmp_path)
    assert done.returncode == 0
    for group in ("dataset", "model", "etf", "optimizer", "schedule", "tracker", "experiment"):
        assert f"\n  {group} " in done.stdout, group


def test_the_private_parser_of_hydra_is_as_we_use_it():
    """What `nclab.config.command` uses of it; pyproject.toml bounds hydra-core."""
    assert not inspect.signature(get_args_parser).parameters
    parser = get_args_parser()
    assert callable(parser.error)
    args = vars(parser.parse_args(["-m", "a=1", "b=2"]))
    used = "help hydra_help shell_completion experimental_rerun run multirun overrides cfg info resolve package"
    assert {*used.split(), "config_dir", "config_name", "config_path"} <= args.keys()
    assert (args["multirun"], args["overrides"], args["experimental_rerun"]) == (True, ["a=1", "b=2"], None)


def test_no_other_private_name_of_hydra_is_used():
    found = {
        line.split("#")[0].strip()
        for file in (Path(__file__).parents[1] / "src").rglob("*.py")
        for line in file.read_text().splitlines()
        if "hydra._internal" in line and "import" in line
    }
    assert found == {
        "from hydra._internal.utils import get_args_parser",
        # see tests/test_composing.py
        "from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname",
        "from hydra._internal.hydra import Hydra",  # see tests/test_quick_commands.py
    }


@pytest.mark.parametrize(
    "words",
    [
        ["a=1,2", "b=x", "c=range(3)"],
        ["+a=choice(1,2)", "~b", "a=3"],
        ["'a=\"x,y\",z'", "++b={k: 1}", "c=[1,2],[3]"],
        ["a=range(0)"],
    ],
)
def test_a_sweep_is_split_as_hydras_own_sweeper_does(words):
    overrides = OverridesParser.create().parse_overrides([word.strip("'") for word in words])
    jobs = [list(words) for words in split(overrides)]
    assert [jobs] == BasicSweeper.split_arguments(overrides, max_batch_size=None)


def test_a_sweep_over_an_interval_is_refused():
    with pytest.raises(ConfigError, match=r"values that can be listed, .*; got a=interval\(0,1\)"):
        split(OverridesParser.create().parse_overrides(["a=interval(0,1)"]))


@pytest.mark.parametrize("word", ["plugins=json", "plugins=[json],[re]", "plugins=null", "plugins={a: b}"])
def test_plugins_are_a_list(word):
    with pytest.raises(ConfigError, match=r"plugins must be a list of modules such as \[my_package\], .*; got plugins"):
        arguments([word])
