"""The folder for a GPU machine without internet: what goes in, in which pieces, and what its script does."""

import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from test_bench import script

bundle = script("gpu_bundle")
ROOT = Path(__file__).parents[1]


def test_what_the_machine_lacks_is_what_nclab_needs_and_torch_does_not():
    lacks = bundle.needs([*bundle.WANTED], "3.12") - bundle.needs(["torch", "torchvision", "numpy"], "3.12")
    there = {
        "hydra-core",
        "omegaconf",
        "antlr4-python3-runtime",
        "wandb",
        "pydantic",
        "pydantic-core",
        "scipy",
        "pytest",
    }
    assert there <= lacks
    assert not lacks & {"torch", "torchvision", "numpy", "pillow", "jinja2", "sympy", "ruff", "mypy", "sphinx"}
    assert not [name for name in lacks if name.startswith("nvidia")]


LOCK = """# a lock file
one==1.5 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via two
two==1 ; python_full_version < '3.12' \\
    --hash=sha256:cc
two==2 ; python_full_version >= '3.12' \\
    --hash=sha256:dd \\
    --hash=sha256:ee
Three_Four==3 ; sys_platform == 'win32' \\
    --hash=sha256:ff
"""


def test_versions_and_hashes_are_those_of_the_lock_for_that_python():
    assert bundle.pinned(LOCK, {"one", "two"}, "3.12") == [
        "one==1.5 --hash=sha256:aa --hash=sha256:bb",
        "two==2 --hash=sha256:dd --hash=sha256:ee",
    ]
    assert bundle.pinned(LOCK, {"two"}, "3.11") == ["two==1 --hash=sha256:cc"]
    with pytest.raises(ValueError, match=r"an entry in requirements\.lock of every package, got none of three-four"):
        bundle.pinned(LOCK, {"one", "three-four"}, "3.12")


def test_the_lock_has_what_the_machine_lacks():
    names = bundle.needs([*bundle.WANTED], "3.12") - bundle.needs(["torch", "torchvision", "numpy"], "3.12") - {"nclab"}
    entries = bundle.pinned((ROOT / "requirements.lock").read_text(), names, "3.12")
    assert len(entries) == len(names) > 30
    assert all("==" in entry and "--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("a-1-py3-none-any.whl", True),
        ("a-1-py2.py3-none-any.whl", True),
        ("a-1-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", True),
        ("a-1-cp310-abi3-manylinux2014_x86_64.whl", True),
        ("a-1-py3-none-manylinux_2_28_x86_64.whl", True),
        ("a-1-cp311-cp311-manylinux2014_x86_64.whl", False),
        ("a-1-py3-none-macosx_11_0_arm64.whl", False),
        ("a-1-cp312-cp312-manylinux2014_aarch64.whl", False),
    ],
)
def test_a_wheel_for_another_machine_is_seen(name, runs):
    assert bundle.fits(name, "3.12") is runs


