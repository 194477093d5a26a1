"""The kept tokens of texts: how many there are, and what becomes of files that were being written."""

import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from nclab.data import token_cache
from nclab.data.token_cache import KEPT, VERY_OLD, cached

DAY = 86400.0


def keys(folder):
    return {path.name for path in folder.glob("*.tokens")}


def use(folder, number, at):
    """Read or make the tokens of one key, at a time of its own."""
    there = keys(folder)
    arrays = cached(folder, f"key {number}", lambda: {"tokens": np.full(3, number)})
    assert arrays["tokens"].tolist() == [number] * 3
    (path,) = (keys(folder) - there) or {f"{token_cache.md5_of(f'key {number}'.encode())}.tokens"}
    assert abs((folder / path).stat().st_mtime - time.time()) < 60  # a use is noted
    os.utime(folder / path, (at, at))
    return path


def test_the_latest_used_are_kept(tmp_path):
    began = time.time() - 1000
    names = [use(tmp_path, number, began + number) for number in range(KEPT)]
    assert keys(tmp_path) == set(names)
    use(tmp_path, 0, began + 100)  # read again: no more the one that was used longest ago
    last = use(tmp_path, KEPT, began + 101)
    assert keys(tmp_path) == {names[0], *names[2:], last}


@pytest.fixture(scope="module")
def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("host", "alive", "age", "stays"),
    [
        ("here", True, 0, True),
        ("here", False, 0, False),
        ("elsewhere.example", False, DAY, True),  # whether it lives cannot be seen from here
        ("elsewhere.example", False, VERY_OLD + DAY, False),
        ("here", True, VERY_OLD + DAY, False),
        (None, False, DAY, True),  # as earlier versions named it
        (None, False, VERY_OLD + DAY, False),
    ],
)
def test_only_what_nobody_writes_any_more_is_removed(tmp_path, dead, host, alive, age, stays):
    of = f"{socket.gethostname() if host == 'here' else host}.{os.getpid() if alive else dead}."
    part = tmp_path / f"0a.tokens.{of if host else ''}0123456789abcdef.part"
    part.write_text("half")
    os.utime(part, (time.time() - age,) * 2)
    other = tmp_path / "notes.part"  # not ours
    other.write_text("half")
    os.utime(other, (0, 0))
    cached(tmp_path, "key", lambda: {"tokens": np.zeros(1)})
    assert part.exists() == stays
    assert other.exists()


def test_a_file_that_is_being_written_names_its_writer(tmp_path, monkeypatch):
    replace, seen = token_cache.Path.replace, []

    def look(path, target):
        seen.append(token_cache.PART.fullmatch(path.name))
        return replace(path, target)

    monkeypatch.setattr(token_cache.Path, "replace", look)
    cached(tmp_path, "key", lambda: {"tokens": np.zeros(1)})
    (found,) = seen
    assert (found["host"], found["pid"]) == (socket.gethostname(), str(os.getpid()))
    assert len(list(tmp_path.iterdir())) == 1
