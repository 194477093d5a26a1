"""NCCL and gloo with one process: every exchange of a run on several GPUs, in a group of one."""

from datetime import timedelta

import torch
from torch import Tensor, distributed

from nclab.bench.gpu.row import Aim, Line, Row, WrongResult, at_once
from nclab.bench.harness import seconds
from nclab.parallel.group import ProcessGroup

# By where the data lie: tensors on the device go by NCCL; a number and objects, which lie on the CPU, by gloo.
BY_NCCL, BY_GLOO = ("sum", "gather", "broadcast"), ("largest", "objects to all", "objects of all")
ALL = len(BY_NCCL) + len(BY_GLOO)
EXCHANGES = Aim("exchanges of a run in a group of one process", f"of {ALL}", least=ALL)
NUMBERS, SUMS = 2**22, 10


def group_of_one(device: str) -> None:
    """Of the backends that a run on several GPUs has."""
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    store = distributed.HashStore()
    distributed.init_process_group(backend, store=store, rank=0, world_size=1, timeout=timedelta(seconds=20))


def exchanged(device: str, numbers: int = NUMBERS) -> dict[str, bool]:
    """Whether each exchange gives back what one process put in."""
    world = ProcessGroup()
    x = torch.randn(numbers, device=device)
    summed, same = x.clone(), x.clone()
    world.start_sum(summed)()
    gathered: list[Tensor] = [torch.empty_like(x)]
    distributed.all_gather(gathered, x)
    distributed.broadcast(same, 0)
    told: list = [{"epoch": 3}]
    distributed.broadcast_object_list(told, 0)
    heard: list = [None]
    distributed.all_gather_object(heard, {"epoch": 3})
    return {
        "sum": torch.equal(summed, x),
        "largest": world.start_most(7)() == 7,
        "gather": torch.equal(gathered[0], x),
        "broadcast": torch.equal(same, x),
        "objects to all": told == [{"epoch": 3}],
        "objects of all": heard == [{"epoch": 3}],
    }


def measure(device: str) -> list[Row]:
    group_of_one(device)
    try:
        found = exchanged(device)
        if wrong := [name for name, right in found.items() if not right]:
            raise WrongResult(f"the group of one changed the numbers of: {', '.join(wrong)}")
        x = torch.ones(NUMBERS, device=device)
        spent = seconds(lambda: [distributed.all_reduce(x) for _ in range(SUMS)], device) / SUMS
    finally:
        distributed.destroy_process_group()
    beside = f"{len(BY_NCCL)} by NCCL, {len(BY_GLOO)} by gloo; a sum of {4 * NUMBERS / 2**20:.0f} MiB by NCCL takes"
    return [EXCHANGES.row(sum(found.values()), f"{beside} {1e3 * spent:.2f} ms")]


LINE = Line("NCCL", 30, (EXCHANGES,), at_once(measure))
