"""The package as a user gets it: what wheel and source archive hold, and the README's first experiment with it."""

import os
import shutil
import subprocess
import tarfile
import tomllib
import zipfile

import pytest
import yaml
from installed import BUILT, ROOT, built, copied, environment

COMMANDS = ["nclab-data", "nclab-draw", "nclab-paper", "nclab-runs", "nclab-train"]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source archive of a repository whose last commit has the tag v7.8.9."""
    if shutil.which("git") is None:
        pytest.skip("needs the program git: the version is that of a tag")
    source = copied(ROOT, tmp_path_factory.mktemp("source"), BUILT)
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "all"), ("tag", "v7.8.9")):
        subprocess.run([*git, *words], cwd=source, check=True)
    return built(source, source, "sdist")


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """Built from the unpacked source archive, as pip does where there is no wheel."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return built(folder / "nclab-7.8.9", folder)


@pytest.fixture(scope="module")
def bin_of_user(wheel, tmp_path_factory):
    return environment(tmp_path_factory.mktemp("user") / "env", wheel)


def test_the_archives_hold_the_package_and_no_more(sdist, wheel):
    with tarfile.open(sdist) as archive:
        top = {name.split("/")[1] for name in archive.getnames()}
    assert top == {*BUILT, "PKG-INFO"}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        points = archive.read("nclab-7.8.9.dist-info/entry_points.txt").decode().split()
    assert {name.split("/")[0] for name in names} == {"nclab", "hydra_plugins", "nclab-7.8.9.dist-info"}
    assert [word for word in points if word.startswith("nclab-")] == COMMANDS
    assert "nclab/py.typed" in names
    ours = {str(file.relative_to(ROOT)) for file in (ROOT / "conf").rglob("*.yaml")}
    assert {f"nclab/{name}" for name in ours} <= names
    modules = {str(file.relative_to(ROOT / "src")) for file in (ROOT / "src" / "nclab").rglob("*.py")}
    assert modules <= names
    assert len(modules) > 300


def test_the_first_experiment_with_the_wheel(bin_of_user, tmp_path):
    """In an empty folder, far from a checkout, by the commands of the README in small."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    env |= {"PATH": f"{bin_of_user}{os.pathsep}{env['PATH']}", "OMP_NUM_THREADS": "1"}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run("python", "-c", "import nclab; print(nclab.__version__, nclab.__file__)").split()
    assert where == ["7.8.9", str(next(bin_of_user.parent.glob("lib/*/site-packages/nclab/__init__.py")))]
    small = ("dataset=mnist5k", "dataset.train_size=300", "dataset.test_size=100", "epochs=2")
    run("nclab-train", "-m", "experiment_name=first", *small, "skip_invalid=true", "etf=none,last_k", "etf.k=1,2")
    assert "3 runs: 3 done" in run("nclab-runs", "status", "outputs/first")
    assert "baseline" in run("nclab-draw", "summary", "outputs/first")
    run("nclab-draw", "figure1", "outputs/first")
    assert (tmp_path / "outputs" / "figures").is_dir()
    assert run("nclab-runs", "board", "outputs/first").startswith("board.html: 3 runs, ")


def test_the_version_is_that_of_git_and_nowhere_written():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" not in project
    assert project["dynamic"] == ["version"]


def test_the_citation_names_the_project_and_no_person():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["authors"] == [{"name": "The nclab authors"}]
    assert {"cff-version", "message", "title", "type", "license", "abstract"} <= set(citation)
