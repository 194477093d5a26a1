"""make setup installs what changed, and leaves alone what a checkout merely wrote again."""

import os
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


def test_a_set_up_that_fails_is_tried_again(tmp_path):
    uv = checkout(tmp_path, "[ $1 = venv ]")
    for _ in range(2):
        assert subprocess.run(["make", "setup", f"UV={uv}"], cwd=tmp_path, capture_output=True).returncode == 2
    assert not (tmp_path / ".venv/.ready").exists()
