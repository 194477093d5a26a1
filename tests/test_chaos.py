"""The kills of `make chaos`: a quick round of them, and that every kind of difference is found."""

import json
import re
import runpy
import shutil
from pathlib import Path

import pytest
import torch

from nclab.bench import chaos, power
from nclab.bench.chaos import Report, run_killed
from nclab.run.execute import train
from nclab.runfolder import checkpoint


def test_a_run_that_is_killed_a_few_times_is_the_same(tmp_path, monkeypatch):
    """Real processes, forked from one that has torch loaded."""
    tiny = ("dataset=digits", "threads=1", "model.width=40", "checkpoint_seconds=0", "epochs=12")
    monkeypatch.setitem(chaos.KINDS, "tiny", (*tiny, *chaos.ADAPTIVE))
    monkeypatch.setattr(chaos, "SHARE_COLD", 0.0)
    report = run_killed("tiny", seed=0, most_kills=2, root=tmp_path)
    assert report.differences == []
    assert report.counts["bit-identical"] == report.counts["folders"] == 1
    assert report.counts["kills"] > 0


def test_a_command_that_fails_by_itself_is_a_difference(tmp_path, monkeypatch):
    monkeypatch.setitem(chaos.KINDS, "wrong", ("epochs=0",))
    (said,) = run_killed("wrong", seed=0, most_kills=2, root=tmp_path).differences
    assert "the undisturbed run ended with code 2, see" in said


def test_the_command_ends_with_its_report(tmp_path, monkeypatch, capsys):
    """Without a kill: what it does after them."""
    none = ("--kills", "0", "--power-cuts", "0", "--sweep", "0")
    monkeypatch.setattr("sys.argv", ["chaos.py", *none, "--kinds", "baseline", "--seed", "3", "--out", str(tmp_path)])
    main = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "chaos.py"))["main"]
    assert main() == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["seed"], report["kinds"], report["sweep"], report["differences"]) == (3, {"baseline": {}}, {}, [])
    assert "| baseline | 0 |" in (tmp_path / "table.md").read_text()
    assert f"{tmp_path}/report.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("mount", "why"), [("exit 0", None), ("echo denied >&2; exit 32", "mounting is refused: denied")]
)
def test_power_is_cut_only_where_a_mount_works(tmp_path, monkeypatch, mount, why):
    for name in power.PROGRAMS:
        (tmp_path / name).write_text(f"#!/bin/sh\n{mount if name == 'mount' else 'exit 0'}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(power.os, "geteuid", lambda: 0)
    assert power.not_here() == why


@pytest.fixture
def twins(tiny, tmp_path):
    whole = train(tiny("epochs=3", root=tmp_path / "whole"))
    killed = shutil.copytree(whole, tmp_path / "killed")
    return whole, killed


def found(twins):
    report = Report()
    chaos.compare(report, *twins)
    assert report.counts["bit-identical"] == (not report.differences)
    return report


def test_equal_runs_have_no_difference(twins):
    report = found(twins)
    assert (report.differences, report.counts["rows"] > 100) == ([], True)


def edit(path, change):
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


def spoil_weight(folder):
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    state["model"]["fc2.weight"].view(torch.int32)[0, 0] ^= 1
    torch.save({**state, "format": 1}, folder / "checkpoint.pt")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "DONE").unlink(), "no DONE"),
        (lambda folder: (folder / "checkpoint.pt.part").touch(), "left over: checkpoint.pt.part"),
        (lambda folder: edit(folder / "metrics.csv", lambda lines: lines[:-2]), r"differs \(2 rows lost, 0 doubled\)"),
        (lambda folder: edit(folder / "metrics.csv", lambda lines: [*lines, lines[-1]]), "0 rows lost, 1 doubled"),
        (lambda folder: edit(folder / "events.jsonl", lambda lines: lines[:-1]), "events of switches or epochs differ"),
        (spoil_weight, r"model of checkpoint\.pt differs"),
        (lambda folder: (folder / "checkpoint.pt").write_bytes(b"?"), r"checkpoint\.pt cannot be read"),
    ],
)
def test_every_kind_of_difference_is_found(twins, spoil, said):
    spoil(twins[1])
    report = found(twins)
    assert report.differences
    assert any(re.search(said, text) for text in report.differences)


def test_the_moment_of_a_kill_is_told_by_what_it_left(twins, tmp_path):
    log = tmp_path / "killed" / "events.jsonl"
    assert not chaos._switched(log)
    with log.open("a") as file:
        file.write(json.dumps({"event": "switch", "epoch": 0}) + "\n")
    assert not chaos._switched(log)
    with log.open("a") as file:
        file.write(json.dumps({"event": "switch", "epoch": 4}) + '\n{"event": "epo')
    assert chaos._switched(log)
    assert checkpoint.exists(tmp_path / "killed")
