"""Sweeps by hydra/launcher=local and slurm. Here Slurm's commands are scripts that say what a test wants to hear; a
real Slurm is in test_slurm.py."""

import base64
import json
import os
import pickle
import signal
import subprocess
import sys

import pytest
import yaml
from fake_slurm import QUICK
from run_folders import events

from nclab.cluster import job as job_module
from nclab.cluster import launch, slurm
from nclab.cluster import train_folders as folders_module
from nclab.cluster.job import Job, submit
from nclab.cluster.launch import SweepFailed, on_slurm, on_this_machine
from nclab.cluster.slurm import SlurmError, SlurmSettings, fate_of, job_of
from nclab.cluster.train_folders import train_folders
from nclab.cluster.workers import shared_gpus
from nclab.config.schema import ConfigError
from nclab.run.execute import train
from nclab.run.started import as_started, requested
from nclab.runfolder.folder import RunFolder, RunLocked
from nclab.runs.queue import Queue
from nclab.system.machine import default_threads
from nclab.train import main


def test_what_is_submitted_is_frozen_in_its_folder_and_not_submitted_twice(tiny, cluster, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    configs = [tiny(f"seed={seed}", "threads=null") for seed in range(3)]
    train(tiny("seed=0"))
    on_slurm(configs, QUICK)
    assert len(cluster.calls("sbatch")) == 1
    script = (cluster.folder / "script").read_text()
    for line in ("--array=0-1%2", "--requeue", "--signal=USR2@120", "--time=240", "--cpus-per-task=4"):
        assert f"#SBATCH {line}" in script
    assert [job_of(config.folder) for config in configs] == [None, "42_0", "42_1"]
    stored = yaml.safe_load((configs[1].folder / "config.yaml").read_text())
    assert stored["seed"] == 1
    assert stored["threads"] == 4
    assert not (configs[1].folder / "events.jsonl").exists()

    cluster.say(queue="42_0|PENDING\n42_1|RUNNING\n", next="43")
    on_slurm(configs, QUICK)
    assert len(cluster.calls("sbatch")) == 1
    cluster.say(queue="42_1|RUNNING\n")
    on_slurm(configs, QUICK)
    assert len(cluster.calls("sbatch")) == 2
    assert [job_of(config.folder) for config in configs] == [None, "43", "42_1"]


def test_a_key_typed_at_the_sweep_reaches_the_job_of_a_run_that_was_begun(tiny, cluster, tmp_path):
    """By its folder, which is all that the job reads."""
    config = tiny()
    folder = train(config)
    (folder / "DONE").unlink()
    file = folder / "config.yaml"
    file.write_text(file.read_text().replace("device: cpu", "device: cuda:1"))
    (asked,) = requested(config, ["device=cpu"])
    on_slurm([as_started(asked)], QUICK)
    assert yaml.safe_load(file.read_text())["device"] == "cpu"
    (warning,) = events(folder, "warning")
    assert "device=cpu in the place of cuda:1" in warning["text"]
    assert train_folders([folder], side_by_side=1) == 0
    assert events(folder, "warning") == [warning]


def test_a_run_that_is_held_is_left_to_who_holds_it(tiny, cluster):
    with RunFolder(tiny().folder):
        on_slurm([tiny()], QUICK)
    assert cluster.calls("sbatch") == []


def test_a_sweep_is_followed_until_the_last_job_has_ended(tiny, cluster, capsys):
    done, silent, failed = (tiny(f"seed={seed}") for seed in range(3))
    on_slurm([done, silent, failed], QUICK)
    train(done)
    train_folders([failed.folder], 1)
    (failed.folder / "DONE").unlink()
    with (failed.folder / "events.jsonl").open("a") as log:
        log.write('{"event": "failed", "reason": "no space left", "time": 9e9}\n{"event": {"a": 1}')
    cluster.say(job="JobId=42 JobState=CANCELLED Restarts=0\n", queue="")
    capsys.readouterr()
    failures = launch._follow({c.folder: f"42_{i}" for i, c in enumerate((done, silent, failed))}, 0.1)
    assert failures == [
        f"{silent.folder}: its job 42_1 is cancelled and left no word; its log is in .slurm/",
        f"{failed.folder}: no space left",
    ]
    out = capsys.readouterr().out
    assert "[1/3] main/digits" in out
    assert "[3/3] FAILED" in out
    assert out.count("  digits-mlp4x24-none-e6: fixed layers: none\n") == out.count("fixed layers") == 1


@pytest.mark.parametrize(
    ("job", "account", "said"),
    [
        ("JobState=TIMEOUT Reason=TimeLimit", "", "its job 42 reached its time limit (hydra.launcher.timeout_min)"),
        ("JobState=COMPLETING Reason=TimeLimit", "", "its job 42 reached its time limit (hydra.launcher.timeout_min)"),
        ("", "TIMEOUT", "its job 42 reached its time limit (hydra.launcher.timeout_min)"),
        ("", "CANCELLED by 0", "its job 42 is cancelled"),
        ("JobState=NODE_FAIL Reason=None", "", "its job 42 lost its node"),
        ("JobState=OUT_OF_MEMORY Reason=None", "", "its job 42 ran out of memory (hydra.launcher.mem_gb)"),
        ("", "OUT_OF_MEMORY", "its job 42 ran out of memory (hydra.launcher.mem_gb)"),
        ("", "", "its job 42 is gone (Slurm keeps no account here of how jobs end)"),
    ],
)
def test_how_a_job_ended_that_left_no_word(tiny, cluster, job, account, said):
    """Slurm forgets a job minutes after its end; only a site with accounting knows more."""
    config = tiny()
    on_slurm([config], QUICK)
    cluster.script("sacct", f"[ -n '{account}' ] && echo '{account}'")
    cluster.say(job=f"{job}\n", queue="")
    (failure,) = launch._follow({config.folder: "42"}, 0.1)
    assert failure == f"{config.folder}: {said} and left no word; its log is in .slurm/"


def test_a_controller_that_does_not_answer_ends_no_run(tiny, cluster, monkeypatch):
    config = tiny()
    on_slurm([config], QUICK)
    answers = iter([None, None, Queue({}, 0), None, Queue({"42": "RUNNING"}, 0), Queue({}, 0), Queue({}, 0)])
    monkeypatch.setattr(launch, "jobs_in_queue", lambda: next(answers))
    assert len(launch._follow({config.folder: "42"}, 0.01)) == 1  # missed twice running
    assert next(answers, "used up") == "used up"


def test_ctrl_c_leaves_the_jobs_alone(tiny, cluster, monkeypatch, capsys):
    config = tiny()
    on_slurm([config], QUICK)
    monkeypatch.setattr(
        launch, "jobs_in_queue", lambda: os.kill(os.getpid(), signal.SIGINT) or Queue({"42": "PENDING"}, 0)
    )
    with pytest.raises(SystemExit, match="130"):
        launch._follow({config.folder: "42"}, 0.1)
    assert "the jobs go on" in capsys.readouterr().err


def test_what_slurm_refuses_leaves_nothing(tiny, cluster, tmp_path):
    cluster.script("sbatch", "echo 'sbatch: error: invalid account' >&2; exit 1")
    with pytest.raises(SlurmError, match="invalid account"):
        on_slurm([tiny(), tiny("seed=1")], QUICK)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file() and p.parent != cluster.folder) == []
    cluster.script("squeue", "exit 1")
    with pytest.raises(SlurmError, match="squeue does not answer"):
        on_slurm([tiny()], QUICK)


