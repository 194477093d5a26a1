"""`nclab-runs pack`: finished runs as one archive that others unpack, draw and judge, without what is ours alone."""

import getpass
import json
import lzma
import os
import socket
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
import yaml
from fake_runs import BASELINE, diverge, edit, judged, last, write_run
from fake_runs import claim as a_claim
from run_states import START, epochs, failed_run, make, said, slurm, written

from nclab.analysis.runs import load_runs
from nclab.run.execute import train
from nclab.runs import anonymous

pytestmark = pytest.mark.usefixtures("without_slurm")

PACKED = ["DONE", "config.yaml", "events.jsonl", "metrics.csv", "summary.json"]
SECRET = "/home/anna/work of mine/data"


def members(archive):
    with tarfile.open(archive) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers() if member.isfile()}


def unpack(archive, folder):
    """With the tar of the system, as a reader would."""
    folder.mkdir()
    subprocess.run(["/usr/bin/env", "-S", "PATH=/usr/bin:/bin", "tar", "-xf", archive, "-C", folder], check=True)
    return folder


def two_runs(root):
    return [write_run(root, etf, epochs=2) for etf in (BASELINE, last(1))]


def test_an_archive_holds_finished_runs_without_checkpoints(tmp_path, capsys):
    folders = two_runs(tmp_path / "outputs")
    for name in ("checkpoint.pt", "checkpoint.previous.pt", ".lock", "slurm.json", "metrics.csv.part"):
        (folders[0] / name).write_text("ours")
    (folders[0] / "wandb").mkdir()
    (folders[0] / "wandb" / "log").write_text("ours")
    out = tmp_path / "runs.tar.xz"
    code, text, _ = said(capsys, "pack", tmp_path / "outputs", "--out", out)
    assert code == 0
    assert text.startswith(f"{out}: 2 runs of 1 experiment, ")
    there = members(out)
    assert list(there) == sorted(f"exp/{folder.name}/{name}" for folder in folders for name in PACKED)
    for name, data in there.items():
        assert data == (tmp_path / "outputs" / name).read_bytes(), name  # nothing in them was ours
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs", "runs.tar.xz"]


def test_equal_runs_make_equal_bytes_whatever_machine_and_time(tmp_path, capsys):
    one = [write_run(tmp_path / "one", last(k), seed, epochs=2) for k in (2, 1) for seed in (1, 0)]
    two = [write_run(tmp_path / "two", last(k), seed, epochs=2) for seed in (0, 1) for k in (1, 2)]
    os.utime(one[0] / "metrics.csv", (1e9, 1e9))
    (one[0] / "metrics.csv").chmod(0o600)
    assert said(capsys, "pack", tmp_path / "one", "--out", tmp_path / "1.tar.xz")[0] == 0
    # the runs one by one, in another order, one of them twice
    assert said(capsys, "pack", *reversed(two), two[0], "--out", tmp_path / "2.tar.xz")[0] == 0
    assert (tmp_path / "1.tar.xz").read_bytes() == (tmp_path / "2.tar.xz").read_bytes()
    edit(two[1], test=0.5)
    assert said(capsys, "pack", tmp_path / "two", "--out", tmp_path / "2.tar.xz")[0] == 0
    assert (tmp_path / "1.tar.xz").read_bytes() != (tmp_path / "2.tar.xz").read_bytes()
    with tarfile.open(tmp_path / "1.tar.xz") as tar:
        kept = {(m.uid, m.gid, m.uname, m.gname, m.mtime, m.mode, m.type) for m in tar.getmembers()}
    assert kept == {(0, 0, "", "", 315532800, 0o644, tarfile.REGTYPE)}


def test_unpacked_runs_are_judged_as_the_originals(tmp_path, capsys):
    for seed in range(3):
        for etf in (BASELINE, last(1)):
            edit(write_run(tmp_path / "outputs", etf, seed, epochs=2), test=0.9 + 0.05 * (etf != BASELINE))
    diverge(tmp_path / "outputs", last(1), 3, epochs=2)
    out = tmp_path / "runs.tar.xz"
    assert said(capsys, "pack", tmp_path / "outputs", "--unfinished", "--out", out)[0] == 0
    unpacked = unpack(out, tmp_path / "elsewhere")
    (before,), (after,) = (judged(root, a_claim()) for root in (tmp_path / "outputs", unpacked))
    assert (after.verdict, after.reason, after.estimate) == (before.verdict, before.reason, before.estimate)
    assert "diverged with seed 3" in after.reason
    for one, two in zip(load_runs([tmp_path / "outputs"]), load_runs([unpacked]), strict=True):
        assert one.metrics.equals(two.metrics)


