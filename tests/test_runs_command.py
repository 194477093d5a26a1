"""`nclab-runs status` and `failed`: what they say of runs in every state, also while they change under their hands."""

import csv
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_runs import write_run
from hydra.core.override_parser.overrides_parser import OverridesParser
from run_states import HOUR, START, epochs, event, make, said, slurm, written

from nclab.cluster.workers import Outcome, describe
from nclab.runs import command, find, main, queue, state
from nclab.runs.state import Headline, inspect, is_run, tail

pytestmark = pytest.mark.usefixtures("without_slurm")


def diverged():
    return event("diverged", epoch=3, running_loss=None, learning_rate=0.5)


def states(root):
    return {run.name: run.state for run in find.find_runs([root])}


@pytest.mark.parametrize(
    ("events", "expected", "reason"),
    [
        ([], "interrupted", "never began"),
        ([START, *epochs(1, 2)], "interrupted", "killed or crashed"),
        ([START, *epochs(1), event("stopped", signal="SIGTERM", epoch=1)], "interrupted", "stopped by SIGTERM"),
        ([START, event("requeue", job="7", epoch=0)], "interrupted", "requeued as job 7, which Slurm does not know"),
        ([START, *epochs(1, 2), diverged()], "failed", "diverged in epoch 3 at learning rate 0.5"),
        ([START, diverged(), event("failed", reason="loss\nis nan")], "failed", "loss is nan"),
        ([START, event("failed", reason="disk full"), event("warning", epoch=1, text="x")], "failed", "disk full"),
        ([START, event("failed", reason="disk full"), event("resume", epoch=1)], "interrupted", "killed or crashed"),
        ([START, diverged(), START, *epochs(1)], "interrupted", "killed or crashed"),
        ([START, {"event": "diverged"}], "failed", "diverged in epoch ?"),
    ],
)
def test_the_state_of_a_run_that_nobody_writes(tmp_path, events, expected, reason):
    run = inspect(make(tmp_path, *events))
    assert (run.state, run.reason) == (expected, reason)


def test_progress_eta_and_accuracy(tmp_path):
    done = inspect(make(tmp_path, START, name="done", done=True))
    assert (done.state, done.epoch, done.epochs, done.test_accuracy) == ("done", 10, 10, 0.875)
    folder = make(tmp_path, START, *epochs(1, seconds=500), event("resume", epoch=1), *epochs(2, 3, 4, seconds=3))
    with written(folder):
        run = inspect(folder)
    assert (run.state, run.epoch, run.epochs, run.eta) == ("running", 4, 10, 18.0)  # by the epochs since the resume
    assert run.age == pytest.approx(HOUR, abs=5)
    assert run.reason == "no event for 1.0 h"  # stuck
    assert inspect(folder).state == "interrupted"
    several = make(tmp_path, START, *epochs(1, 2, seconds=3, seeds=4), event("warning", 2), name="together")
    with written(several):
        run = inspect(several)
    assert (run.eta, run.reason) == (8 * 3 * 4, "")


