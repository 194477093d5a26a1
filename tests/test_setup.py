"""make setup installs what changed, and leaves alone what a checkout merely wrote again."""

import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def checkout(folder: Path, does: str) -> Path:
    """What make setup reads, and in the place of uv a shell script that `does` this and makes .venv; returns that."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    uv = folder / "uv"
    uv.write_text(f"#!/bin/sh\nmkdir -p .venv\n{does}\n")
    uv.chmod(0o755)
    return uv


def test_make_setup_installs_once_and_again_where_a_requirement_changed(tmp_path):
    uv = checkout(tmp_path, 'echo "$1 $2" >> calls')

    def calls_of_setup() -> list[str]:
        (tmp_path / "calls").write_text("")
        env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        subprocess.run(["make", "setup", f"UV={uv}"], cwd=tmp_path, env=env, check=True, capture_output=True)
        return [line.split(" --")[0] for line in (tmp_path / "calls").read_text().splitlines()]

    everything = ["venv", "pip sync", "pip install"]
    assert calls_of_setup() == everything
    assert calls_of_setup() == []
    later = (tmp_path / ".venv/.ready").stat().st_mtime + 10
    os.utime(tmp_path / "pyproject.toml", (later, later))
    assert calls_of_setup() == []
    lock = tmp_path / "requirements.lock"
    lock.write_text(lock.read_text() + "# another\n")
    os.utime(lock, (later + 10, later + 10))
    assert calls_of_setup() == everything


UV = """echo "$@" >> calls
for word in "$@"; do case $word in *.lock) cp "$word" synced;; esac; done"""


def calls_of(folder: Path, *words: str) -> list[str]:
    """What `make setup WORDS` asks of uv."""
    (folder / "calls").write_text("")
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    subprocess.run(["make", "setup", f"UV={folder}/uv", *words], cwd=folder, env=env, check=True, capture_output=True)
    return (folder / "calls").read_text().splitlines()


def names_in(lock: Path) -> set[str]:
    return set(re.findall(r"^([A-Za-z0-9._-]+)==", lock.read_text(), re.MULTILINE))


def test_torch_for_another_backend_takes_the_place_of_the_pinned_wheels(tmp_path):
    checkout(tmp_path, UV)
    whole = names_in(ROOT / "requirements.lock")
    calls = calls_of(tmp_path, "TORCH=cpu")
    left = names_in(tmp_path / "synced")
    assert {name for name in whole - left if not name.startswith(("nvidia-", "cuda-"))} == {
        "torch",
        "torchvision",
        "triton",
    }
    assert not [name for name in left if name.startswith(("nvidia-", "cuda-"))]
    assert len(left) > 150
    assert (tmp_path / "synced").read_text().count("--hash=") > 1000  # the others are still checked by their hashes
    pins = re.findall(r"^(torch(?:vision)?==[0-9.]+) ", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert [call.split()[:2] for call in calls] == [["venv", "--quiet"], *[["pip", "sync"]], *[["pip", "install"]] * 2]
    assert calls[2].endswith(f"--no-deps --torch-backend cpu {' '.join(pins)}")
    assert len(pins) == 2
    assert "--editable" in calls[3]


def test_an_environment_keeps_its_backend_until_another_is_asked_for(tmp_path):
    checkout(tmp_path, UV)
    assert "--torch-backend" not in " ".join(calls_of(tmp_path))
    assert "--torch-backend cpu" in " ".join(calls_of(tmp_path, "TORCH=cpu"))
    assert calls_of(tmp_path) == calls_of(tmp_path, "TORCH=cpu") == []
    lock = tmp_path / "requirements.lock"
    lock.write_text(lock.read_text() + "# another\n")
    later = (tmp_path / ".venv/.ready").stat().st_mtime + 10
    os.utime(lock, (later, later))
    assert "--torch-backend cpu" in " ".join(calls_of(tmp_path))


def test_another_torch_than_that_for_the_cpu_is_refused_before_anything_is_changed(tmp_path):
    """The libraries that it needs are not in the lock."""
    uv = checkout(tmp_path, UV)
    calls_of(tmp_path)
    ready = (tmp_path / ".venv/.ready").read_text()
    for target in ("setup", "install"):
        (tmp_path / "calls").write_text("")
        words = ["make", target, f"UV={uv}", "TORCH=cu130"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert "TORCH: expected cpu, or nothing for PyPI's torch; got cu130" in done.stderr
        assert (tmp_path / "calls").read_text() == ""
    assert (tmp_path / ".venv/.ready").read_text() == ready


def test_a_change_that_fails_is_made_good_by_the_next_set_up(tmp_path):
    uv = checkout(tmp_path, UV)
    whole = calls_of(tmp_path)
    uv.write_text(uv.read_text() + "case $* in *--torch-backend*) exit 1;; esac\n")
    failed = ["make", "setup", f"UV={uv}", "TORCH=cpu"]
    assert subprocess.run(failed, cwd=tmp_path, capture_output=True).returncode == 2
    assert calls_of(tmp_path) == whole  # all again: torch was gone
    assert calls_of(tmp_path) == []


def test_a_set_up_that_fails_is_tried_again(tmp_path):
    uv = checkout(tmp_path, "[ $1 = venv ]")
    for _ in range(2):
        assert subprocess.run(["make", "setup", f"UV={uv}"], cwd=tmp_path, capture_output=True).returncode == 2
    assert not (tmp_path / ".venv/.ready").exists()