def test_times_of_single_epochs_are_left_out(tmp_path, capsys):
    folder = write_run(tmp_path / "outputs", epochs=2)
    before = (folder / "events.jsonl").read_text()
    time = {"event": "epoch", "epoch": 1, "train_seconds": 0.1, "measure_seconds": 0.1, "time": 1.5}
    (folder / "events.jsonl").write_text(before + json.dumps(time) + "\n")
    out = tmp_path / "runs.tar.xz"
    assert said(capsys, "pack", tmp_path / "outputs", "--out", out)[0] == 0
    assert members(out)[f"exp/{folder.name}/events.jsonl"].decode() == before


def test_the_last_measured_epoch_alone(tmp_path, capsys):
    folder = write_run(tmp_path / "outputs", epochs=10, every=2)
    out = tmp_path / "runs.tar.xz"
    assert said(capsys, "pack", tmp_path / "outputs", "--last", "--out", out)[0] == 0
    kept = members(out)[f"exp/{folder.name}/metrics.csv"].decode().splitlines()
    whole = (folder / "metrics.csv").read_text().splitlines()
    assert sorted(kept[1:]) == sorted(line for line in whole if line.startswith("10,"))
    assert kept[0] == whole[0]
    assert 10 < len(kept) < len(whole) / 4
    assert anonymous.events("") == ""


def test_the_metrics_named_alone(tmp_path, capsys):
    folder = write_run(tmp_path / "outputs", epochs=10, every=2)
    out = tmp_path / "runs.tar.xz"
    assert said(capsys, "pack", tmp_path / "outputs", "--metrics", "accuracy,nc3*", "--out", out)[0] == 0
    kept = members(out)[f"exp/{folder.name}/metrics.csv"].decode().splitlines()
    header, *whole = (folder / "metrics.csv").read_text().splitlines()
    named = [line for line in whole if line.split(",")[3] == "accuracy" or line.split(",")[3].startswith("nc3")]
    assert kept == [header, *named]
    assert 10 < len(kept) < len(whole)
    assert said(capsys, "pack", tmp_path / "outputs", "--metrics", "accuracy", "--last", "--out", out)[0] == 0
    kept = members(out)[f"exp/{folder.name}/metrics.csv"].decode().splitlines()
    assert {(line.split(",")[0], line.split(",")[3]) for line in kept[1:]} == {("10", "accuracy")}


def test_a_metric_that_no_run_has_is_refused(tmp_path, capsys):
    write_run(tmp_path / "outputs", epochs=10, every=2)
    words = (tmp_path / "outputs", "--metrics", "accuracy,nope_*", "--out", tmp_path / "runs.tar.xz")
    assert "--metrics: no run has nope_*; measured: accuracy, " in refused(capsys, tmp_path, *words)


@pytest.mark.fast
def test_training_skips_an_unpacked_run(tiny, tmp_path, capsys):
    folder = train(tiny("epochs=1", root=tmp_path / "here"))
    assert said(capsys, "pack", tmp_path / "here", "--out", tmp_path / "runs.tar.xz")[0] == 0
    there = unpack(tmp_path / "runs.tar.xz", tmp_path / "there")
    assert train(tiny("epochs=1", root=there)) == there / "main" / folder.name
    assert "already finished" in capsys.readouterr().out
    assert not (there / "main" / folder.name / "checkpoint.pt").exists()
    text = "".join(data.decode() for data in members(tmp_path / "runs.tar.xz").values())
    for ours in (str(tmp_path), str(Path.cwd()), f'"{socket.gethostname()}"', '"pid"', '"host"'):
        assert ours not in text


# What is ours alone


