"""The scripts of figures and tables as commands, and the analysis as a package of its own."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from fake_runs import write_experiment, write_run, write_transformers

from nclab.analysis import choose
from nclab.analysis.cli import command

ROOT = Path(__file__).parents[1]


@pytest.fixture
def experiment(tmp_path):
    return write_experiment(tmp_path)


def test_scripts_write_and_print_their_files(experiment, tmp_path, monkeypatch, capsys):
    write_transformers(experiment, depths=(2, 3))
    models = {"mlp": ["figure1", "figure2", "table1", "summary"], "vit": ["figure3", "figure4", "table2", "summary"]}
    endings_of = {"figure": "pdf png csv", "table": "csv md tex", "summary": "csv md"}
    for model, name in ((model, name) for model, names in models.items() for name in names):
        endings = endings_of[name.rstrip("1234")]
        out = tmp_path / "figures" / name
        files = [f"{out}.{ending}" for ending in endings.split()]
        select = ["--dataset", "digits,mnist", "--dataset", "cifar10", "--seeds", "0,1", "--epochs", "20"]
        select += ["--where", f"model.name={model}", "--out", str(out)]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", str(experiment), *select])
        runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), run_name="__main__")
        printed = capsys.readouterr()
        assert not printed.err
        assert printed.out.splitlines()[-len(files) :] == files
        assert ("FFN-ETF" if model == "vit" else "baseline") in printed.out
        assert all(Path(file).stat().st_size for file in files)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "a"], "expected whole numbers"),
        (["--where", "lr"], "expected KEY=VALUE"),
        (["--out", "x.pdf"], "without ending"),
        (["--out", "x.tex"], "without ending"),
        (["--dataset", "mnist,cifar10"], "dataset.name = mnist, cifar10"),
        (["--epochs", "3"], "no finished run"),
        (["--policies", "last 4 ETF"], "no run of policy"),
        (["--nonsense"], "unrecognized arguments"),
        (["absent"], "no such folder"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2(tmp_path, capsys, monkeypatch, arguments, message):
    write_run(tmp_path)
    monkeypatch.setattr(sys, "argv", ["figure1.py", str(tmp_path), *arguments])
    with pytest.raises(SystemExit) as stop:
        command("doc", str(tmp_path / "out"), lambda runs, policies, out: (str(choose(runs, policies or [])), []))
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error
    assert error.count("\n") == 1
    assert error.startswith("figure1.py: ")


def test_names_of_policies_and_datasets_may_hold_commas(experiment, monkeypatch, capsys):
    asked = []
    arguments = ["--policies", "baseline,FFN-ETF 1,3,no FFN", "--dataset", "digits,mnist", "--dataset", "cifar10"]
    monkeypatch.setattr(sys, "argv", ["figure3.py", str(experiment), *arguments])
    command("doc", "out", lambda runs, policies, out: (str(asked.append(policies)), []))
    assert asked == [["baseline", "FFN-ETF 1,3", "no FFN"]]


def test_analysis_imports_neither_torch_nor_hydra_nor_wandb():
    code = "import sys, nclab.analysis, nclab.analysis.cli; print({'torch', 'hydra', 'wandb'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
