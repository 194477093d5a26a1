"""A package of someone else, installed beside nclab: trained, swept, killed, resumed, loaded and drawn.

`tests/tiny_package` is built and unpacked into a folder on PYTHONPATH, as `pip install --target` does; no network."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from installed import built, copied

PACKAGE = Path(__file__).parent / "tiny_package"
NAME = "tiny_digits-tiny_mlp_mlp3x24-tiny_last_last1-e3-s{0}-"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder with the package and its metadata, by which its entry point is found."""
    source, target = copied(PACKAGE, tmp_path_factory.mktemp("source")), tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(built(source, source, backend="setuptools.build_meta")) as wheel:
        wheel.extractall(target)
    return target


@pytest.fixture
def run(installed, tmp_path):
    """run("a=1", ...) -> the finished process of that nclab-train command in an empty folder."""

    def start(*words: str, site: Path | str = installed) -> subprocess.CompletedProcess:
        return subprocess.run(command(*words), cwd=tmp_path, env=env(site), capture_output=True, text=True, timeout=300)

    return start


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "nclab.train", *words]


def env(site: Path | str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}


def python(code: str, site: Path | str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env(site), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def folders(root: Path) -> list[str]:
    return sorted(path.parent.name for path in root.glob("*/DONE"))


def test_a_package_trains_sweeps_loads_and_is_drawn(run, installed, tmp_path):
    done = run("experiment=tiny", "model.slope=0.2")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "outputs" / "tiny"
    (folder,) = folders(out)
    assert folder.startswith(NAME.format(0))
    assert "3,test,network,mean_logit," in (out / folder / "metrics.csv").read_text()
    assert "name: tiny_sampler" in (out / folder / "config.yaml").read_text()

    assert run("-m", "experiment=tiny", "seed=1,2").returncode == 0
    local = run("-m", "hydra/launcher=local", "hydra.launcher.jobs=2", "experiment=tiny", "seed=1,3", "etf.k=1,2")
    assert local.returncode == 0, local.stderr
    assert "4 runs, 1 finished before, 3 to do" in local.stdout
    assert len(folders(out)) == 6

    loaded = "from pathlib import Path; from nclab.run.trained import load_trained; " \
             f"model, dataset, config = load_trained(Path({str(out / folder)!r})); " \
             "print(model.activation, config.loss.factor, config.sampler.name, config.plugins)"  # fmt: skip
    assert python(loaded, installed, tmp_path) == "LeakyReLU(negative_slope=0.2) 2.0 tiny_sampler []\n"

    drawn = (
        "import sys; from nclab.analysis import load_runs, save_figure; "
        "from nclab.papers.simplex_etf.figures import figure1; "
        f"runs = load_runs([{str(out)!r}], where={{'model.slope': 0.1, 'etf.k': 1}}); "
        "figure, table = figure1(runs, ['tiny_last']); save_figure(figure, table, 'figure'); "
        "assert 'torch' not in sys.modules; print(len(runs), sorted({run.policy for run in runs}))"
    )
    assert python(drawn, "", tmp_path) == "3 ['tiny_last']\n"  # of a package that is not there
    assert (tmp_path / "figure.pdf").stat().st_size > 0


def test_a_run_of_a_package_resumes_after_a_kill(run, installed, tmp_path):
    words = ("experiment=tiny", "epochs=15", "checkpoint_seconds=0", "tracker=none", "dataset.test_size=360")
    process = subprocess.Popen(command(*words), cwd=tmp_path, env=env(installed), stdout=subprocess.DEVNULL)
    out = tmp_path / "outputs" / "tiny"
    while not list(out.glob("*/checkpoint.pt")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder,) = out.iterdir()
    assert not (folder / "DONE").exists()

    absent = run(f"resume={folder}", site="")
    assert absent.returncode == 2
    assert "unknown dataset 'tiny_digits'; did you mean digits? valid: cifar10" in absent.stderr
    assert run(f"resume={folder}").returncode == 0
    assert run(*words, "output_root=whole").returncode == 0
    whole = tmp_path / "whole" / "tiny" / folder.name
    assert (folder / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    assert "resume" in (folder / "events.jsonl").read_text()


def test_wrong_values_of_a_package_are_refused_like_ours(run, tmp_path):
    done = run("model=tiny_mlp", "model.slpoe=1")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "unknown key 'model.slpoe' of model=tiny_mlp; did you mean model.slope?" in done.stderr
    assert list(tmp_path.iterdir()) == []
    shown = run("--help").stdout
    for line in (
        "    tiny_mlp          An MLP whose activation has a slope",
        "    tiny              Everything that this",
    ):
        assert line in shown, line


def test_a_broken_package_ends_in_one_line(run, tmp_path):
    site = tmp_path / "site"
    (site / "broken-1.0.dist-info").mkdir(parents=True)
    (site / "broken-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (site / "broken-1.0.dist-info" / "entry_points.txt").write_text("[nclab.plugins]\nmine = broken\n")
    (site / "broken.py").write_text("raise RuntimeError('not today')")
    done = run("seed=1", site=site)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "plug-in 'broken' (named in entry point mine of broken) cannot be imported: it raised RuntimeError: " \
           "not today" in done.stderr  # fmt: skip
