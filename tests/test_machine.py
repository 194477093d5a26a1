import ctypes
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
