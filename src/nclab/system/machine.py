"""What this process may use of the machine, and how it uses its memory."""

import ctypes
import os
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CPU_SHARE = Path("/sys/fs/cgroup/cpu.max")  # microseconds of CPU time in a period: "200000 100000" or "max 100000"
MEMORY_SHARE = Path("/sys/fs/cgroup/memory.max")  # bytes, or "max"

# Small matrices gain little from more, and threads that wait for a busy core make a run many times slower.
MOST_THREADS_BY_DEFAULT = 4
MOST_THREADS = 1024  # OpenMP ends the process where the system has none left

M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD = -3, -1, -2  # settings of malloc, by their numbers in glibc's malloc.h
# Blocks below this come from the heap; older versions of glibc take no more than the second.
LARGEST_ON_HEAP = (2**30, 2**25)
MOST_KEPT = 2**31 - 1  # bytes at the end of the heap
HEAP_STEP = 2**26  # bytes by which it grows: with less, aligned blocks find no room again


GPUS = Path("/dev")  # nvidia0, nvidia1, ...


class OutOfMemory(RuntimeError):
    """Memory, of the machine or of its GPU, was not enough; the message says for what, and what to lower."""


def out_of_memory(error: BaseException) -> bool:
    """Whether this is how Python, torch's CPU allocator (a RuntimeError) or a GPU says so."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text


@contextmanager
def needs_memory(what: str, advice: str) -> Iterator[None]:
    """A context whose want of memory becomes OutOfMemory: one line that says while doing what, and what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, OutOfMemory) or not out_of_memory(error):
            raise
        error.__traceback__ = None  # it holds the frames, and so the tensors, of the call that failed
        asked = re.search(r"tried to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
        amount = f" (asked for {asked[1]})" if asked else ""
        raise OutOfMemory(f"out of memory while {what}{amount}; {advice}") from None


def free_cores() -> int:
    """Cores that this process may use: its affinity, in a container its share of the machine, and in a Slurm job what
    its task was given, which not every cluster enforces."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = CPU_SHARE.read_text().partition(" ") if CPU_SHARE.exists() else ("max", "", "")
    limits = [] if quota == "max" else [int(quota) // int(period)]
    limits += [int(os.environ["SLURM_CPUS_PER_TASK"])] if "SLURM_CPUS_PER_TASK" in os.environ else []
    return max(1, min([cores, *limits]))


def has_gpu(index: int) -> bool:
    """Whether the machine seems to have this many GPUs and one, asked without torch."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1") and index < len([*GPUS.glob("nvidia[0-9]*")])


def memory_bytes() -> int:
    """Main memory that this process may use: the machine's or, in a container, its share."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    share = MEMORY_SHARE.read_text().strip() if MEMORY_SHARE.exists() else "max"
    return whole if share == "max" else min(whole, int(share))


def peak_resident_bytes() -> int:
    """The most main memory that this process has had so far, as the operating system counts it."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def threads_asked() -> int | None:
    """The threads that the user asks for by OMP_NUM_THREADS; of a list, such as 4,2 for nested loops, the first. None
    where it is not set. Raises ValueError for what is no such number."""
    text = os.environ.get("OMP_NUM_THREADS", "").strip()
    if not text or _set_by_torchrun(text):
        return None
    first = text.split(",")[0].strip()
    if not (first.isascii() and first.isdecimal() and 1 <= int(first) <= MOST_THREADS):
        raise ValueError(
            f"OMP_NUM_THREADS must be 1 to {MOST_THREADS} threads, got '{text}'; unset it, or set threads=N"
        )
    return int(first)


def _set_by_torchrun(text: str) -> bool:
    """Whether torchrun wrote it, which gives 1 to each of several processes where its user set nothing.

    The environment that torchrun itself was started with tells the two apart, where the system shows it (Linux).
    """
    if text != "1" or os.environ.get("LOCAL_WORLD_SIZE", "1") == "1":
        return False
    try:
        began_with = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return True
    return not any(entry.startswith(b"OMP_NUM_THREADS=") for entry in began_with)


def default_threads(cores: int | None = None, side_by_side: int = 1) -> int:
    """CPU threads of a run that names none: those of OMP_NUM_THREADS, else its part of the cores (None: those of this
    process) where several share them. Raises ValueError as `threads_asked` does."""
    if (asked := threads_asked()) is not None:
        return asked
    return max(1, min(MOST_THREADS_BY_DEFAULT, (free_cores() if cores is None else cores) // side_by_side))


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
    # The first setting ends malloc's own adaptation: without it the others would do harm.
    if not any(mallopt(M_MMAP_THRESHOLD, size) for size in LARGEST_ON_HEAP):
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, MOST_KEPT)) and bool(mallopt(M_TOP_PAD, HEAP_STEP))