def test_without_slurm_or_submitit_it_says_what_to_install(tiny, cluster, monkeypatch):
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'nclab\[cluster\]'"):
        on_slurm([tiny()], QUICK)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="needs sbatch, which is not on the PATH"):
        on_slurm([tiny()], QUICK)


def test_more_jobs_than_an_array_holds(tiny, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(job_module, "most_of_an_array", lambda: 2)
    folders = [tmp_path / str(i) for i in range(9)]
    for folder in folders:
        folder.mkdir()
    settings = SlurmSettings(runs_per_job=2, setup=["module load cuda"], additional_parameters={"nice": 5}, mem_gb=1.5)
    jobs = submit(folders, "name", tmp_path / "logs", settings)
    assert [jobs[f] for f in folders] == ["42_0", "42_0", "42_1", "42_1", "42_0", "42_0", "42_1", "42_1", "42"]
    script = (cluster.folder / "script").read_text()
    for text in ("#SBATCH --nice=5", "#SBATCH --mem=1536M", "\nmodule load cuda\n"):
        assert text in script


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("timeout_min", 0, "timeout_min must be at least 1, got 0"),
        ("cpus_per_task", 0, "cpus_per_task must be at least 1"),
        ("gpus_per_node", -1, "gpus_per_node must be at least 0"),
        ("mem_gb", float("nan"), "mem_gb must be at least"),
        ("array_parallelism", 0, "array_parallelism must be at least 1"),
        ("runs_per_job", 0, "runs_per_job must be at least 1"),
        ("requeues", -1, "requeues must be at least 0"),
        ("poll_seconds", 0, "poll_seconds must be at least 0.1"),
        ("signal_delay_s", 14400, "must be shorter than timeout_min=240"),
    ],
)
def test_settings_out_of_range(key, value, message):
    with pytest.raises(ValueError, match=message):
        SlurmSettings(**{key: value})


