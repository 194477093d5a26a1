"""What a launcher writes before sbatch, so that one that was killed behind it submits nothing twice."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_slurm import QUICK

from nclab.cluster import intent
from nclab.cluster.launch import on_slurm
from nclab.cluster.slurm import job_of


class Killed(BaseException):
    """As kill -9 would end it: nothing catches this."""


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_launcher_killed_behind_sbatch_does_not_submit_again(tiny, cluster, monkeypatch, seeds):
    """The jobs are in the queue and no folder names them."""
    configs = [tiny(f"seed={seed}") for seed in range(seeds)]
    ids = ["42"] if seeds == 1 else [f"42_{i}" for i in range(seeds)]
    write = intent.write_atomic

    def killed(path, *given):
        if path.name == intent.NOTE:
            raise Killed
        write(path, *given)

    with monkeypatch.context() as patch:
        patch.setattr(intent, "write_atomic", killed)
        with pytest.raises(Killed):
            on_slurm(configs, QUICK)
    assert len(cluster.calls("sbatch")) == 1
    assert [job_of(config.folder) for config in configs] == [None] * seeds
    (name,) = re.findall("--job-name=(.*)", (cluster.folder / "script").read_text())
    cluster.say(queue="7|RUNNING|None|other\n" + "".join(f"{job}|PENDING|Priority|{name}\n" for job in ids), next="43")
    on_slurm(configs, QUICK)
    assert len(cluster.calls("sbatch")) == 1
    assert [job_of(config.folder) for config in configs] == ids
    on_slurm(configs, QUICK)
    assert len(cluster.calls("sbatch")) == 1


def test_a_launcher_killed_before_sbatch_submits(tiny, cluster, monkeypatch):
    """Another's jobs of another name are in the queue, ours are not."""
    config = tiny()

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("submitit.SlurmExecutor.submit", killed)
        with pytest.raises(Killed):
            on_slurm([config], QUICK)
    assert cluster.calls("sbatch") == []
    cluster.say(queue="7|RUNNING|None|other\n")
    monkeypatch.setattr(intent, "SLACK", 0.2)
    monkeypatch.setattr(intent, "SECONDS_BETWEEN_LOOKS", 0.05)
    on_slurm([config], QUICK)
    assert len(cluster.calls("sbatch")) == 1
    assert len(cluster.calls("squeue")) > 2  # it may be listed a moment later
    assert job_of(config.folder) == "42"
    assert list(Path(config.output_root).glob(f".slurm/{intent.PATTERN}")) == []


def intended(config, *folders: Path, name: str = "nclab-x") -> Path:
    """What a launcher leaves that is killed behind sbatch."""
    file = Path(config.output_root) / ".slurm" / "abc" / "intent-0.json"
    file.parent.mkdir(parents=True)
    intent.intend(file, name, [[folder] for folder in folders])
    return file


def test_a_job_that_squeue_lists_late_is_not_submitted_again(tiny, cluster, monkeypatch):
    """The sbatch of a killed launcher goes on without it, and squeue may lag."""
    config = tiny()
    config.folder.mkdir(parents=True)
    intended(config, config.folder)
    cluster.say(queue="42|PENDING|Priority|nclab-x\n")
    cluster.script("squeue", f"[ $(grep -c squeue {cluster.folder}/calls) -lt 3 ] || cat queue")
    monkeypatch.setattr(intent, "SECONDS_BETWEEN_LOOKS", 0.05)
    on_slurm([config], QUICK)
    assert (cluster.calls("sbatch"), job_of(config.folder)) == ([], "42")


def test_the_sbatch_of_a_killed_launcher_submits_nothing_later(cluster, tmp_path):
    """However slow Slurm is: it ends with its launcher."""
    cluster.script("sbatch", "touch begun; while [ ! -e go ]; do sleep 0.05; done; touch accepted")
    code = (
        "from pathlib import Path; from nclab.cluster.job import submit, SlurmSettings; "
        f"submit([Path({str(tmp_path)!r})], 'name', Path({str(tmp_path / 'logs')!r}), SlurmSettings())"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as launcher:
        while not (cluster.folder / "begun").exists():
            assert launcher.poll() is None
            time.sleep(0.05)
        launcher.kill()
    (cluster.folder / "go").touch()
    time.sleep(0.5)
    assert not (cluster.folder / "accepted").exists()


def test_an_intent_of_long_ago_is_looked_for_as_long(tiny, cluster, monkeypatch):
    """Its launcher may have been killed a moment ago, while sbatch waited for Slurm."""
    config = tiny()
    config.folder.mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(intent.time, "time", lambda: 1000.0)
        intended(config, config.folder)
    cluster.script("squeue", f"[ $(grep -c squeue {cluster.folder}/calls) -lt 3 ] || cat queue")
    cluster.say(queue="42|PENDING|Priority|nclab-x\n")
    monkeypatch.setattr(intent, "SECONDS_BETWEEN_LOOKS", 0.05)
    on_slurm([config], QUICK)
    assert (cluster.calls("sbatch"), job_of(config.folder)) == ([], "42")


def test_a_folder_that_is_gone_keeps_no_other_from_its_job(tiny, cluster):
    config = tiny()
    config.folder.mkdir(parents=True)
    file = intended(config, config.folder.parent / "gone", config.folder)
    cluster.say(queue="42_0|PENDING|Priority|nclab-x\n42_1|PENDING|Priority|nclab-x\n")
    on_slurm([config], QUICK)
    assert (cluster.calls("sbatch"), job_of(config.folder), file.exists()) == ([], "42_1", False)
    assert not (config.folder.parent / "gone").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"name": "x", "jobs": 3, "submitted": 0}', '{"name": 1, "jobs": [["a"]]}', "\0\xff"]
)
def test_a_damaged_intent_is_said_in_one_line_and_removed(tiny, cluster, capsys, text):
    config = tiny()
    file = intended(config, config.folder)
    file.write_text(text, encoding="latin-1")
    on_slurm([config], QUICK)
    assert len(cluster.calls("sbatch")) == 1
    assert not file.exists()
    err = capsys.readouterr().err
    assert err.startswith(f"warning: {file} ")
    assert err.count("\n") == 1
