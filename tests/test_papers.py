"""nclab-paper: wings found by a scan, drawn from what their runs recorded, run with everything at once."""

import csv
import re
from pathlib import Path

import pytest
import yaml
from fake_runs import ADAPTIVE, BASELINE, last, write_run
from omegaconf import OmegaConf

from nclab.analysis import DRAWINGS
from nclab.config.experiments import experiments
from nclab.config.place import CONF
from nclab.config.schema import typed
from nclab.config.stored import stored_config
from nclab.papers.command import main
from nclab.papers.wings import find_wing, wing_names

ROOT = Path(__file__).parents[1]


def paper(*words):
    """The exit code of the command."""
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words)])
    return stop.value.code or 0


def test_list_names_every_wing_with_its_parts_and_profiles(capsys):
    assert paper("list") == 0
    printed = capsys.readouterr().out
    for wing in map(find_wing, wing_names()):
        assert f"{wing.name}: {wing.title}" in printed
        assert wing.title
        for name in (*wing.plan["parts"], *wing.plan["profiles"]):
            assert re.search(rf"\b{name}\b", printed), name


@pytest.mark.parametrize("name", wing_names())
def test_a_wing_is_complete(name):
    wing = find_wing(name)
    assert wing.ledger.is_file()
    assert (ROOT / "tests" / "papers" / name).is_dir()
    assert (ROOT / "docs" / "papers" / f"{name}.md").is_file()
    used = {experiment for part in wing.plan["parts"].values() for line in part["runs"] for experiment in named(line)}
    assert used == {option for option in experiments() if option.startswith(f"{name}/")}
    assert all(DRAWINGS[part["draw"]].caption or DRAWINGS[part["draw"]].kind == "table"
               for part in wing.plan["parts"].values())  # fmt: skip


def named(line):
    return [value for word in line.split() if word.startswith("experiment=") for value in word[11:].split(",")]


def test_every_experiment_has_a_folder_of_its_own():
    folders = list(experiments().values())
    assert len(set(folders)) == len(folders) > 10
    assert {file.stem for file in (CONF / "experiment").glob("*.yaml")} == {"demo"}


def test_draw_takes_the_runs_that_record_the_wing(tmp_path, capsys):
    record = {"paper": "simplex_etf/smoke/figure1,table1"}
    for etf in (BASELINE, last(1)):
        write_run(tmp_path, etf, experiment="figure1", **record)
    write_run(tmp_path, ADAPTIVE, experiment="figure2", paper="simplex_etf/smoke/table1", fix=[(3, "fc5")])
    write_run(tmp_path, last(2), experiment="figure1", paper="depth/smoke/figure1")
    write_run(tmp_path, last(3), experiment="figure1")  # of before there was a record
    assert paper("draw", "simplex_etf", "--output", tmp_path) == 0
    printed = capsys.readouterr()
    plan = find_wing("simplex_etf").plan["parts"]
    others = [name for name, part in plan.items() if name not in ("figure1", "table1") and not part.get("extra")]
    assert len(others) > 5
    assert printed.err.splitlines() == [
        "left out: 2 finished runs that record another profile, or none",
        f"no finished run of part {', '.join(others)}",
    ]
    out = tmp_path / "simplex_etf"
    written = sorted(str(file.relative_to(out)) for file in out.rglob("*") if file.is_file())
    assert written == [
        *(f"figures/figure1_digits.{ending}" for ending in ("csv", "pdf", "png")),
        *(f"tables/table1.{ending}" for ending in ("csv", "md", "tex")),
    ]
    with (out / "tables" / "table1.csv").open() as file:
        assert [row["policy"] for row in csv.DictReader(file)] == ["baseline", "last 1 ETF", "Adaptive-ETF"]
    with (out / "figures" / "figure1_digits.csv").open() as file:
        assert {row["policy"] for row in csv.DictReader(file)} == {"baseline", "last 1 ETF"}