def test_a_lock_of_another_process_means_running(tmp_path):
    folder = make(tmp_path, START, *epochs(1))
    code = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    words = [sys.executable, "-c", code, folder / ".lock"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert inspect(folder).state == "running"
        process.kill()
    assert inspect(folder).state == "interrupted"


def test_a_run_that_finishes_while_it_is_looked_at_is_not_interrupted(tmp_path, monkeypatch):
    folder = make(tmp_path, START, *epochs(1))

    def free_and_done(path):
        (path / "DONE").touch()
        return False

    monkeypatch.setattr(state.lock, "is_held", free_and_done)
    assert inspect(folder).state == "done"


def test_half_a_line_and_lines_that_are_no_events_are_passed_over(tmp_path):
    file = tmp_path / "events.jsonl"
    assert tail(file) == []
    file.write_text('{"event": "start"}\nnonsense\n[1]\n{"epoch": 3}\n\n{"event": "epoch", "epoch": 1}\n{"event": "epo')
    assert [e["event"] for e in tail(file)] == ["start", "epoch"]
    file.write_text('{"event": "st')
    assert tail(file) == []


def test_only_the_end_of_the_events_is_read_but_at_least_one(tmp_path):
    file = tmp_path / "events.jsonl"
    lines = [json.dumps(e) for e in epochs(*range(500))]
    file.write_text("\n".join(lines) + "\n")
    few = tail(file)
    assert few == [json.loads(line) for line in lines[-len(few) :]]
    assert 10 < len(few) < 50
    long = json.dumps({"event": "start", "layers": ["x" * 50] * 2000})
    file.write_text(f"{lines[0]}\n{long}\n")
    assert [e["event"] for e in tail(file)][-1] == "start"


def test_a_folder_that_vanishes_in_the_middle_is_no_run(tmp_path, monkeypatch, capsys):
    make(tmp_path, START, name="stays")
    removed = make(tmp_path, START, name="vanishes")
    read = state.tail

    def vanish(file):
        if file.parent == removed:
            shutil.rmtree(removed)
        return read(file)

    monkeypatch.setattr(state, "tail", vanish)
    assert said(capsys, "status", tmp_path)[1].count("vanishes") == 0
    gone = tmp_path / "gone"
    monkeypatch.setattr(find, "_subfolders", lambda *_: [gone])  # listed, then removed
    assert find.find_runs([tmp_path]) == []
    monkeypatch.undo()
    assert find._below(gone, 2, None) == []


def test_a_file_that_cannot_be_read_is_told(tmp_path, capsys):
    folder = make(tmp_path, START)
    (folder / "events.jsonl").unlink()
    (folder / "events.jsonl").mkdir()
    code, out, _ = said(capsys, "status", tmp_path)
    assert code == 0
    assert "unreadable" in out
    assert "Is a directory: " in out


def test_an_experiment_that_cannot_be_listed_is_told(tmp_path, monkeypatch):
    make(tmp_path, START)

    def refuse(folder, links):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(find, "_subfolders", refuse)
    monkeypatch.setattr(state, "_numbers", lambda folder: refuse(folder, None))
    (run,) = find.find_runs([tmp_path])
    assert (run.state, run.reason) == ("unreadable", f"Permission denied: {tmp_path}")


def test_what_is_a_run_folder(tmp_path):
    folder = make(tmp_path, START)
    assert [run.path for run in find.find_runs([folder, tmp_path, tmp_path / "exp"])] == [folder]
    submitted = tmp_path / "exp" / "submitted"
    submitted.mkdir()
    for text in ("", "[]", '{"job": 3, "submitted": 1}', '{"job": "3"'):
        (submitted / "slurm.json").write_text(text)
        assert not is_run(submitted)
    (submitted / "slurm.json").write_text('{"job": "3", "submitted": 1}')
    assert is_run(submitted)
    other = tmp_path / "exp" / "other"
    other.mkdir()
    (other / "config.yaml").write_text("epochs: many\nseed: 3\n")
    shutil.copytree(folder, tmp_path / "exp" / ".hidden")
    assert states(tmp_path) == {"run": "interrupted", "submitted": "submitted"}


def test_three_hundred_folders_and_no_metrics_read(tmp_path, capsys):
    for i in range(300):
        folder = make(tmp_path, START, *epochs(1, 2), name=f"run{i}", experiment=f"exp{i % 3}", done=i % 2 == 0)
        (folder / "metrics.csv").unlink()
        (folder / "metrics.csv").mkdir()  # cannot be opened as a file: the run would be unreadable
    code, out, _ = said(capsys, "status", tmp_path)
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["experiment", "runs", "done", "interrupted", "%"],
        *([f"exp{i}", "100", "50", "50", "60"] for i in range(3)),
        [],
        ["300", "runs:", "150", "done,", "150", "interrupted", "(--all:", "a", "row", "each)"],
        ["why,", "and", "how", "to", "go", "on:", "nclab-runs", "failed"],
    ]
    assert said(capsys, "status", tmp_path, "--all")[1].count("\nexp") == 300
    assert said(capsys, "status", tmp_path, "--state", "done")[1].count("\nexp") == 150
    assert said(capsys, "status", tmp_path, "--experiment", "exp1", "--state", "done")[1].count("\nexp") == 50


@pytest.mark.fast
def test_status_as_table_csv_and_json(tmp_path, capsys):
    make(tmp_path, START, name="a", done=True)
    make(tmp_path, START, *epochs(1, 2), event("failed", reason="why " * 40), name="b")
    running = make(tmp_path, START, *epochs(1, 2), event("warning", 1), name="c")
    with written(running):
        code, out, err = said(capsys, "status", tmp_path)
        records = json.loads(said(capsys, "status", tmp_path, "--json")[1])
        table = list(csv.DictReader(io.StringIO(said(capsys, "status", tmp_path, "--csv")[1])))
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].split("  ")[0] == "experiment"
    assert "  test accuracy  " in lines[0]
    assert lines[1].split() == ["exp", "a", "done", "10/10", "100", "0.8750"]
    assert lines[2].endswith("1.0 h ago  " + ("why " * 40)[:69] + "…")
    assert lines[3].split() == ["exp", "c", "running", "2/10", "20", "16", "s", "1", "s", "ago"]
    assert lines[5] == "3 runs: 1 done, 1 running, 1 failed"
    assert [record["state"] for record in records] == [row["state"] for row in table] == ["done", "failed", "running"]
    assert records[0]["test_accuracy"] == 0.875
    assert records[2]["eta_seconds"] == float(table[2]["eta_seconds"]) == 16
    assert table[1]["folder"] == str(tmp_path / "exp" / "b")