@pytest.mark.usefixtures("anna")
def test_machines_users_and_folders_do_not_travel(tmp_path, capsys):
    tracker = {"name": "wandb", "entity": "anna", "project": "p", "mode": None, "tags": ["x"], "timeout": 30.0}
    dataset = {"name": "npz", "path": f"{SECRET}/points.npz", "train_size": None}
    more = {"output_root": "/scratch/anna/outputs", "data_root": "~/data", "tracker": tracker, "plugins": ["a.b"]}
    folder = write_run(tmp_path, epochs=2, dataset=dataset, **more, lr=1e-05)
    lines = [
        {"event": "resume", "epoch": 1, "host": "node17", "pid": 4711, "job": "12_3", "restarts": 1, "time": 1.5},
        {"event": "warning", "text": f"no room in '{SECRET}/x y' for anna@node17: see /var/log/a.log:7 or and/or 1/2"},
        {"event": "failed", "reason": "node17 lost https://example.org/a/b, node170 not", "job": None},
    ]
    with (folder / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"parent": "run", "where": f"{SECRET}/a"}, indent=1))
    out = tmp_path / "runs.tar.xz"
    assert said(capsys, "pack", folder, "--out", out)[0] == 0
    there = {name.rpartition("/")[2]: data.decode() for name, data in members(out).items()}
    for name, text in there.items():
        for ours in ("anna", "/home", "/scratch", "4711", "12_3", "~/"):
            assert ours not in text, (name, ours)
    before = (folder / "config.yaml").read_text().splitlines()
    config = yaml.safe_load(there["config.yaml"])
    assert config == yaml.safe_load((folder / "config.yaml").read_text()) | {
        "output_root": "outputs",
        "data_root": "data",
        "tracker": {"name": "none"},
        "dataset": dataset | {"path": "points.npz"},
    }
    assert "lr: 1.0e-05" in before
    assert "lr: 1.0e-05" in there["config.yaml"].splitlines()  # as it was written, not read and written again
    kept = (folder / "events.jsonl").read_text().splitlines()
    now = there["events.jsonl"].splitlines()
    assert now[: -len(lines)] == kept[: -len(lines)]
    assert [json.loads(line) for line in now[-len(lines) :]] == [
        {"event": "resume", "epoch": 1, "time": 1.5},
        {"event": "warning", "text": "no room in 'x y' for anna@***: see a.log:7 or and/or 1/2".replace("anna", "***")},
        {"event": "failed", "reason": "*** lost https://example.org/a/b, node170 not"},
    ]
    assert json.loads(there["summary.json"]) == summary | {"parent": "run", "where": "a"}


@pytest.fixture
def anna(tmp_path, monkeypatch):  # after pytest, whose folder has the user's name
    monkeypatch.setattr(getpass, "getuser", lambda: "anna")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/a/b/c.txt", "c.txt"),
        ("~anna/x", "x"),
        ("at /a/b.py:12, and /c/d; (/e/f)", "at b.py:12, and d; (f)"),
        ("PATH=/a/b:/c/d", "PATH=b:d"),
        ("file:///a/b", "file:///a/b"),  # an address; redacted when it was written, if it held a secret
        ("train/test, 1 / 2, ../x, ./y, outputs/main", "train/test, 1 / 2, ../x, ./y, outputs/main"),
        ('"/with blanks/in it"', '"in it"'),
        ("/", "/"),
    ],
)
def test_paths_keep_their_last_part(text, kept):
    assert anonymous.without_paths(text) == kept


def test_a_user_who_cannot_be_named_is_no_error(tmp_path, capsys, monkeypatch):
    def nobody():
        raise OSError("no entry for uid 1234")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert said(capsys, "pack", *two_runs(tmp_path), "--out", tmp_path / "a.tar.xz")[0] == 0


# Refusals, before anything is written


