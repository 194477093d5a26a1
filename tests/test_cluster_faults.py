"""What befalls a sweep on a cluster: small arrays, a squeue that is slow, fails or says nonsense, a job that was
requeued too often, many runs at once. Slurm's commands are scripts here; a real one is in test_slurm.py."""

import itertools
import time

import pytest
from fake_slurm import QUICK

from nclab.cluster import job, launch
from nclab.cluster.job import Job
from nclab.cluster.launch import on_slurm
from nclab.cluster.slurm import JOBS_OF_AN_ARRAY, job_of, most_of_an_array
from nclab.run.execute import train
from nclab.runs import queue as queue_module
from nclab.runs.state import inspect
from nclab.system.signals import Stopped

CONFIG = "Configuration data as of now\nMaxArraySize            = {}\nMaxJobCount             = 10000\n"


@pytest.mark.parametrize(
    ("said", "most"), [(CONFIG.format(4), 3), (CONFIG.format(100001), JOBS_OF_AN_ARRAY), ("", JOBS_OF_AN_ARRAY),
                       (CONFIG.format(0), 1)]
)  # fmt: skip
def test_an_array_is_no_larger_than_the_site_allows(cluster, said, most):
    cluster.say(job=said)
    assert most_of_an_array() == most


def test_a_sweep_larger_than_an_array_is_several(tiny, cluster):
    """sbatch refuses an index that is not below MaxArraySize."""
    cluster.say(job=CONFIG.format(3))
    ids = "echo $(( $(grep -c sbatch calls) * 100 ))"
    refuse = 'grep -q "array=0-[2-9]" "$1" && { echo "Invalid job array specification" >&2; exit 1; }'
    cluster.script("sbatch", f'{refuse}; echo "Submitted batch job $({ids})"')
    configs = [tiny(f"seed={seed}") for seed in range(5)]
    on_slurm(configs, QUICK)
    assert [job_of(config.folder) for config in configs] == ["100_0", "100_1", "200_0", "200_1", "300"]


ANSWERS = (
    "exit 1",
    "exec sleep 99",
    "echo 'slurm_load_jobs error: Zero Bytes' >&2; exit 1",
    "cat queue",
    "exit 1",
    "cat queue",
)


def test_a_squeue_that_is_slow_or_fails_ends_no_run(tiny, cluster, monkeypatch, capsys):
    """Each answer in turn, then none any more: that the job is gone counts only when it was said, twice running."""
    monkeypatch.setattr(queue_module, "TIMEOUT", 2.0)
    config = tiny()
    config.folder.mkdir(parents=True)
    cluster.say(queue="42|RUNNING|None|nclab\n")
    cases = "".join(f"{n}) {answer};;\n" for n, answer in enumerate(ANSWERS, start=1))
    cluster.script("squeue", f"case $(grep -c squeue calls) in\n{cases}esac")
    began = time.monotonic()
    (failure,) = launch._follow({config.folder: "42"}, 0.01)
    assert "its job 42" in failure
    assert len(cluster.calls("squeue")) == len(ANSWERS) + launch.TIMES_ABSENT
    assert time.monotonic() - began < 60
    assert "  1 running\n" in capsys.readouterr().out


@pytest.mark.parametrize("nonsense", ["garbage", "\n\n\n", "|||||", "42", "\x00|\x00"])
def test_nonsense_of_squeue_is_no_crash(cluster, nonsense):
    cluster.say(queue=nonsense)
    assert set(queue_module.ask().jobs.values()) <= {"", "\x00"}


def test_the_limit_of_requeues_is_said_in_the_run(tiny, cluster, monkeypatch):
    config = tiny()
    on_slurm([config], QUICK)
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    monkeypatch.setattr(job, "fate_of", lambda *_: "alive")

    def stopped(*_):
        raise Stopped(10)

    monkeypatch.setattr("nclab.cluster.train_folders.train_folders", stopped)
    with pytest.raises(SystemExit):
        Job([str(config.folder)], 1, requeues=3)()
    run = inspect(config.folder)
    assert run.state == "failed"
    assert "requeued 3 times, hydra.launcher.requeues; the same command resumes" in run.reason
    assert not any("requeue" in call for call in cluster.calls("scontrol"))


def test_forty_runs_are_submitted_once_each(tiny, cluster, monkeypatch):
    """The launcher of 40 runs, given three times while jobs wait, run and end: none lost, none submitted twice."""
    configs = [tiny(f"seed={seed}") for seed in range(40)]
    on_slurm(configs, QUICK)
    jobs = [job_of(config.folder) for config in configs]
    assert len(set(jobs)) == 40
    states = itertools.cycle(["PENDING", "RUNNING"])
    cluster.say(queue="".join(f"{one}|{next(states)}|None|n\n" for one in jobs), next="43")
    on_slurm(configs, QUICK)
    done = train(configs[0])
    cluster.say(queue="".join(f"{one}|RUNNING|None|n\n" for one in jobs[2:]))
    on_slurm(configs, QUICK)
    assert len(cluster.calls("sbatch")) == 2
    again = [job_of(config.folder) for config in configs]
    assert (done / "DONE").exists()
    assert again == [jobs[0], "43", *jobs[2:]]
    assert len(list(done.parent.iterdir())) == 40