def test_runs_of_two_profiles_are_told_apart(tmp_path, capsys):
    for profile, epochs in (("smoke", 20), ("cpu", 8)):
        for etf in (BASELINE, last(1)):
            write_run(tmp_path, etf, epochs=epochs, experiment="figure1", paper=f"simplex_etf/{profile}/figure1")
    assert paper("draw", "simplex_etf", "--part", "figure1", "--output", tmp_path) == 1
    assert "not drawn: figure1_digits: runs that are compared must not differ in epochs" in capsys.readouterr().err
    assert paper("draw", "simplex_etf", "--part", "figure1", "--profile", "cpu", "--output", tmp_path) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["draw", "simplex_etf", "--output", "runs"], "none of 1 finished runs records paper simplex_etf; older runs"),
        (["draw", "depth", "--output", "runs"], "no run of paper depth under runs: expected depth_rn1"),
        (
            ["draw", "simplex_etf", "--output", "runs", "--part", "figure9"],
            "unknown part 'figure9'; did you mean figure4?",
        ),
        (["draw", "simplex_etf", "--output", "runs", "--profile", "huge"], "unknown profile 'huge'; valid: smoke"),
        (
            ["draw", "nothing"],
            "unknown paper 'nothing'; valid: continual, depth, etf_networks",
        ),
        (
            ["run", "nothing"],
            "unknown paper 'nothing'; valid: continual, depth, etf_networks",
        ),
        (["run", "depth", "depth_rn"], "expected KEY=VALUE, got depth_rn; a part is named by --part depth_rn"),
        (["run", "depth", "--part", "rn"], "unknown part 'rn'; valid: depth_rn"),
        (["run", "depth", "--profile", "huge"], "unknown profile 'huge'; valid: smoke, cpu, gpu_hour, paper"),
        (["run"], "required: WING"),
        (["paint"], "invalid choice"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, words, message):
    write_run(tmp_path / "runs", experiment="figure1")
    monkeypatch.chdir(tmp_path)
    assert paper(*words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_run_stacks_seeds_as_its_profile_says(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("nclab.papers.running.run_all", lambda configs, jobs, stack, **_: asked.append(stack) or [])
    monkeypatch.setattr("nclab.papers.running.draw", lambda *_: [])
    words = ("run", "regression", "--part", "ufm", "--output", tmp_path, "--seeds", 0)
    assert paper(*words, "--profile", "cpu") == 0
    assert paper(*words, "--profile", "cpu", "--stack", 3) == 0
    assert asked == [10, 3]


def test_run_trains_draws_and_judges_and_the_same_command_draws_old_runs(tmp_path, capsys):
    small = ("dataset.train_size=200", "dataset.test_size=100", "model.width=32", "metrics.every=1")
    words = ("run", "simplex_etf", "--profile", "smoke", "--part", "figure1", "--seeds", 0, "--epochs", 2)
    words += ("--output", tmp_path, "--jobs", 1, *small)
    assert paper(*words) == 0
    out = tmp_path / "simplex_etf"
    assert sorted(file.name for file in (out / "figures").iterdir()) == [
        *(f"figure1_digits.{ending}" for ending in ("csv", "pdf", "png")),
    ]
    assert not (out / "report").exists()  # a part alone is not judged
    stored = list(tmp_path.glob("figure1/*/config.yaml"))
    assert len(stored) == 4
    for file in stored:
        config = yaml.safe_load(file.read_text())
        assert config["paper"].startswith("simplex_etf/smoke/figure1,")
        assert config["paper"].endswith(f" {' '.join(small)} epochs=2")
        del config["paper"]  # as before it was recorded
        file.write_text(yaml.safe_dump(config))
        again = typed(OmegaConf.create(stored_config(file)))
        assert (again.paper, again.folder) == (None, file.parent)
    (out / "figures" / "figure1_digits.png").unlink()
    capsys.readouterr()
    assert paper(*words) == 0
    assert "4 runs, 4 finished before" in capsys.readouterr().out
    assert (out / "figures" / "figure1_digits.png").is_file()
    assert paper("judge", "simplex_etf", "--output", tmp_path) == 0
    assert (out / "report" / "index.html").is_file()
