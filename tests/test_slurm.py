"""A real Slurm on this machine (tests/slurm/start.sh), and sweeps that it preempts, times out, cancels and loses.

make test-slurm      about ten minutes; root, and Debian's packages slurm-wlm and munge
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from run_folders import assert_same_run, events

from nclab.config.place import CONF

SCRIPTS = Path(__file__).parent / "slurm"
PATH = f"{os.environ['PATH']}:/usr/sbin"
MISSING = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if not shutil.which(name, path=PATH)]
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(MISSING), reason=f"Slurm is not installed: no {', '.join(MISSING)} (slurm-wlm, munge)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd starts jobs as their users, which needs root"),
]
LAUNCHER = ("-m", "hydra/launcher=slurm", "hydra.launcher.partition=low", "hydra.launcher.cpus_per_task=1",
            "hydra.launcher.poll_seconds=1", "hydra.launcher.timeout_min=30")  # fmt: skip
TINY = ("dataset.train_size=400", "dataset.test_size=100", "model.depth=3", "model.width=32", "batch_size=32",
        "checkpoint_seconds=3", "device=cpu", "threads=1")  # fmt: skip
COUNTS: dict[str, int] = {}


class Cluster:
    """The cluster in `folder`, and what befalls it."""

    def __init__(self, folder: Path):
        self.folder = folder
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            other.bind(("127.0.0.1", port + 1))
        self.env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "SLURM_TEST_PORT": str(port)}
        self.env |= {"OMP_NUM_THREADS": "1", "PATH": PATH}
        self.launchers: list[subprocess.Popen] = []

    def start(self, **knobs: str) -> None:
        subprocess.run([SCRIPTS / "start.sh", self.folder], env=self.env | knobs, check=True)

    def stop(self) -> None:
        subprocess.run([SCRIPTS / "stop.sh", self.folder], env=self.env, check=False)

    def kill(self, daemon: str) -> None:
        os.kill(int((self.folder / f"{daemon}.pid").read_text()), signal.SIGKILL)

    def ask(self, *command: str) -> str:
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.strip()

    def queue(self) -> dict[str, str]:
        lines = self.ask("squeue", "-h", "--array", "--format=%i|%T").splitlines()
        return dict(line.strip().split("|") for line in lines)

    def preempt(self) -> None:
        """A job that wants the whole node, from the partition that goes first."""
        job = self.ask("sbatch", "--parsable", "-p", "high", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")
        eventually(lambda: job not in self.queue(), 90)

    def train(self, *overrides: str, cwd: Path) -> subprocess.Popen:
        command = [sys.executable, "-m", "nclab.train", *overrides]
        pipe = subprocess.PIPE
        launcher = subprocess.Popen(command, cwd=cwd, env=self.env, stdout=pipe, stderr=pipe, text=True)
        self.launchers.append(launcher)
        return launcher

    def clear(self) -> None:
        """End every launcher and every job, those of a test that failed too: the next test counts what is there."""
        while self.launchers:
            with self.launchers.pop() as launcher:  # closes its pipes
                launcher.kill()
        self.ask("scancel", "--user", "root")
        eventually(lambda: not self.queue(), 120)


@pytest.fixture(scope="module")
def started_cluster():
    # Not in pytest's folder: munge refuses to work below one that others cannot enter.
    folder = Path(tempfile.mkdtemp(prefix="nclab-slurm-"))
    folder.chmod(0o755)
    one = Cluster(folder)
    try:
        one.start()
        yield one
    finally:
        one.stop()
        shutil.rmtree(folder)


@pytest.fixture
def cluster(started_cluster):
    yield started_cluster
    started_cluster.clear()


def eventually(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not seen within {seconds} s"
        time.sleep(0.1)
    return result


def runs(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob("*/*/config.yaml"))


def writer(folder: Path) -> int | None:
    """The process that writes the run now."""
    found = re.match(r"pid (\d+)", (folder / ".lock").read_text()) if (folder / ".lock").exists() else None
    pid = int(found[1]) if found else None
    return pid if pid and Path(f"/proc/{pid}").exists() else None


def epochs(folder: Path) -> int:
    return len(events(folder, "epoch")) if (folder / "events.jsonl").exists() else 0


def count(what: str, by: int = 1) -> None:
    COUNTS[what] = COUNTS.get(what, 0) + by


def end(launcher: subprocess.Popen, code: int = 0, seconds: float = 400) -> tuple[str, str]:
    out, err = launcher.communicate(timeout=seconds)
    assert launcher.returncode == code, out + err
    return out, err


@pytest.fixture(scope="module")
def epoch_seconds(tmp_path_factory: pytest.TempPathFactory) -> float:
    """What an epoch of these runs takes here: they must outlast what befalls them, on a fast machine too."""
    folder = tmp_path_factory.mktemp("timed")
    command = [sys.executable, "-m", "nclab.train", *TINY, "epochs=300", "metrics.every=10"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    spent = [e["train_seconds"] + e["measure_seconds"] for e in events(*runs(folder / "outputs"), "epoch")]
    return sum(spent[100:]) / len(spent[100:])


def whole(cluster: Cluster, tmp_path: Path, *overrides: str) -> list[Path]:
    """The runs of the same sweep with nothing in its way."""
    (tmp_path / "whole").mkdir()
    end(cluster.train("-m", "hydra/launcher=local", "hydra.launcher.jobs=2", *overrides, cwd=tmp_path / "whole"))
    return runs(tmp_path / "whole" / "outputs")


def assert_nothing_lost_or_doubled(folders: list[Path], references: list[Path]) -> None:
    """Every run is there once, finished, and bit for bit the run that nobody disturbed."""
    assert [folder.name for folder in folders] == [reference.name for reference in references]
    for folder, reference in zip(folders, references, strict=True):
        numbers = [e["epoch"] for e in events(folder, "epoch")]
        rows = [line.rsplit(",", 1)[0] for line in (folder / "metrics.csv").read_text().splitlines()]
        count("lost runs", not (folder / "DONE").exists())
        count("doubled epochs", len(numbers) - len(set(numbers)))
        count("doubled rows", len(rows) - len(set(rows)))
        assert_same_run(reference, folder)
        assert numbers == list(range(1, len(numbers) + 1))
    requeues = [e for folder in folders for e in events(folder, "requeue")]
    count("runs", len(folders))
    count("requeued by themselves", sum(e["by"] == "itself" for e in requeues))
    count("requeued by Slurm, with time to save", sum(e["by"] == "slurm" for e in requeues))
    count("resumes", sum(len(events(folder, "resume")) for folder in folders))
    count("bit-identical", len(folders))


def test_a_sweep_survives_what_a_cluster_does_to_it(cluster, tmp_path, epoch_seconds):
    sweep = (*TINY, f"epochs={round(20 / epoch_seconds)}", "metrics.every=10", "etf=none,last_k,adaptive", "seed=0,1")
    references = whole(cluster, tmp_path, *sweep)
    conf, root = tmp_path / "conf", tmp_path / "outputs"
    mine = conf / "optimizer" / "mine.yaml"  # of the user's own, as it stands when the sweep is submitted
    mine.parent.mkdir(parents=True)
    shutil.copy(CONF / "optimizer" / "sgd.yaml", mine)

    def launch() -> subprocess.Popen:
        return cluster.train(*LAUNCHER, "--config-dir", str(conf), *sweep, "optimizer=mine", cwd=tmp_path)

    def at_work(number: int, further: int = 10) -> None:
        """So many runs are trained, and have come further."""
        before = {folder: epochs(folder) for folder in runs(root)}

        def moved() -> bool:
            on = [f for f in runs(root) if writer(f) and epochs(f) >= before.get(f, 0) + further]
            return len(on) >= min(number, sum(not (f / "DONE").exists() for f in runs(root)))

        eventually(moved, 120)

    launchers = launch(), launch()  # a hasty user
    said = [next(line for line in launcher.stdout if "to submit" in line) for launcher in launchers]  # all is read
    eventually(lambda: len(runs(root)) == 6)
    mine.write_text("name: sgd\nlr: 0.5\n")  # two of six still wait for a place: they must not see this
    at_work(4)
    cluster.preempt()
    count("preemptions with a warning")
    for launcher in launchers:  # the terminals die
        launcher.kill()
        launcher.communicate()
        count("launchers killed")
    assert sorted("6 to submit" in out for out in said) == [False, True]
    shutil.copy(CONF / "optimizer" / "sgd.yaml", mine)

    at_work(4)
    victim = next(f for f in runs(root) if writer(f))
    cluster.ask("scontrol", "requeue", json.loads((victim / "slurm.json").read_text())["job"])
    count("scontrol requeue")
    cluster.kill("slurmctld")
    time.sleep(2)
    cluster.start(SLURM_TEST_WARN="0")
    count("controller killed and restarted")

    at_work(3)
    cluster.preempt()
    count("preemptions without a warning")

    again = launch()
    at_work(3)
    cluster.kill("slurmd")  # the node is lost to the controller; what ran on it goes on for a while
    eventually(lambda: "RUNNING" not in cluster.queue().values(), 120)
    cluster.start(SLURM_TEST_WARN="0")
    count("node failures")

    at_work(2)
    killed, cancelled, *_ = (f for f in runs(root) if writer(f))
    os.kill(writer(killed), signal.SIGKILL)
    count("processes killed -9")
    cluster.ask("scancel", json.loads((cancelled / "slurm.json").read_text())["job"])
    count("jobs cancelled")
    out, err = end(again, code=1)
    # A controller killed before it has noted a requeue forgets that job; the same command then submits it again.
    assert re.match(r"6 runs: \d finished before, [1-6] in the queue, [01] to submit\n", out)
    assert f"error: {cancelled.relative_to(tmp_path)}: job" in err
    assert "was cancelled; the same command resumes" in err
    assert f"error: {killed.relative_to(tmp_path)}: its job" in err
    assert err.splitlines()[-1] == "error: 2 of 6 runs failed; the same command tries them again"

    out, _ = end(launch())
    assert "6 runs: 4 finished before, 0 in the queue, 2 to submit" in out
    assert "all 6 runs are finished" in out
    out, _ = end(launch())
    assert "6 runs: 6 finished before, 0 in the queue, 0 to submit" in out
    assert_nothing_lost_or_doubled(runs(root), references)


def test_a_run_longer_than_its_time_limit_goes_on_in_the_next_job(cluster, tmp_path, epoch_seconds):
    """Slurm warns up to a minute early and looks at limits once in a while: a job of a minute trains for 2 to 40 s."""
    sweep = (*TINY, f"epochs={round(45 / epoch_seconds)}", "metrics.every=50", "checkpoint_seconds=1000")
    references = whole(cluster, tmp_path, *sweep)
    short = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=20")
    end(cluster.train(*LAUNCHER, *short, *sweep, cwd=tmp_path))
    (folder,) = runs(tmp_path / "outputs")
    stopped = events(folder, "stopped")
    assert stopped
    assert {e["signal"] for e in stopped} == {"SIGUSR2"}
    count("time limits", len(stopped))
    assert_nothing_lost_or_doubled([folder], references)


def test_a_job_that_is_ended_at_its_limit_without_a_warning_goes_on(cluster, tmp_path):
    """Slurm looks at limits once in a while: it takes one to two minutes."""
    short = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=1", "hydra.launcher.requeues=1")
    quiet = "+hydra.launcher.additional_parameters={signal: CONT@1}"  # in the place of the warning
    sweep = (*TINY, "epochs=100000000", "metrics.every=0", "hydra.launcher.wait=false")
    end(cluster.train(*LAUNCHER, *short, quiet, *sweep, cwd=tmp_path))
    (folder,) = runs(tmp_path / "outputs")
    eventually(lambda: (folder / "events.jsonl").exists() and events(folder, "resume"), 200)
    assert [event["signal"] for event in events(folder, "stopped")] == ["SIGTERM"]
    assert [event["by"] for event in events(folder, "requeue")] == ["itself"]
    assert events(folder, "failed") == []


KILLED = """
import os
from nclab.cluster import intent
write = intent.write_atomic
intent.write_atomic = lambda path, *given: os._exit(9) if path.name == intent.NOTE else write(path, *given)
from nclab.train import main
main()
"""


def test_the_jobs_of_a_launcher_that_was_killed_behind_sbatch_are_found(cluster, tmp_path):
    sweep = (*LAUNCHER, *TINY, "epochs=100000000", "metrics.every=0", "seed=0,1", "hydra.launcher.wait=false")
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    assert subprocess.run([sys.executable, script, *sweep], cwd=tmp_path, env=cluster.env).returncode == 9
    submitted = sorted(cluster.queue())
    assert len(submitted) == 2
    out, _ = end(cluster.train(*sweep, cwd=tmp_path))
    assert "2 runs: 0 finished before, 2 in the queue, 0 to submit" in out
    assert sorted(cluster.queue()) == submitted
    notes = [json.loads((folder / "slurm.json").read_text())["job"] for folder in runs(tmp_path / "outputs")]
    assert sorted(notes) == submitted


def test_a_job_of_several_runs_on_one_gpu_is_preempted_as_one(cluster, tmp_path, epoch_seconds):
    sweep = (*TINY, f"epochs={round(8 / epoch_seconds)}", "metrics.every=10", "seed=0,1,2,3")
    references = whole(cluster, tmp_path, *sweep)
    packed = ("hydra.launcher.runs_per_job=2", "hydra.launcher.gpus_per_node=1")
    launcher = cluster.train(*LAUNCHER, *packed, *sweep, cwd=tmp_path)
    root = tmp_path / "outputs"
    eventually(lambda: sum(epochs(f) > 5 for f in runs(root) if writer(f)) == 4, 120)
    assert sorted(cluster.queue().values()) == ["RUNNING"] * 2
    cluster.preempt()
    count("preemptions without a warning")
    end(launcher)
    assert_nothing_lost_or_doubled(runs(root), references)
    assert all(events(folder, "requeue") for folder in runs(root))


def test_the_limit_of_requeues_ends_a_job(cluster, tmp_path):
    sweep = (*TINY, "epochs=100000", "metrics.every=0", "hydra.launcher.requeues=0")
    launcher = cluster.train(*LAUNCHER, *sweep, cwd=tmp_path)
    root = tmp_path / "outputs"
    eventually(lambda: any(epochs(f) > 5 for f in runs(root)), 60)
    cluster.preempt()
    _, err = end(launcher, code=1)
    assert "was requeued 0 times, hydra.launcher.requeues; the same command resumes" in err


def test_what_slurm_refuses_is_one_line_and_leaves_nothing(cluster, tmp_path):
    for wrong in ("hydra.launcher.partition=nowhere", "hydra.launcher.gpus_per_node=9"):
        _, err = end(cluster.train(*LAUNCHER, *TINY, wrong, "seed=0,1", cwd=tmp_path), code=1)
        assert len(err.splitlines()) == 1, err
        assert "sbatch: error" in err
        assert not list((tmp_path / "outputs").glob("*/*/"))


def test_jobs_that_cannot_begin_say_why(cluster, tmp_path):
    """More CPUs than any node has, a job that is held, a node that is drained: `nclab-runs status` shows the reason."""
    sweep = (*LAUNCHER, *TINY, "epochs=2", "hydra.launcher.wait=false")
    node = cluster.ask("sinfo", "-h", "-N", "-o", "%N").split()[0]

    def status(reason: str) -> bool:
        said = cluster.ask(sys.executable, "-m", "nclab.runs", "status", str(tmp_path / "outputs"), "--json")
        return reason in said

    cluster.ask("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    try:
        end(cluster.train(*sweep, "hydra.launcher.cpus_per_task=99", "seed=0,1", cwd=tmp_path))
        eventually(lambda: status("PENDING (PartitionConfig)"), 60)
        cluster.ask("scancel", "--user", "root")
        eventually(lambda: not cluster.queue(), 60)
        end(cluster.train(*sweep, "seed=0", cwd=tmp_path))
        eventually(lambda: status("DRAINED"), 60)
        (job,) = cluster.queue()
        cluster.ask("scontrol", "hold", job)
        eventually(lambda: status("JobHeld"), 60)
    finally:
        cluster.ask("scontrol", "update", f"NodeName={node}", "State=RESUME")
    count("reasons shown of jobs that cannot begin", 3)
    end(cluster.train(*sweep, "seed=0", cwd=tmp_path))  # the same command leaves it held
    assert list(cluster.queue()) == [job]
    cluster.ask("scontrol", "release", job)
    eventually(lambda: sum((folder / "DONE").exists() for folder in runs(tmp_path / "outputs")) == 1, 120)


def test_the_counts():
    """Printed by `make test-slurm`."""
    print("\n" + "\n".join(f"{number:4d} {what}" for what, number in COUNTS.items()))
    if COUNTS.get("runs") != 11:
        pytest.skip("only some of the tests were run")
    assert not COUNTS["lost runs"] + COUNTS["doubled epochs"] + COUNTS["doubled rows"]
    assert COUNTS["bit-identical"] == COUNTS["runs"] == 11
    assert COUNTS["requeued by themselves"] >= 10
