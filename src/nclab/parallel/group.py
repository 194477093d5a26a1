"""One run on several processes, as torchrun starts them: which one this is, what its share is, and what all do at once.

Training is data-parallel. Every process holds the whole dataset, network and optimizer, makes the same decisions from
the same numbers and works on its share of every batch and split; sums over processes (gradients, statistics of batch
norm, sums of the metrics) are all that is exchanged. So at every batch boundary each process holds the state of the
whole run, and the first one alone writes it. Not torch's DistributedDataParallel: it lays its buffers out anew after
its first step, so that a resumed run would add its floats in another order than one that never stopped.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

# How long a process waits for the others: longer than any works alone (reading data, saving, a tracker's start).
# One that died is noticed at once, by its closed connections; only a lost host takes this long.
PATIENCE = timedelta(minutes=10)
T = TypeVar("T")


# The words of gloo, NCCL and the sockets below them for a process that is gone, and for one that does not answer. All
# else that an exchange raises (a shape, a type, a device that fails) is this process's own error.
DIED = re.compile(
    r"connection (was )?(closed|reset|refused|abort)|connection lost|broken pipe|socket (was )?closed|"
    r"remote process exit|ncclRemoteError|communicator was aborted|unreachable|no route to host",
    re.IGNORECASE,
)
SILENT = re.compile(r"timed?[ -]?out", re.IGNORECASE)


class PeerLost(RuntimeError):
    """Another process of this run died or left; this one cannot go on. `said`: whether someone has told the user."""

    said = False

    def __init__(self, what: str = "a process of this run died; the same command resumes") -> None:
        super().__init__(what)


class ProcessGroup:
    """The processes of one run; `ProcessGroup()` is a single one, for which nothing is to be done.

    All must call the methods that exchange something in the same order. Those raise PeerLost where a process is gone,
    RuntimeError for what cannot be exchanged.
    """

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size

    def __deepcopy__(self, _memo: dict) -> "ProcessGroup":
        return self  # a copied model belongs to the same group

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def share(self, number: int) -> slice:
        """This process's rows of `number`: contiguous, as even as can be, possibly none."""
        return slice(number * self.rank // self.size, number * (self.rank + 1) // self.size)

    def largest_share(self, number: int) -> int:
        return -(-number // self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over processes, the same bits on all of them."""
        if self.size == 1:
            return tensor
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        self.start_sum(total)()
        return total

    def start_sum(self, tensor: Tensor) -> Callable[[], None]:
        """Begin to sum over processes in place; the call that ends it is returned."""
        return self._start(tensor, distributed.ReduceOp.SUM)

    def start_most(self, number: int) -> Callable[[], int]:
        """Begin to find the largest of the processes' numbers, whatever device trains; the call gives it."""
        at = torch.tensor([number])
        end = self._start(at, distributed.ReduceOp.MAX)

        def most() -> int:
            end()
            return int(at)

        return most

    def gather(self, tensor: Tensor) -> Tensor:
        """All processes' tensors (...) in their order: (size, ...)."""
        if self.size == 1:
            return tensor[None]
        rows = tensor.new_empty(self.size, *tensor.shape)
        with _others():
            distributed.all_gather(list(rows.unbind()), tensor.contiguous())
        return rows

    def align(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the first one's numbers, in place."""
        for tensor in (t for t in tensors if t.numel()) if self.size > 1 else ():
            same = tensor.detach().contiguous()
            with _others():
                distributed.broadcast(same, 0)
            tensor.detach().copy_(same)

    def broadcast_call(self, call: Callable[[], T]) -> T:
        """What `call` returns, or raises, in the first process; the others do not call it."""
        if self.size == 1:
            return call()
        box: list[Any] = [None, None]
        if self.first:
            try:
                box[0] = call()
            except Exception as error:
                box[1] = error
        sent = [box[0], _portable(box[1])]
        with _others():
            distributed.broadcast_object_list(sent, 0)
        if sent[1] is not None:
            raise box[1] or sent[1]
        return box[0] if self.first else sent[0]

    @contextmanager
    def raise_everywhere(self) -> Iterator[None]:
        """What one process raises in here, all raise at its end; nothing may be exchanged inside."""
        if self.size == 1:
            yield
            return
        own = None
        try:
            yield
        except Exception as error:
            own = error
        errors: list[Any] = [None] * self.size
        with _others():
            distributed.all_gather_object(errors, _portable(own))
        for rank, error in enumerate(errors):
            if error is not None:
                error = own if rank == self.rank else error
                if rank and len(error.args) == 1:
                    error.args = (f"process {rank} of {self.size}: {error.args[0]}",)
                raise error

    def _start(self, tensor: Tensor, operation: Any) -> Callable[[], None]:
        with _others():
            work = distributed.all_reduce(tensor, operation, async_op=True)

        def end() -> None:
            with _others():
                work.wait()

        return end


SINGLE = ProcessGroup()


def world_size() -> int:
    """How many processes work on this run, as torchrun says; ValueError where its variables make no sense."""
    given = {name: os.environ.get(name) for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    if given["WORLD_SIZE"] in (None, "1"):
        return 1
    if not all(value is not None and value.isdecimal() for value in given.values()) or given["WORLD_SIZE"] == "0":
        came = ", ".join(f"{name}={value}" for name, value in given.items())
        raise ValueError(
            f"several processes are started as torchrun does, with WORLD_SIZE, RANK and LOCAL_RANK; got {came}. "
            "For a single process unset WORLD_SIZE"
        )
    return int(given["WORLD_SIZE"])


def is_first() -> bool:
    """Whether this process speaks for the run, also where nothing else of torchrun's variables is right."""
    return os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE") in (None, "1")


def refuse_several(what: str) -> None:
    """ValueError where this is one of several processes."""
    if (size := world_size()) > 1:
        raise ValueError(
            f"{what}, not with {size} processes of torchrun, which share one run; start it without torchrun"
        )


@contextmanager
def joined() -> Iterator[ProcessGroup]:
    """The process group of this process. Others than the first are silent."""
    size = world_size()
    if size == 1:
        yield SINGLE
        return
    ours = not distributed.is_initialized()  # a caller may have made the group himself
    if ours:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        with _others():
            distributed.init_process_group(backend, timeout=PATIENCE)
    world = ProcessGroup(int(os.environ["RANK"]), size)
    with Path(os.devnull).open("w") as nowhere:
        if world.first:
            yield world
        else:
            with redirect_stdout(nowhere):
                yield world
    if ours:  # not after an error: with a process gone, NCCL would wait for it
        distributed.destroy_process_group()


def local_size() -> int:
    """Processes of this run on this host."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if world_size() > 1 else 1


def own_gpu() -> None:
    """Make `cuda` mean this process's GPU; ValueError where the host has none for it."""
    index, have = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if index >= have:
        raise ValueError(
            f"each process needs a GPU of its own: expected at most {have} on this host (--nproc-per-node), got "
            f"{local_size()}; device=cpu trains without"
        )
    torch.cuda.set_device(index)


@contextmanager
def _others() -> Iterator[None]:
    """An exchange that ends because another process is gone, or silent, raises PeerLost."""
    try:
        yield
    except RuntimeError as error:
        if SILENT.search(str(error)):
            seconds = f"{PATIENCE.total_seconds():g}"
            raise PeerLost(f"a process of this run did not answer for {seconds} s; the same command resumes") from error
        if DIED.search(str(error)) or isinstance(error, distributed.DistNetworkError):
            raise PeerLost from error
        raise


def _portable(error: Exception | None) -> Exception | None:
    """The error as others can receive it."""
    try:
        deepcopy(error)  # by the same means as it is sent
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
