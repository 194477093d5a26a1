import subprocess
import sys

import pytest

from nclab import machine

FAULTS = """
import resource
import torch
from nclab.machine import keep_freed_memory
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
    kept, few = faults(kept=True)
    if not kept:
        pytest.skip("this C library has no mallopt")
    _, many = faults(kept=False)
    assert few < 1000
    assert many > 10 * few


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    assert machine.keep_freed_memory() is False
    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: object())  # a C library without mallopt
    assert machine.keep_freed_memory() is False
