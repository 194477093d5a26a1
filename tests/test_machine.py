import ctypes
import os
import subprocess
import sys

import pytest

from nclab.system import machine

FAULTS = """
import resource
import torch
from nclab.system.machine import keep_freed_memory
kept = {kept} and keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    batches = [torch.ones(400_000) for _ in range(100)]  # 160 MB, freed together
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(int(kept), faults())
"""


def faults(kept: bool) -> tuple[bool, int]:
    """Whether freed memory is kept, and the page faults of what was allocated and freed once before."""
    done = subprocess.run([sys.executable, "-c", FAULTS.format(kept=kept)], capture_output=True, text=True, check=True)
    answer, count = done.stdout.split()
    return answer == "1", int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="malloc of glibc")
def test_freed_memory_is_used_again_without_the_kernel():
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("this C library has no mallopt")
    kept, few = faults(kept=True)
    assert kept
    _, many = faults(kept=False)
    assert many > 5 * few  # some blocks find no room between others


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    assert machine.keep_freed_memory() is False
    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: object())  # a C library without mallopt
    assert machine.keep_freed_memory() is False


@pytest.mark.parametrize(
    ("most", "asked"),
    [
        (2**40, [(-3, 2**30), (-1, 2**31 - 1), (-2, 2**26)]),
        (2**25, [(-3, 2**30), (-3, 2**25), (-1, 2**31 - 1), (-2, 2**26)]),  # as glibc before 2.35
        (0, [(-3, 2**30), (-3, 2**25)]),  # the others alone would do harm
    ],
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="malloc of glibc")
def test_what_malloc_refuses_is_asked_for_in_smaller_size(monkeypatch, most, asked):
    calls = []

    class Library:
        @staticmethod
        def mallopt(setting: int, value: int) -> int:
            calls.append((setting, value))
            return int(setting != -3 or value <= most)

    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: Library)
    assert machine.keep_freed_memory() is (most > 0)
    assert calls == asked


@pytest.mark.parametrize(("text", "threads"), [("3", 3), (" 9 ", 9), ("4,2", 4), ("", None), (None, None)])
def test_threads_are_those_of_the_users_environment(monkeypatch, text, threads):
    """Where the key `threads` is null: also more than the default's most."""
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(machine, "free_cores", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", text) if text is not None else monkeypatch.delenv("OMP_NUM_THREADS", False)
    assert machine.threads_asked() == threads
    assert machine.default_threads() == (2 if threads is None else threads)
    assert machine.default_threads(side_by_side=2) == (1 if threads is None else threads)


@pytest.mark.parametrize("text", ["foo", "0", "-1", "1.5", "99999", "²", ",2"])
def test_an_environment_that_names_no_threads_is_refused(monkeypatch, text):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    with pytest.raises(ValueError, match=f"OMP_NUM_THREADS must be 1 to 1024 threads, got '{text}'"):
        machine.default_threads()


STARTER = """
import os, subprocess, sys
os.environ["OMP_NUM_THREADS"] = "1"  # as torchrun does where its user did not
code = "from nclab.system.machine import threads_asked; print(threads_asked())"
print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
@pytest.mark.parametrize(("users", "threads"), [(None, "None"), ("1", "1")])
def test_what_torchrun_sets_is_not_the_users_wish(users, threads):
    env = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | {"LOCAL_WORLD_SIZE": "2"}
    env |= {"OMP_NUM_THREADS": users} if users else {}
    done = subprocess.run([sys.executable, "-c", STARTER], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == threads
