"""A sum over the processes of a run within autograd's graph."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nclab.parallel.group import ProcessGroup


def summed(world: ProcessGroup, tensor: Tensor) -> Tensor:
    """The sum over processes, the same bits on all of them.

    The loss of a run is the sum of the processes' losses, and each may depend on the sum: the gradient of a process's
    summand is the sum of the gradients that all processes have of the sum. All must go through backward likewise.
    """
    return _Summed.apply(tensor, world) if world.size > 1 else tensor


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, world: ProcessGroup) -> Tensor:
        ctx.world = world
        return world.sum(tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.world.sum(grad), None