def test_the_headline_stands_for_a_run(tmp_path, capsys):
    scored, undefined, old = (make(tmp_path, START, name=name, done=True) for name in ("a", "b", "c"))
    for folder, value in ((scored, 0.5), (undefined, None)):
        headline = {"split": "valid", "metric": "r2", "value": value}
        (folder / "summary.json").write_text(json.dumps({"headline": headline, "wall_seconds": 3, "final": {}}))
    assert inspect(scored).headline == Headline("valid", "r2", 0.5)
    assert inspect(undefined).headline is None
    lines = said(capsys, "status", tmp_path)[1].splitlines()
    assert "headline" in lines[0]
    assert lines[1].endswith("valid r2 0.5000")
    assert lines[3].endswith("test accuracy 0.8750")
    records = json.loads(said(capsys, "status", tmp_path, "--json")[1])
    assert [record["headline"] for record in records] == ["valid r2", None, "test accuracy"]
    assert [record["headline_value"] for record in records] == [0.5, None, 0.875]
    assert [record["test_accuracy"] for record in records] == [None, None, 0.875]
    assert describe(Outcome(scored)) == "exp/a  valid r2 0.5000  3 s"
    assert describe(Outcome(undefined)) == "exp/b  headline undefined  3 s"
    assert inspect(old).headline_name == "test accuracy"


def test_without_a_command_the_commands_are_listed(capsys):
    code, out, err = said(capsys)
    assert (code, err) == (2, "")
    assert all(f"\n    {command} " in out for command in ("status", "failed", "export", "clean"))


def test_no_run_is_no_error(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    assert said(capsys, "status") == (0, "0 runs\n", "")
    assert said(capsys, "status", "--csv")[1].startswith("experiment,run,state")
    assert said(capsys, "failed") == (0, "0 runs\n", "")
    assert said(capsys, "clean", "--state", "failed") == (0, "nothing to remove\n", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status", "absent"], "no such folder: absent"),
        (["status", "x" * 300], "File name too long"),
        (["status", "outputs", "--experiment", "exq"], "no experiment 'exq'; there are: exp"),
        (["status", "--state", "failed,runing"], "unknown state 'runing'; valid: done, running, queued"),
        (["clean", "--state", "running"], "unknown state 'running'; valid: failed, interrupted, done"),
        (["clean"], "one of the arguments --state --checkpoints is required"),
        (["clean", "--checkpoints", "--state", "done"], "not allowed with argument"),
        (["status", "--csv", "--json"], "not allowed with argument"),
        (["export", "outputs"], "required: --out"),
        (["export", "outputs", "--out", "f.xlsx"], "expected a file that ends in .parquet or .csv, got f.xlsx"),
        (["export", "outputs", "--out", "no/f.csv"], "expected a file in a folder that is there, got no/f.csv"),
        (["export", "absent", "--out", "f.csv"], "no such folder: absent"),
        (["export", "outputs", "--out", "f.csv"], "no finished run under outputs"),
    ],
)
def test_wrong_words_are_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    folder = make(tmp_path / "outputs", START)
    shutil.copy(write_run(tmp_path / "other", done=False) / "config.yaml", folder / "config.yaml")
    try:
        code = main(words)
    except SystemExit as left:
        code = left.code
    err = capsys.readouterr().err
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("f.*"))


# What Slurm says


