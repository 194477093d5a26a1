"""`nclab-runs clean`: it removes what it listed, if that still is what it was, and nothing else."""

import contextlib
import io
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from run_states import HOUR, START, answer, epochs, event, failed_run, make, said, slurm, written

from nclab.runs import clean, find
from nclab.runs.state import inspect

pytestmark = pytest.mark.usefixtures("without_slurm")


def test_clean_removes_what_it_listed_after_asking(tmp_path, capsys, monkeypatch):
    first, second = failed_run(tmp_path), make(tmp_path, START, *epochs(1), name="interrupted")
    (first / "wandb").mkdir()
    (first / "wandb" / "log").write_text("x" * 3_000_000)
    (first / "notes.txt").touch()
    for text in ("n", "", None, "maybe"):
        answer(monkeypatch, text)
        code, out, _ = said(capsys, "clean", tmp_path, "--state", "failed")
        assert code == 1
        assert out.splitlines()[1].split() == ["failed", str(first), "1/10", "3.0", "MB", "with", "notes.txt"]
        assert out.endswith("to remove: 1 run, 3.0 MB\nnothing is removed\n")
        assert first.exists()
    answer(monkeypatch, "y")
    assert said(capsys, "clean", tmp_path, "--state", "failed")[0] == 0
    assert not first.exists()
    assert second.exists()


def test_clean_without_anybody_to_ask_refuses(tmp_path, capsys, monkeypatch):
    folder = failed_run(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    code, out, err = said(capsys, "clean", tmp_path, "--state", "failed")
    assert code == 2
    assert str(folder) in out
    assert err == "nobody to ask here: --yes removes them; nothing is removed\n"
    assert folder.exists()
    assert said(capsys, "clean", tmp_path, "--state", "failed", "--yes")[0] == 0
    assert not folder.exists()


def test_running_queued_and_done_runs_are_not_cleaned(tmp_path, capsys):
    slurm("1|PENDING")
    running, done = failed_run(tmp_path, "running"), failed_run(tmp_path, "done", done=True)
    pending = failed_run(tmp_path, "queued", job="1", submitted=time.time() - 60)
    with written(running):
        assert said(capsys, "clean", tmp_path, "--state", "failed,interrupted", "--yes") == (
            0,
            "nothing to remove\n",
            "",
        )
    assert running.exists()
    assert pending.exists()
    assert said(capsys, "clean", tmp_path, "--state", "done", "--yes")[0] == 0
    assert not done.exists()


def test_a_run_that_begins_before_the_answer_is_kept(tmp_path, capsys, monkeypatch):
    folder, other = failed_run(tmp_path), failed_run(tmp_path, "other")
    with contextlib.ExitStack() as begun:
        answer(monkeypatch, "y", lambda: begun.enter_context(written(folder)))
        code, out, err = said(capsys, "clean", tmp_path, "--state", "failed")
    assert code == 1
    assert f"kept: {folder}: {folder} is being written by pid 1 on elsewhere" in err
    assert out.endswith("removed 1 run\n")
    assert (folder / "checkpoint.pt").exists()
    assert not other.exists()


@pytest.mark.parametrize(
    ("meanwhile", "message"),
    [
        (lambda folder: (folder / "DONE").touch(), "it was failed, now it is done"),
        (shutil.rmtree, "it is gone already"),
        (lambda folder: (folder / "config.yaml").unlink(), "it was failed, now it is no run"),
        (lambda folder: (folder / "events.jsonl").write_text(json.dumps(START) + "\n"), "now it is interrupted"),
        (
            lambda folder: (folder / "slurm.json").write_text(json.dumps({"job": "9", "submitted": time.time()})),
            "now it is submitted",
        ),
    ],
)
def test_a_run_that_is_not_what_was_listed_is_kept(tmp_path, capsys, monkeypatch, meanwhile, message):
    folder = failed_run(tmp_path)
    answer(monkeypatch, "y", lambda: meanwhile(folder))
    code, out, err = said(capsys, "clean", tmp_path, "--state", "failed")
    assert code == 1
    assert message in err
    assert out.endswith("removed 0 runs\n")
    assert not folder.exists() or (folder / "checkpoint.pt").exists()


def test_a_killed_run_of_another_machine_is_kept_until_it_was_silent(tmp_path, capsys):
    fresh = make(tmp_path, START, event("epoch", 60, epoch=1, train_seconds=1.0, measure_seconds=1.0), name="fresh")
    slow = make(tmp_path, START, *epochs(1, seconds=HOUR), name="slow")
    said_so = make(tmp_path, START, event("stopped", 60, signal="SIGTERM", epoch=1), name="stopped")
    old = make(tmp_path, START, *epochs(1), name="old")
    code, _, err = said(capsys, "clean", tmp_path, "--state", "interrupted", "--yes")
    assert code == 1
    assert f"left alone: {fresh}: its last event is 1 min old, of a process on elsewhere" in err
    assert "silent for 5.0 h" in err
    assert [folder.exists() for folder in (fresh, slow, said_so, old)] == [True, True, False, False]
    (fresh / ".lock").write_text(f"pid 1 on {os.uname().nodename}")
    said(capsys, "clean", tmp_path, "--state", "interrupted", "--yes")
    assert not fresh.exists()


def test_clean_follows_no_symbolic_link(tmp_path, capsys):
    outside = failed_run(tmp_path / "outside")
    (outside / "file").write_text("precious")
    folder = failed_run(tmp_path / "inside")
    (folder / "events.jsonl").replace(tmp_path / "events")
    (folder / "events.jsonl").symlink_to(tmp_path / "events")
    (folder / "wandb").symlink_to(outside, target_is_directory=True)
    (folder / "checkpoint.pt").unlink()
    (folder / "checkpoint.pt").symlink_to(outside / "file")
    link = tmp_path / "inside" / "exp" / "link"
    link.symlink_to(outside, target_is_directory=True)
    whole = tmp_path / "inside" / "linked"
    whole.symlink_to(outside.parent, target_is_directory=True)
    assert len(find.find_runs([tmp_path / "inside"])) == 2  # to look is another thing
    code, _, err = said(capsys, "clean", tmp_path / "inside", link, "--state", "failed", "--yes")
    assert code == 1
    assert err.count(f"left alone: {link} is a symbolic link") == 2
    assert f"left alone: {whole} is a symbolic link" in err
    assert not folder.exists()
    assert (outside / "file").read_text() == "precious"
    assert (outside / "config.yaml").exists()
    assert (tmp_path / "events").exists()
    with pytest.raises(clean.Kept, match="is a symbolic link"):
        clean.plan(inspect(link), checkpoints=False)
    root = tmp_path / "root"  # named: the user means what it points to
    root.symlink_to(tmp_path / "outside", target_is_directory=True)
    assert said(capsys, "clean", root, "--state", "failed", "--yes")[0] == 0
    assert not outside.exists()


def test_a_folder_that_is_no_run_is_never_removed(tmp_path, capsys):
    for name, text in (("config.yaml", "epochs: 3\n"), ("slurm.json", "{}"), (".lock", "pid 1 on x"), ("DONE", "")):
        folder = tmp_path / "project" / name.strip(".")
        folder.mkdir(parents=True)
        (folder / name).write_text(text)
    assert said(capsys, "clean", tmp_path, "--state", "failed,interrupted,done", "--yes")[1] == "nothing to remove\n"
    assert len(list((tmp_path / "project").iterdir())) == 4


def test_removal_cut_anywhere_never_looks_finished_or_resumable(tmp_path, monkeypatch):
    unlink = Path.unlink

    class Cut(BaseException):
        pass

    for n in range(20):
        folder = make(tmp_path, START, *epochs(1), name=f"run{n}", done=True)
        (folder / "checkpoint.previous.pt").write_text("weights")
        before = {path.name for path in folder.iterdir()}
        left = {"n": n}

        def cut(path, missing_ok=False, left=left):
            if path.exists():
                if left["n"] == 0:
                    raise Cut
                left["n"] -= 1
            unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "unlink", cut)
        with contextlib.suppress(Cut):
            clean.remove(clean.plan(inspect(folder), False), None, False)
        monkeypatch.setattr(Path, "unlink", unlink)
        if not folder.exists():
            assert n == len(before)
            break
        names = {path.name for path in folder.iterdir()}
        assert "DONE" not in names or names == before
        assert names >= {"events.jsonl", "metrics.csv"} or not names & {"checkpoint.pt", "checkpoint.previous.pt"}
        assert "config.yaml" in names or names <= {".lock"}
    else:
        pytest.fail("never removed")