@pytest.mark.parametrize(
    ("job", "fate"),
    [
        ("JobId=7 JobState=RUNNING Restarts=1 PreemptTime=2026-01-01", "alive"),
        ("JobId=7 JobState=COMPLETING Reason=None Restarts=1", "cancelled"),
        ("JobId=7 JobState=COMPLETING Reason=TimeLimit Restarts=1", "timeout"),  # as Slurm 22.05 says it
        ("JobId=7 JobState=TIMEOUT Reason=TimeLimit Restarts=1", "timeout"),
        ("JobId=7 JobState=COMPLETING Reason=TimeLimit Restarts=2", "requeued"),
        ("JobId=7 JobState=COMPLETING Restarts=2", "requeued"),
        ("JobId=7 JobState=PENDING Restarts=2 Comment=a=b", "requeued"),
        ("", "alive"),
    ],
)
def test_what_slurm_does_with_a_job_it_sent_a_signal(cluster, job, fate):
    cluster.say(job=job + "\n")
    assert fate_of("7", restarts=1) == fate


@pytest.mark.parametrize(
    ("job", "restarts", "refusal", "last", "calls"),
    [
        ("JobState=RUNNING Restarts=0", "", "", {"event": "requeue", "by": "itself"}, 1),
        ("JobState=RUNNING Restarts=2", "2", "", {"event": "failed"}, 0),
        (
            "JobState=COMPLETING Restarts=0",
            "",
            "",
            {"event": "failed", "reason": "job 42 was cancelled; the same command resumes"},
            0,
        ),
        ("JobState=COMPLETING Reason=TimeLimit Restarts=0", "", "", {"event": "requeue", "by": "itself"}, 1),
        (
            "JobState=COMPLETING Reason=TimeLimit Restarts=0",
            "",
            "Invalid job",
            {
                "event": "failed",
                "reason": "job 42 reached its time limit (hydra.launcher.timeout_min) and could not be "
                "requeued: Invalid job; the same command resumes",
            },
            2,
        ),
        ("JobState=COMPLETING Restarts=1", "", "", {"event": "requeue", "by": "slurm"}, 0),
        ("JobState=RUNNING Restarts=0", "", "Job is held", {"event": "failed"}, 2),
    ],
)
def test_a_job_that_gets_a_signal_saves_and_returns_to_the_queue(
    tiny, cluster, monkeypatch, capsys, job, restarts, refusal, last, calls
):
    config = tiny("epochs=40")
    on_slurm([config], QUICK)
    monkeypatch.setattr(slurm, "REQUEUE_TRIES", 2)
    monkeypatch.setattr(slurm.time, "sleep", lambda seconds: None)
    cluster.say(job=job + "\n", requeued=refusal)
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    if restarts:
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    event = RunFolder.event

    def then_signal(self, kind, **what):
        event(self, kind, **what)
        if kind == "epoch" and what["epoch"] == 3:
            os.kill(os.getpid(), signal.SIGUSR2)

    monkeypatch.setattr(RunFolder, "event", then_signal)
    with pytest.raises(SystemExit, match="140"):
        Job([str(config.folder)], 1, requeues=2)()
    assert last.items() <= events(config.folder)[-1].items()
    assert len([call for call in cluster.calls("scontrol") if "requeue" in call]) == calls
    monkeypatch.setattr(RunFolder, "event", event)
    Job([str(config.folder)], 1, requeues=2)()
    assert (config.folder / "DONE").exists()
    resume = events(config.folder, "resume")[-1]
    assert resume["job"] == "42"
    assert resume["epoch"] == 3


