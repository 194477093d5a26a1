"""What Slurm's reasons mean for who waits: shown at once, and after a minute what to do."""

import time

import pytest
from run_states import make, said, slurm

from nclab.cluster import launch, standing
from nclab.cluster.standing import Standing
from nclab.runs.queue import Queue
from nclab.runs.waiting import SECONDS_TO_ADVISE, what_to_do

HELD = "launch failed requeued held"
DRAINED = "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions"


@pytest.mark.parametrize(
    ("state", "reason", "advice"),
    [
        ("PENDING", HELD, "scontrol release 42_1"),
        ("PENDING", "JobHeldUser", "scontrol release 42_1"),
        ("PENDING", "JobHeldAdmin", "scontrol release 42_1"),
        ("PENDING", "JobHoldMaxRequeue", "scontrol release 42_1"),
        ("REQUEUE_HOLD", "None", "scontrol release 42_1"),
        ("PENDING", "PartitionConfig", "scancel 42'"),  # more CPUs than any node has
        ("PENDING", "PartitionTimeLimit", "scancel 42'"),
        ("PENDING", "InvalidAccount", "scancel 42'"),
        ("PENDING", "QOSMaxCpuPerJobLimit", "scancel 42'"),
        ("PENDING", DRAINED, "down, drained or reserved: 'sinfo -R'"),
        ("PENDING", "ReqNodeNotAvail, UnavailableNodes:n1", "sinfo -R"),
        ("PENDING", "ReqNodeNotAvail, Reserved for maintenance", "or reserved: 'sinfo -R'"),
        ("PENDING", "Resources", None),
        ("PENDING", "Priority", None),
        ("PENDING", "None", None),
        ("PENDING", "BeginTime", None),
        ("PENDING", "JobArrayTaskLimit", None),
        ("PENDING", "QOSMaxJobsPerUserLimit", None),
    ],
)
def test_only_jobs_that_nobody_will_start_have_an_advice(state, reason, advice):
    said = what_to_do("42_1", state, reason)
    assert said is advice is None or advice in said


@pytest.mark.usefixtures("without_slurm")
@pytest.mark.parametrize(("waited", "advised"), [(SECONDS_TO_ADVISE + 5, True), (0, False)])
def test_status_shows_the_reason_and_after_a_minute_what_to_do(tmp_path, capsys, waited, advised):
    slurm(f"12_0|PENDING|{HELD}|nclab-x|y", "12_1|PENDING|Resources|n", f"12_2|PENDING|{HELD}|n")
    make(tmp_path, name="0", job="12_0", submitted=time.time() - waited)
    make(tmp_path, name="1", job="12_1")
    make(tmp_path, name="2", job="12_2", submitted=time.time() - waited)
    out = said(capsys, "status", tmp_path)[1]
    assert f"job 12_0 PENDING ({HELD})" in out
    line = f"job 12_0 and 1 more: PENDING ({HELD}): it is held until 'scontrol release 12_0'"
    assert (line in out) == ("scontrol" in out) == advised
    assert "job 12_1 PENDING (Resources)\n" in out


def test_a_launcher_says_once_what_to_do_about_jobs_that_never_begin(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(standing.time, "monotonic", lambda: now[0])
    jobs = {"42_0": "PENDING", "42_1": "PENDING", "42_2": "RUNNING", "42_3": "PENDING"}
    waits = {"42_0": "PartitionConfig", "42_1": "PartitionConfig", "42_2": "None", "42_3": "Priority"}
    say = Standing()
    for now[0] in (0.0, 30.0, SECONDS_TO_ADVISE, 2 * SECONDS_TO_ADVISE):
        say.look(Queue(jobs, 0, reasons=waits), list(jobs))
        if now[0] == 30.0:
            assert capsys.readouterr() == ("  3 pending (PartitionConfig, Priority), 1 running\n", "")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("warning: job 42_0 and 1 more: PENDING (PartitionConfig): no node or limit")
    assert err.count("\n") == 1


def test_a_reason_that_passes_is_no_matter(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(standing.time, "monotonic", lambda: now[0])
    say = Standing()
    for seconds, reason in ((0, "BadConstraints"), (50, "Priority"), (55, "BadConstraints"), (70, "BadConstraints")):
        now[0] = float(seconds)
        say.look(Queue({"42": "PENDING"}, 0, reasons={"42": reason}), ["42"])
    assert capsys.readouterr().err == ""


def test_the_sweep_that_is_followed_says_it(tiny, cluster, capsys, monkeypatch):
    monkeypatch.setattr(standing, "SECONDS_TO_ADVISE", 0.0)
    config = tiny()
    config.folder.mkdir(parents=True)
    cluster.say(queue=f"42|PENDING|{HELD}|nclab\n")
    cluster.script("squeue", f"[ $(grep -c squeue {cluster.folder}/calls) -gt 2 ] || cat queue")
    (failure,) = launch._follow({config.folder: "42"}, 0.05)
    assert "its job 42" in failure
    out, err = capsys.readouterr()
    assert f"  1 pending ({HELD})\n" in out
    assert err.count("scontrol release 42'") == 1
