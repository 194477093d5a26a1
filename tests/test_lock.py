"""The lock of a run folder: one writer, and questions that do not disturb it."""

import contextlib
import fcntl
import os
import shutil
import socket
import threading
import time

import pytest

from nclab.runfolder.folder import RunFolder
from nclab.system import lock
from nclab.system.lock import RunLocked, acquire, is_held, owner_host


@contextlib.contextmanager
def held(folder, kind):
    """The lock held by somebody else: another open file is to flock what another process is."""
    with (folder / ".lock").open("a+") as file:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        yield file


def test_held_is_what_a_writer_holds(tmp_path):
    assert not is_held(tmp_path)
    with RunFolder(tmp_path):
        assert is_held(tmp_path)
        assert owner_host(tmp_path) == socket.gethostname()
    assert not is_held(tmp_path)
    with held(tmp_path, fcntl.LOCK_SH):
        assert not is_held(tmp_path)
    assert owner_host(tmp_path / "absent") is None


@pytest.mark.fast
def test_a_second_writer_is_refused_at_once(tmp_path):
    with RunFolder(tmp_path):
        began = time.monotonic()
        with pytest.raises(RunLocked, match=f"being written by pid {os.getpid()} on .*; one writer a run folder"):
            acquire(tmp_path)
        assert time.monotonic() - began < lock.PATIENCE / 2


def test_a_writer_waits_for_those_who_only_ask(tmp_path):
    asking = contextlib.ExitStack()
    asking.enter_context(held(tmp_path, fcntl.LOCK_SH))
    threading.Timer(0.1, asking.close).start()
    with RunFolder(tmp_path):
        assert is_held(tmp_path)


def test_questions_without_end_are_an_error_not_a_hang(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.05)
    with held(tmp_path, fcntl.LOCK_SH), pytest.raises(RunLocked, match="another process"):
        acquire(tmp_path)


def test_many_who_ask_never_keep_a_run_from_starting(tmp_path):
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            is_held(tmp_path)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            with RunFolder(tmp_path):
                assert is_held(tmp_path)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_lock_that_was_removed_keeps_nobody_out_and_is_not_kept(tmp_path, monkeypatch):
    """Between the opening of the file and its locking the folder was removed, as `nclab-runs clean` does."""
    folder = tmp_path / "run"
    folder.mkdir()
    flock, removed = lock._flock, []

    def after_removal(file, kind):
        if not removed:
            removed.append(shutil.rmtree(folder))
        return flock(file, kind)

    monkeypatch.setattr(lock, "_flock", after_removal)
    with pytest.raises(FileNotFoundError):
        acquire(folder)
    removed.clear()
    folder.mkdir()
    with RunFolder(folder):
        assert is_held(folder)
        assert removed


def test_a_link_is_no_lock(tmp_path):
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        acquire(tmp_path)