def test_a_run_that_fails_in_its_job_fails_the_job(tiny, cluster, capsys):
    config = tiny("optimizer.lr=1e30", "model.norm=none")
    on_slurm([config], QUICK)
    with pytest.raises(SystemExit, match="1"):
        Job([str(config.folder)], 1, requeues=2)()
    assert "diverged" in events(config.folder, "failed")[0]["reason"]


# submitit's pickle of nclab.slurm.Work(["outputs/main/run"], 1, 20), as the code wrote it before nclab.cluster.job was.
OLD_JOB = """
gAWV7AAAAAAAAACME3N1Ym1pdGl0LmNvcmUudXRpbHOUjBFEZWxheWVkU3VibWlzc2lvbpSTlCmBlH2UKIwIZnVuY3Rpb26UjAtuY2xhYi5zbHVybZSM
BFdvcmuUk5QpgZR9lCiMB2ZvbGRlcnOUXZSMEG91dHB1dHMvbWFpbi9ydW6UYYwMc2lkZV9ieV9zaWRllEsBjAhyZXF1ZXVlc5RLFHVijARhcmdzlCmM
Bmt3YXJnc5R9lIwHX3Jlc3VsdJROjAVfZG9uZZSJjAxfdGltZW91dF9taW6US/CMEl90aW1lb3V0X2NvdW50ZG93bpRLFHViLg=="""


def test_a_job_that_was_queued_by_earlier_code_runs(tiny, cluster, tmp_path, monkeypatch):
    config = tiny()
    on_slurm([config], QUICK)
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "main").mkdir(parents=True)
    (tmp_path / "outputs" / "main" / "run").symlink_to(config.folder)
    job = pickle.loads(base64.b64decode(OLD_JOB)).function
    assert isinstance(job, Job)
    assert (job.folders, job.side_by_side, job.requeues) == (["outputs/main/run"], 1, 20)
    job()
    assert (config.folder / "DONE").exists()
    assert b"nclab.cluster.job" in pickle.dumps(job.checkpoint())  # requeued under the new path


def test_a_job_waits_for_what_is_left_of_its_first_life(tiny, cluster, monkeypatch, capsys):
    config = tiny()
    on_slurm([config], QUICK)
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    orphan = RunFolder(config.folder).__enter__()
    monkeypatch.setattr(folders_module.time, "sleep", lambda seconds: orphan.__exit__())
    assert train_folders([config.folder], 1) == 0
    assert "waits: " in capsys.readouterr().out
    assert (config.folder / "DONE").exists()


def test_side_by_side_on_this_machine(tiny, capfd):
    configs = [tiny("seed=0"), tiny("optimizer.lr=1e30", "model.norm=none")]
    with pytest.raises(SweepFailed, match="1 of 2 runs failed"):
        on_this_machine(configs, 2, 1)
    assert "training diverged" in capfd.readouterr().err
    assert (configs[0].folder / "DONE").exists()


