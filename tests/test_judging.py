"""nclab-paper judge: verdicts printed and written, broken runs named, wrong commands refused."""

import csv

import pytest
from fake_runs import BASELINE, pair, write_run

from nclab.papers.command import main

REPORT = "outputs/simplex_etf/report"

REPORT = "outputs/simplex_etf/report"


def judge(*arguments):
    """The command; raises SystemExit where it fails."""
    with pytest.raises(SystemExit) as stop:
        main(["judge", "simplex_etf", *map(str, arguments)])
    if stop.value.code:
        raise stop.value


def test_the_command_prints_verdicts_and_writes_the_report(tmp_path, monkeypatch, capsys):
    pair(tmp_path / "runs", {0: (88.0, 88.1), 1: (89.0, 89.2), 2: (90.0, 90.15)})
    unfinished = write_run(tmp_path / "runs", BASELINE, 7, done=False)
    monkeypatch.chdir(tmp_path)
    judge("runs", "--dataset", "digits", "--epochs", 20)
    printed = capsys.readouterr()
    lines = [" ".join(line.split()) for line in printed.out.splitlines()]
    tested = "last_k_test digits, 20 epochs, etf.k=1 holds holds -0.15 [-0.27, -0.03] points 3 of 10"
    assert tested in lines
    assert "last_k_saves digits, 20 epochs holds – 10.00 % 3" in lines  # arithmetic
    assert "empirical: none" in lines  # three seeds of the ten that are stated
    assert any(line.startswith("provisional, fewer seeds than stated: ") and "holds" in line for line in lines)
    assert "arithmetic of the configuration, no evidence: 1 holds" in lines
    assert printed.out.splitlines()[-3:] == [f"{REPORT}/{name}" for name in ("index.html", "report.md", "verdicts.csv")]
    assert printed.err == f"skipped 1 unfinished: {unfinished.relative_to(tmp_path)}\n"
    assert (tmp_path / REPORT / "index.html").is_file()
    with (tmp_path / REPORT / "verdicts.csv").open() as file:
        rows = {(row["claim"], row["setting"]): row for row in csv.DictReader(file)}
    one = rows["last_k_test", "digits, 20 epochs, etf.k=1"]
    assert list(one) == ["claim", "setting", "verdict", "effect", "low", "high", "seeds"]
    assert (one["verdict"], one["seeds"]) == ("holds", "3")
    assert [float(one[name]) for name in ("effect", "low", "high")] == pytest.approx(
        [-0.15, -0.27421, -0.02579], abs=1e-5
    )
    absent = rows["last_k_test", "etf.k=3"]
    assert (absent["verdict"], absent["effect"], absent["seeds"]) == ("not enough runs", "", "0")


def test_a_broken_run_is_named_and_the_report_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pair(tmp_path / "runs", {0: (88.0, 88.1), 1: (89.0, 89.2), 2: (90.0, 90.15), 3: (91.0, 91.1), 4: (88.0, 88.1)})
    first, second, third = (next(tmp_path.glob(f"runs/exp/last_k-s{seed}-*")) for seed in (2, 3, 4))
    (first / "config.yaml").write_text("seed: 0\n")
    (second / "summary.json").write_text("{")
    (third / "events.jsonl").write_text('{"event": "start"}\n')  # of an older version; the accuracy is there
    judge(tmp_path / "runs")
    errors = capsys.readouterr().err.splitlines()
    assert any(line.startswith(f"left out: {first}/config.yaml: lacks epochs") for line in errors)
    assert any(line.startswith(f"left out: {second}/summary.json: not JSON") for line in errors)
    assert any(line.startswith(f"left out: {third}/events.jsonl: no layers in the start event") for line in errors)
    assert len(errors) == len(set(errors)) == 3
    text = (tmp_path / REPORT / "report.md").read_text()
    assert "| 3 (0, 1, 4) |" in text
    assert "summary.json: not JSON" in text.replace("\\", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "no such folder: absent"),
        (["empty"], "no run folder there at all"),
        (["runs", "--dataset", "mnist"], "no run under runs, dataset.name = mnist"),
        (["unfinished"], "1 runs there, none finished"),
        (["runs", "--ledger", "broken.yaml"], "broken.yaml: lacks claims; required: claims"),
        (["runs", "--output", "pictures"], r"figure1_a.png: not a PNG picture (0 bytes)"),
        (
            ["--output", "empty"],
            "no run of paper simplex_etf under empty: expected adaptive, author, controls, controls_vit",
        ),
        (["runs", "--epochs", "many"], "invalid int value"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, message):
    write_run(tmp_path / "runs")
    write_run(tmp_path / "unfinished", done=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "pictures" / "simplex_etf" / "figures").mkdir(parents=True)
    (tmp_path / "pictures" / "simplex_etf" / "figures" / "figure1_a.png").touch()
    (tmp_path / "broken.yaml").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        judge(*arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error
    assert error.count("\n") == 1
