"""What this process may use of the machine, and how it uses its memory."""

import ctypes
import os
import sys
from pathlib import Path

CPU_SHARE = Path("/sys/fs/cgroup/cpu.max")  # microseconds of CPU time in a period: "200000 100000" or "max 100000"

# Settings of malloc, by their numbers in glibc's malloc.h, and their values: nothing under 1 GiB is mapped for itself,
# up to 2 GiB at the end of the heap are kept, and the heap grows by 64 MiB (else aligned blocks find no room again).
MALLOC = {"M_MMAP_THRESHOLD": (-3, 2**30), "M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 2**26)}


def free_cores() -> int:
    """Cores that this process may use: its affinity and, in a container, its share of the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = CPU_SHARE.read_text().partition(" ") if CPU_SHARE.exists() else ("max", "", "")
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def keep_freed_memory() -> bool:
    """Let the C library keep what tensors free on the CPU, for the next ones; true where it does.

    By default glibc gives large blocks back to the kernel at once and gets them again page by page, each cleared by the
    kernel: half the time of a full measurement went there. The process then holds the memory of its peak until it
    ends. Elsewhere than on glibc nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    accepted = [mallopt(setting, value) for setting, value in MALLOC.values()]
    return all(accepted)