def filled(folder: Path, size: int) -> Path:
    """A folder with a file that no compression shortens."""
    folder.mkdir(parents=True)
    numbers = b"".join(hashlib.sha256(bytes([i % 256, i // 256])).digest() for i in range(size // 32))
    (folder / "numbers").write_bytes(numbers)
    return folder


def test_pieces_are_small_and_together_the_folder(tmp_path):
    own = filled(tmp_path / "MNIST" / "raw", 3200).parent
    made = [*bundle.pieces(own, tmp_path / "MNIST.tar.gz", 1000)]
    assert [piece.name for piece in made] == [f"MNIST.tar.gz.0{i}" for i in range(4)]
    assert max(piece.stat().st_size for piece in made) == 1000
    assert not (tmp_path / "MNIST.tar.gz").exists()
    whole = tmp_path / "whole.tar.gz"
    whole.write_bytes(b"".join(piece.read_bytes() for piece in made))
    with tarfile.open(whole) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    assert (tmp_path / "out/MNIST/raw/numbers").read_bytes() == (own / "raw/numbers").read_bytes()


def test_too_large_a_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "PIECE", 10_000)
    (tmp_path / "a.whl").write_bytes(b"0" * 10_001)
    with pytest.raises(ValueError, match=r"files of at most 10000 bytes, got larger: a\.whl"):
        bundle.finish(tmp_path)


def test_what_is_not_under_the_data_root_is_said(tmp_path):
    filled(tmp_path / "root" / "MNIST", 64)
    said = bundle.pack_data(["mnist", "cifar10"], tmp_path / "root", tmp_path / "data")
    assert said == [f"cifar10 is not under {tmp_path / 'root'}: nclab-data fetch cifar10"]
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["MNIST.tar.gz.00"]
    assert {"mnist", "fashion_mnist", "cifar10"} <= {*bundle.DATA}


def test_a_link_in_the_place_of_data_is_followed(tmp_path):
    elsewhere = filled(tmp_path / "elsewhere", 64)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "MNIST").symlink_to(elsewhere)
    assert bundle.pack_data(["mnist"], tmp_path / "root", tmp_path / "data") == []
    with tarfile.open(tmp_path / "data" / "MNIST.tar.gz.00") as tar:
        tar.extractall(tmp_path / "out", filter="data")
    assert (tmp_path / "out/MNIST/numbers").read_bytes() == (elsewhere / "numbers").read_bytes()


def test_a_package_that_is_not_here_is_named(tmp_path, capsys):
    assert bundle.main(["--have", "pytrch", "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "error: expected packages that are installed here, got pytrch\n"
    assert [*tmp_path.iterdir()] == []


@pytest.fixture
def without_wheels(monkeypatch):
    """Nothing is downloaded or built."""

    def download(uv, requirements, wheels, python):
        (wheels.parent / "requirements.txt").touch()
        (wheels / "a-1-py3-none-any.whl").write_text("a")

    monkeypatch.setattr(bundle, "download", download)
    monkeypatch.setattr(bundle, "build_wheel", lambda *words: None)


@pytest.mark.usefixtures("without_wheels")
def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path, capsys):
    (mine := tmp_path / "mine").mkdir()
    (mine / "thesis.tex").write_text("years")
    (tmp_path / "file").write_text("years")
    for taken in (mine, mine / "thesis.tex"):
        with pytest.raises(SystemExit) as end:
            bundle.main(["--data", "--out", str(taken)])
        assert end.value.code == 2
        assert f"expected a folder that is new, empty or a bundle (SHA256SUMS, CONTENTS.md), got {taken}" in (
            capsys.readouterr().err
        )
    assert (mine / "thesis.tex").read_text() == (tmp_path / "file").read_text() == "years"


@pytest.mark.usefixtures("without_wheels")
def test_a_bundle_is_replaced_once_the_new_one_is_whole(tmp_path, monkeypatch):
    (out := tmp_path / "deep" / "out").mkdir(parents=True)  # empty
    words = ["--data", "--out", str(out)]
    assert bundle.main(words) == 0
    (out / "of the first").touch()

    def fails(folder):
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(bundle, "finish", fails)
        assert bundle.main(words) == 1
    assert (out / "of the first").exists()
    assert bundle.main(words) == 0
    assert sorted(file.name for file in out.iterdir()) == ["CONTENTS.md", "SHA256SUMS", "data", "install.sh", "wheels"]
    assert [*out.parent.iterdir()] == [out]


@pytest.fixture
def small(tmp_path):
    """A bundle of one wheel that is none and data in two pieces, and a Python that writes down how it is called."""
    folder = tmp_path / "bundle"
    (folder / "wheels").mkdir(parents=True)
    (folder / "wheels" / "a-1-py3-none-any.whl").write_text("a")
    (folder / "data").mkdir()
    own = filled(tmp_path / "MNIST", 3200)
    assert len([*bundle.pieces(own, folder / "data" / "MNIST.tar.gz", 2000)]) == 2
    bundle.finish(folder)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/called\n')
    python.chmod(0o755)
    return folder, python


def installed(folder, python, place) -> subprocess.CompletedProcess:
    return subprocess.run(["sh", folder / "install.sh", python, place], capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="sha256sum and tar of Linux")
def test_the_script_checks_installs_and_unpacks_without_a_network(small, tmp_path):
    folder, python = small
    done = installed(folder, python, tmp_path / "place")
    assert (done.returncode, done.stderr) == (0, "")
    words = (tmp_path / "called").read_text().split("\n")[:-1]
    assert words == [
        *("-m", "pip", "install", "--quiet", "--no-index", "--find-links", f"{folder}/wheels"),
        *("nclab[wandb]", "pytest"),
    ]
    assert (tmp_path / "place/MNIST/numbers").read_bytes() == (tmp_path / "MNIST/numbers").read_bytes()
    sizes = (folder / "CONTENTS.md").read_text()
    assert all(name in sizes for name in ("wheels/a-1-py3-none-any.whl", "data/MNIST.tar.gz.00", "all of 5 files"))


@pytest.mark.skipif(sys.platform != "linux", reason="sha256sum and tar of Linux")
def test_a_damaged_piece_ends_it_before_anything_is_installed(small, tmp_path):
    folder, python = small
    (folder / "data" / "MNIST.tar.gz.01").write_bytes(b"damaged")
    done = installed(folder, python, tmp_path / "place")
    assert done.returncode != 0
    assert "data/MNIST.tar.gz.01: FAILED" in done.stdout
    assert not (tmp_path / "called").exists()
    assert not (tmp_path / "place").exists()