def test_slurm_is_asked_once_for_all(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SQUEUE_STATES", "hides-jobs")
    asked = slurm(
        "12_0|PENDING|PartitionConfig|n",
        "12_2|RUNNING",
        "12_4|COMPLETING",
        "12_5|REQUEUE_HOLD",
        "12_6|PENDING",
        "12_7|RUNNING",
    )
    failed = event("failed", reason="disk full")
    requeue = [event("stopped", signal="SIGUSR2", epoch=1), event("requeue", job="12_4", epoch=1)]
    make(tmp_path, name="0", job="12_0")
    make(tmp_path, name="1", job="12_1")
    make(tmp_path, START, *epochs(1), name="2", job="12_2")
    make(tmp_path, name="3", job="12_3", submitted=time.time())  # the list may be older than that
    make(tmp_path, START, *requeue, name="4", job="12_4")
    make(tmp_path, START, *epochs(1), name="5", job="12_5")
    make(tmp_path, START, failed, name="6", job="12_6")
    make(tmp_path, START, failed, name="7", job="12_7")
    make(tmp_path, START, failed, name="8", job="12_7", submitted=time.time() - 60)  # submitted again since
    make(tmp_path, START, *epochs(1), name="9", job="12_9")
    make(tmp_path, START, name="a", job="12_a", done=True)
    running = make(tmp_path, START, name="b", job="12_b")
    with written(running):
        records = json.loads(said(capsys, "status", tmp_path, "--json")[1])
    assert {r["run"]: (r["state"], r["reason"]) for r in records} == {
        "0": ("queued", "job 12_0 PENDING (PartitionConfig)"),
        "1": ("interrupted", "job 12_1 ended before the run began"),
        "2": ("queued", "job 12_2 RUNNING"),
        "3": ("queued", "job 12_3 PENDING"),
        "4": ("queued", "job 12_4 COMPLETING"),
        "5": ("queued", "job 12_5 REQUEUE_HOLD"),
        "6": ("queued", "job 12_6 PENDING"),
        "7": ("failed", "disk full"),
        "8": ("queued", "job 12_7 RUNNING"),
        "9": ("interrupted", "killed or crashed"),
        "a": ("done", ""),
        "b": ("running", ""),
    }
    assert asked.read_text() == "-h -r -o %i|%T|%r|%j\n"


def test_slurm_is_not_asked_without_need(tmp_path, capsys):
    asked = slurm()
    make(tmp_path, START, name="a", job="1", done=True)
    make(tmp_path, START, event("failed", reason="x"), name="b")
    running = make(tmp_path, START, name="c", job="3")
    with written(running):
        assert said(capsys, "status", tmp_path)[2] == ""
    assert not asked.exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, "squeue is not installed here"),
        ("echo noise >&2; echo 'no controller' >&2; exit 1", "squeue failed: no controller"),
        ("exit 3", "squeue failed: exit code 3"),
        ("exec /bin/sleep 20", "squeue did not answer within 0.3 s"),
    ],
)
def test_without_slurm_a_submitted_run_is_called_so_and_kept(tmp_path, capsys, monkeypatch, code, message):
    monkeypatch.setattr(queue, "TIMEOUT", 0.3)
    if code:
        slurm(code=code)
    folder = make(tmp_path, START, *epochs(1), job="12_3")
    _, out, err = said(capsys, "status", tmp_path)
    assert err == f"{message}; so no run is shown as queued\n"
    assert "1 submitted" in out
    assert said(capsys, "clean", tmp_path, "--state", "failed,interrupted", "--yes")[1] == "nothing to remove\n"
    assert folder.exists()


def test_a_squeue_that_cannot_be_run_is_told():
    slurm()
    (Path(os.environ["PATH"]) / "squeue").chmod(0o644)
    with pytest.raises(queue.QueueError, match=r"squeue cannot be run: .*Permission denied"):
        queue.ask()


def test_a_submitted_run_that_vanishes_meanwhile(tmp_path, capsys):
    folder = make(tmp_path, job="1")
    slurm(code=f"/bin/rm -r {folder}")
    assert said(capsys, "status", tmp_path)[1] == "0 runs\n"


# failed


@pytest.mark.fast
def test_failed_says_why_and_how_to_go_on(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(Path("outputs"), START, *epochs(1, 2), diverged(), name="a")
    make(Path("outputs"), START, *epochs(1), event("stopped", signal="SIGTERM", epoch=1), name="b")
    make(Path("outputs"), START, name="c", done=True)
    code, out, _ = said(capsys, "failed")
    assert code == 1
    assert out.splitlines() == [
        "exp/a",
        "  failed at epoch 2/10, 1.0 h ago: diverged in epoch 3 at learning rate 0.5",
        "  python -m nclab.train resume=outputs/exp/a",
        "exp/b",
        "  interrupted at epoch 1/10, 1.0 h ago: stopped by SIGTERM",
        "  python -m nclab.train resume=outputs/exp/b",
        "",
        "2 runs: 1 interrupted, 1 failed",
    ]
    (Path("outputs/exp/a/config.yaml")).unlink()
    assert "never began" in command.resume_command(Path("outputs/exp/a"))


@pytest.mark.parametrize(
    "name",
    ["plain-s0.5+x", "with space", "a=b,c", "it's $HOME", "back\\slash [1] {x}", "\\' \\\\'", "' \\", "null", "é"],
)
def test_the_resume_command_survives_shell_and_hydra(tmp_path, name):
    folder = make(tmp_path, START, name=name)
    *_, word = shlex.split(command.resume_command(folder))
    override = OverridesParser.create().parse_override(word)
    assert (override.get_key_element(), str(override.value())) == ("resume", str(folder))


# The process


def test_a_reader_that_has_enough_ends_it_quietly(tmp_path):
    for i in range(300):
        make(tmp_path, START, name=f"run{i}-{'x' * 200}")
    words = [sys.executable, "-m", "nclab.runs", "status", str(tmp_path), "--json"]
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}  # it hides the error
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=plain) as process:
        assert process.stdout.readline() == "[\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == 0


def test_help_shows_every_command(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    for name in ("status", "failed", "export", "clean"):
        assert f"\n  nclab-runs {name}" in out
