"""nclab-draw, the registry of drawings behind it, and the analysis as a package of its own."""

import subprocess
import sys
from pathlib import Path

import pytest
from fake_runs import write_experiment, write_run, write_transformers

from nclab.analysis import DRAWINGS, AnalysisError, Drawing, load_runs
from nclab.analysis.cli import main
from nclab.analysis.drawings import Drawings


@pytest.fixture
def experiment(tmp_path):
    return write_experiment(tmp_path)


def test_the_command_writes_and_prints_its_files(experiment, tmp_path, capsys):
    write_transformers(experiment, depths=(2, 3))
    models = {"mlp": ["figure1", "figure2", "table1", "summary"], "vit": ["figure3", "figure4", "table2", "variants"]}
    endings_of = {"figure": "pdf png csv", "table": "csv md tex", "variants": "csv md tex", "summary": "csv md"}
    for model, name in ((model, name) for model, names in models.items() for name in names):
        endings = endings_of[name.rstrip("1234")]
        out = tmp_path / "figures" / name
        files = [f"{out}.{ending}" for ending in endings.split()]
        select = ["--dataset", "digits,mnist", "--dataset", "cifar10", "--seeds", "0,1", "--epochs", "20"]
        main([name, str(experiment), *select, "--where", f"model.name={model}", "--out", str(out)])
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
def test_a_wrong_command_is_one_line_and_status_2(tmp_path, capsys, arguments, message):
    write_run(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["figure1", str(tmp_path), *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error
    assert error.count("\n") == 1
    assert error.startswith("nclab-draw: ")


def test_an_unknown_drawing_names_those_there_are(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["figure9", str(tmp_path)])
    assert f"did you mean figure4? valid: {', '.join(DRAWINGS.names())}" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["--list"])
    assert not stop.value.code
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == DRAWINGS.names()


def test_names_of_policies_and_datasets_may_hold_commas(experiment, tmp_path, monkeypatch):
    asked = []

    def save(self, runs, out, policies):
        asked.append(policies)
        return "", []

    monkeypatch.setattr(Drawing, "save", save)
    arguments = ["--policies", "baseline,FFN-ETF 1,3,no FFN", "--dataset", "digits,mnist", "--dataset", "cifar10"]
    main(["figure3", str(experiment), *arguments])
    assert asked == [["baseline", "FFN-ETF 1,3", "no FFN"]]


def test_a_drawing_of_ones_own_is_found_and_a_name_is_taken_once(experiment, tmp_path):
    drawings = Drawings()

    @drawings.table("mine", of="any runs")
    def mine(runs, policies=None):
        return DRAWINGS["summary"].make(runs, policies)

    assert "mine" in drawings.names()
    text, paths = drawings["mine"].save(load_runs([experiment]), tmp_path / "mine")
    assert "baseline" in text
    assert [path.name for path in paths] == ["mine.csv", "mine.md"]
    with pytest.raises(ValueError, match="drawing 'mine' is registered twice"):
        drawings.table("mine", of="")(mine)


def test_an_installed_package_brings_drawings_and_a_broken_one_is_named(tmp_path):
    (tmp_path / "brought.py").write_text(
        "from nclab.analysis import DRAWINGS\n"
        "@DRAWINGS.table('brought', of='any runs')\n"
        "def brought(runs, policies=None): return None, None\n"
    )
    (tmp_path / "broken.py").write_text("raise RuntimeError('no luck')\n")
    code = "from nclab.analysis import DRAWINGS; print('brought' in DRAWINGS.names())"
    for module, expected in (("brought", "True"), ("broken", "RuntimeError: no luck")):
        info = tmp_path / "x-1.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: x\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[nclab.plugins]\nx = {module}\n")
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)}
        )
        assert expected in done.stdout + done.stderr
    assert AnalysisError.__name__ in done.stderr


def test_analysis_imports_neither_torch_nor_hydra_nor_wandb():
    code = (
        "import sys, nclab.analysis, nclab.analysis.cli, nclab.papers.command, nclab.papers.judging\n"
        "nclab.analysis.DRAWINGS.names()\n"
        "print({'torch', 'hydra', 'wandb'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