def test_checkpoints_of_done_runs_alone(tmp_path, capsys):
    done, failed = make(tmp_path, START, name="done", done=True), failed_run(tmp_path)
    without = make(tmp_path, START, name="without", done=True)
    (without / "checkpoint.pt").unlink()
    (done / "checkpoint.previous.pt").write_text("w" * 2_000_000)
    before = {path.name for path in done.iterdir()}
    code, out, _ = said(capsys, "clean", tmp_path, "--checkpoints", "--yes")
    assert code == 0
    assert "without" not in out
    assert out.endswith("to remove: the checkpoints of 1 run, 2.0 MB\nremoved the checkpoints of 1 run\n")
    assert before - {path.name for path in done.iterdir()} == {"checkpoint.pt", "checkpoint.previous.pt"}
    assert (failed / "checkpoint.pt").exists()
    assert inspect(done).state == "done"


def test_checkpoints_of_a_run_that_starts_over_are_kept(tmp_path, capsys, monkeypatch):
    done = make(tmp_path, START, name="done", done=True)
    answer(monkeypatch, "y", (done / "DONE").unlink)
    code, _, err = said(capsys, "clean", tmp_path, "--checkpoints")
    assert code == 1
    assert "it was done, now it is interrupted" in err
    assert (done / "checkpoint.pt").exists()


def test_files_that_resist_are_named(tmp_path, capsys, monkeypatch):
    folder = failed_run(tmp_path)

    def refuse(path, missing_ok=False):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    code, out, err = said(capsys, "clean", tmp_path, "--state", "failed", "--yes")
    assert code == 1
    assert f"kept: {folder}: [Errno 13] Permission denied" in err
    assert out.endswith("removed 0 runs\n")


def test_ctrl_c_at_the_question_removes_nothing(tmp_path, capsys, monkeypatch):
    folder = failed_run(tmp_path)

    def interrupt():
        raise KeyboardInterrupt

    answer(monkeypatch, "y", interrupt)
    assert said(capsys, "clean", tmp_path, "--state", "failed")[0] == 130
    assert folder.exists()