def test_a_sweep_says_once_for_each_kind_of_run_which_layers_it_fixes(tiny, capfd):
    """Two seeds of each kind; the run that was begun before says what it did then."""
    kinds = (("etf=none",), ("etf=last_k", "etf.k=2"), ("etf=last_k", "etf.kind=frozen"))
    configs = [tiny(*kind, f"seed={seed}", "epochs=1") for seed in (0, 1) for kind in kinds]
    on_this_machine(configs, 1, 1)
    said = [line for line in capfd.readouterr().out.splitlines() if "fixed layers" in line]
    assert said == [
        "  digits-mlp4x24-none-e1: fixed layers: none",
        "  digits-mlp4x24-last2-e1: fixed layers: fc3, fc4 (random ETF)",
        "  digits-mlp4x24-frozen_last1-e1: fixed layers: fc4 (frozen)",
    ]


@pytest.mark.fast
def test_cores_and_gpus_are_shared_out(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [default_threads(8, jobs) for jobs in (1, 2, 3, 8, 9)] == [4, 4, 2, 1, 1]
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert default_threads() == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-5,6")
    assert shared_gpus(["auto", "cuda"]) == ["4", "GPU-5", "6"]
    assert shared_gpus(["auto", "cuda:1"]) == [None]
    assert shared_gpus(["cpu"]) == [None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert shared_gpus(["auto"]) == [None]


def test_side_by_side_threads_are_those_the_user_asked_for(tiny, monkeypatch):
    """OMP_NUM_THREADS is a wish for each run: it is not shared out among them."""
    given = []
    monkeypatch.setattr(launch, "run_all", lambda configs, *_: given.extend(c.threads for c in configs) or [])
    for asked, threads in (("3", [3, 3]), (None, [1, 1])):
        monkeypatch.setenv("OMP_NUM_THREADS", asked) if asked else monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        on_this_machine([tiny("threads=null"), tiny("threads=null", "seed=1")], 64, 1)
        assert given == threads
        given.clear()
    monkeypatch.setenv("OMP_NUM_THREADS", "foo")
    with pytest.raises(ConfigError, match="OMP_NUM_THREADS must be 1 to 1024 threads, got 'foo'"):
        on_this_machine([tiny("threads=null")], 1, 1)


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """command("a=1", ...) -> exit code, stdout and stderr of nclab-train in tmp_path; its launcher is this process."""
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nclab-train", *overrides])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        return code, *capfd.readouterr()

    return run


OLD_KEY = ("epochs=2", "hydra.launcher.together=2")  # the name of `stack` once


def test_the_whole_sweep_is_checked_before_it_begins(command, tmp_path):
    for wrong in (("epochs=2,0",), ("epochs=2", "hydra.launcher.jobs=0"), OLD_KEY):
        code, _, err = command("-m", "hydra/launcher=local", *wrong)
        assert code == 2
        assert len(err.splitlines()) == 1
        assert "Traceback" not in err
        assert list(tmp_path.rglob("*.csv")) == []
    assert "unknown key 'hydra.launcher.together'; valid: jobs, stack" in err


def test_a_run_that_fails_leaves_the_others_their_turn(tmp_path, monkeypatch, capsys):
    """Its failure is this command's: the next one in the same process does not inherit it."""
    trained, full = [], [True]

    def one(config, tell):
        trained.append(config.seed)
        if config.seed == 0 and full[0]:
            raise OSError("disk full")
        return config.folder

    monkeypatch.setattr("nclab.run.task.train", one)
    monkeypatch.setattr(sys, "argv", ["nclab-train", "-m", "seed=0,1", f"output_root={tmp_path}"])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert capsys.readouterr().err.startswith("error: disk full")
    full[0] = False
    main()
    assert trained == [0, 1, 0, 1]


def test_a_sweep_with_several_seeds_a_run_and_one_that_begins_again(command, tmp_path):
    tiny = ("dataset.train_size=200", "dataset.test_size=100", "model.depth=3", "model.width=16", "epochs=2")
    sweep = ("-m", "hydra/launcher=local", "hydra.launcher.stack=2", *tiny, "seeds=[0,1]", "etf=none,last_k")
    assert "all 4 runs are finished" in command(*sweep)[1]
    assert "4 runs, 4 finished before, 0 to do" in command(*sweep)[1]
    assert "4 runs, 0 finished before, 4 to do" in command(*sweep, "overwrite=true")[1]
    folders = [path.parent for path in tmp_path.glob("outputs/main/*/DONE")]
    assert len(folders) == 4
    assert not any(json.loads((f / "summary.json").read_text())["run"] != f.name for f in folders)


def test_overwrite_on_a_cluster_removes_nothing_before_slurm_has_answered(tiny, cluster):
    done = train(tiny())
    again = tiny("overwrite=true")
    cluster.script("squeue", "exit 1")
    with pytest.raises(SlurmError, match="squeue does not answer"):
        on_slurm([again], QUICK)
    assert (done / "DONE").exists()
    cluster.script("squeue", "cat queue")
    with RunFolder(tiny("seed=1").folder), pytest.raises(RunLocked):
        on_slurm([again, tiny("seed=1", "overwrite=true")], QUICK)
    assert (done / "DONE").exists()
    on_slurm([again], QUICK)
    assert not (done / "DONE").exists()
    assert job_of(done) == "42"
    cluster.say(queue="42|PENDING\n")
    with pytest.raises(ConfigError, match="is in job 42; scancel that first"):
        on_slurm([tiny("overwrite=true")], QUICK)


def test_a_job_that_cannot_begin_a_run_says_why_and_trains_the_others(tiny, cluster, monkeypatch, capsys):
    configs = [tiny(), tiny("seed=1"), tiny("seed=2")]
    on_slurm(configs, QUICK)
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    text = (configs[0].folder / "config.yaml").read_text()
    (configs[0].folder / "config.yaml").write_text(text.replace("batch_size: 128", "batch_size: 9999"))
    assert train_folders([config.folder for config in configs], 1) == 1
    (failed,) = events(configs[0].folder, "failed")
    assert "config.yaml was changed since its run began" in failed["reason"]
    assert failed["job"] == "42"
    assert all((config.folder / "DONE").exists() for config in configs[1:])


def test_a_run_that_another_job_took_up_is_left_to_it(tiny, cluster, monkeypatch, capsys):
    config = tiny()
    on_slurm([config], QUICK)
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    with RunFolder(config.folder):
        assert train_folders([config.folder], 1) == 0
    assert "left to job 42: " in capsys.readouterr().out


@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_a_signal_while_a_run_is_closed_ends_the_sweep(tmp_path, launcher):
    """That run is finished; none that follows is begun."""
    code = (
        "import os, signal, sys; from nclab.runfolder.folder import RunFolder; from nclab.train import main\n"
        "finish = RunFolder.finish\n"
        "def signalled(self, summary): os.kill(os.getpid(), signal.SIGTERM); finish(self, summary)\n"
        "RunFolder.finish = signalled\n"
        "if __name__ == '__main__': sys.argv[0] = 'nclab-train'; main()\n"
    )
    (tmp_path / "signalled.py").write_text(code)
    tiny = ("dataset.train_size=200", "dataset.test_size=100", "model.depth=3", "model.width=16", "epochs=2")
    jobs = ("hydra.launcher.jobs=1",) if launcher == "local" else ()
    call = [sys.executable, "signalled.py", "-m", f"hydra/launcher={launcher}", *jobs, *tiny, "seed=0,1,2"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    finished = len(list(tmp_path.glob("outputs/main/*/DONE")))
    if launcher == "basic":
        assert (done.returncode, finished) == (143, 1), done.stderr
        assert "stopped by SIGTERM" in done.stderr
    else:  # only the worker was asked: what it was to do next is taken up again
        assert "a worker was killed; what it was at is tried again" in done.stdout


def test_the_working_folder_is_no_secret(tmp_path):
    """Every shell exports PWD, a name like a password's."""
    words = ("dataset.train_size=200", "dataset.test_size=100", "epochs=1", f"output_root={tmp_path}/out")
    env = {**os.environ, "PWD": str(tmp_path), "NCLAB_DATA": str(tmp_path / "data")}
    call = [sys.executable, "-m", "nclab.train", *words]
    done = subprocess.run(call, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (stored,) = tmp_path.glob("out/main/*/config.yaml")
    assert yaml.safe_load(stored.read_text())["data_root"] == str(tmp_path / "data")
    assert f"finished: {tmp_path}/out/main/" in done.stdout