def refused(capsys, tmp_path, *words):
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.xz*")}
    code, out, err = said(capsys, "pack", *words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.xz*")} == before
    return err


def test_unfinished_runs_are_refused_by_name_unless_told(tmp_path, capsys):
    two_runs(tmp_path / "o")
    failed = failed_run(tmp_path / "o")
    words = (tmp_path / "o", "--out", tmp_path / "a.tar.xz")
    assert f"unfinished: {failed} (failed)" in refused(capsys, tmp_path, *words)
    assert "--unfinished" in refused(capsys, tmp_path, *words)
    code, text, _ = said(capsys, "pack", *words, "--unfinished")
    assert code == 0
    assert "3 runs of 1 experiment, 1 of them unfinished" in text
    files = [name.rpartition("/")[2] for name in members(tmp_path / "a.tar.xz") if "/failed/" in name]
    assert files == ["config.yaml", "events.jsonl", "metrics.csv"]


def test_runs_that_are_still_written_are_always_refused(tmp_path, capsys):
    slurm("1|PENDING")
    running = make(tmp_path, START, *epochs(1), name="running")
    queued = make(tmp_path, START, name="queued", job="1", submitted=time.time() - 60)
    with written(running):
        err = refused(capsys, tmp_path, tmp_path, "--unfinished", "--out", tmp_path / "a.tar.xz")
    assert f"{running} (running)" in err
    assert f"{queued} (submitted)" in err


def test_a_finished_run_that_lacks_a_file_is_refused(tmp_path, capsys):
    one, two = two_runs(tmp_path)
    words = (tmp_path, "--out", tmp_path / "a.tar.xz")
    (one / "summary.json").unlink()
    assert f"{one}: no summary.json" in refused(capsys, tmp_path, *words)
    (one / "summary.json").write_text("{")
    assert f"{one / 'summary.json'}: not JSON" in refused(capsys, tmp_path, *words)
    (one / "summary.json").write_text("[]")
    assert "expected an object" in refused(capsys, tmp_path, *words)
    (one / "summary.json").write_text("{}")
    (one / "events.jsonl").write_text('{"event": "start"}\n{"event"')
    assert f"{one / 'events.jsonl'}, line 2: not JSON" in refused(capsys, tmp_path, *words)
    (one / "events.jsonl").write_bytes(b"\xff\xfe")
    assert "events.jsonl: not UTF-8" in refused(capsys, tmp_path, *words)
    (one / "events.jsonl").write_text("")
    (two / "config.yaml").write_text("epochs: 2\nseed: 0\na: [")
    assert f"{two / 'config.yaml'}: not YAML" in refused(capsys, tmp_path, *words)


def test_links_are_never_followed(tmp_path, capsys):
    one, two = two_runs(tmp_path / "o")
    words = (tmp_path / "o", "--out", tmp_path / "a.tar.xz")
    (tmp_path / "o" / "exp" / "link").symlink_to(two)
    assert f"{tmp_path / 'o' / 'exp' / 'link'} is a symbolic link" in refused(capsys, tmp_path, *words)
    assert "is a symbolic link" in refused(capsys, tmp_path, tmp_path / "o" / "exp" / "link", *words[1:])
    (tmp_path / "o" / "exp" / "link").unlink()
    (tmp_path / "passwd").write_text("secret")
    (one / "metrics.csv").unlink()
    (one / "metrics.csv").symlink_to(tmp_path / "passwd")
    assert f"{one / 'metrics.csv'} is a symbolic link" in refused(capsys, tmp_path, *words)
    (one / "metrics.csv").unlink()
    (one / "metrics.csv").mkdir()
    assert f"{one / 'metrics.csv'}: expected a file" in refused(capsys, tmp_path, *words)


def test_two_runs_of_one_name_are_refused(tmp_path, capsys):
    one, other = (write_run(tmp_path / root, epochs=2) for root in "ab")
    err = refused(capsys, tmp_path, tmp_path / "a", tmp_path / "b", "--out", tmp_path / "x.tar.xz")
    assert f"exp/{one.name} is there twice: {one} and {other}" in err


@pytest.mark.parametrize("name", ["a.tar", "a.zip", "a.tar.gz", "absent/a.tar.xz", "folder.tar.xz"])
def test_an_archive_that_could_not_be_written_is_refused_first(tmp_path, capsys, name):
    two_runs(tmp_path / "o")
    (tmp_path / "folder.tar.xz").mkdir()
    err = refused(capsys, tmp_path / "o", tmp_path / "o", "--out", tmp_path / name)
    assert "--out: expected a file that ends in .tar.xz, in a folder that is there; got" in err


def test_no_runs_and_no_folder_are_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "no run in" in refused(capsys, tmp_path, tmp_path / "empty", "--out", tmp_path / "a.tar.xz")
    assert "no such folder" in refused(capsys, tmp_path, tmp_path / "none", "--out", tmp_path / "a.tar.xz")


def test_an_archive_is_whole_or_as_it_was(tmp_path, capsys, monkeypatch):
    two_runs(tmp_path / "o")
    out = tmp_path / "a.tar.xz"
    out.write_bytes(b"the one before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = said(capsys, "pack", tmp_path / "o", "--out", out)
    assert code == 2
    assert "No space left on device" in err
    assert out.read_bytes() == b"the one before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.xz", "o"]
    monkeypatch.undo()
    assert said(capsys, "pack", tmp_path / "o", "--out", out)[0] == 0
    assert lzma.decompress(out.read_bytes())
