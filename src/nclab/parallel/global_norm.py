"""Batch norm over the whole batch of a run, of which each process holds a part.

torch's SyncBatchNorm does it on GPUs alone; this one on every device, also where a process has one sample or none.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from nclab.etf.layer import replace
from nclab.parallel.group import ProcessGroup


def globalize(model: nn.Module, world: ProcessGroup) -> None:
    """Let the batch norms of the model see the batches of all processes; names and state dict stay as they are."""
    if world.size > 1:
        for name, module in list(model.named_modules()):
            if isinstance(module, _BatchNorm):
                replace(model, name, GlobalBatchNorm(module, world))


class GlobalBatchNorm(_BatchNorm):
    """`norm`, a batch norm of torch's that keeps running statistics, over the batches of all processes: x (B, d, ...)
    -> the same shape. Parameters and buffers are those of `norm`."""

    def __init__(self, norm: _BatchNorm, world: ProcessGroup):
        super().__init__(norm.num_features, norm.eps, norm.momentum, affine=False)
        self.world = world
        self.affine = norm.affine
        self.train(norm.training)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            running = self.running_mean, self.running_var
            return functional.batch_norm(x, *running, self.weight, self.bias, False, 0.0, self.eps)
        y, mean, variance, count = _Normalised.apply(x, self.weight, self.bias, self.eps, self.world)
        with torch.no_grad():
            self.num_batches_tracked += 1
            # momentum None: the mean over all batches so far
            rate = 1 / self.num_batches_tracked.to(mean) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, rate)
            self.running_var.lerp_(variance * (count / (count - 1)), rate)
        return y


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, world: ProcessGroup
    ) -> tuple[Tensor, ...]:
        """Also returns mean (d,), biased variance (d,) and number of the values that were normalised, of all
        processes."""
        values = _at_least_single(x)
        along = [i for i in range(x.ndim) if i != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        number = x.numel() // x.shape[1]
        own_mean = values.sum(along) / max(number, 1)  # (d,)
        own_spread = (values - own_mean.view(shape)).square().sum(along)  # (d,)
        own = torch.cat([own_mean, own_spread, own_mean.new_full((1,), number)])
        # Spreads about the processes' own means, put together: no difference of large numbers.
        means, spreads, numbers = world.gather(own).double().split([len(own_mean), len(own_mean), 1], dim=1)
        count = numbers.sum()
        mean = (numbers * means).sum(0) / count
        variance = (spreads.sum(0) + (numbers * (means - mean).square()).sum(0)) / count
        mean, variance, count = (t.to(values) for t in (mean, variance, count))
        y = functional.batch_norm(values, mean, variance, weight, bias, False, 0.0, eps).to(x.dtype)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps), count)
        ctx.world, ctx.along, ctx.shape = world, along, shape
        ctx.mark_non_differentiable(mean, variance, count)
        return y, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        dy = _at_least_single(grad)
        hat = (_at_least_single(x) - mean.view(ctx.shape)) * inverse.view(ctx.shape)
        sums = torch.stack([dy.sum(ctx.along), (dy * hat).sum(ctx.along)])  # (2, d)
        means = ctx.world.sum(sums) / count
        factor = inverse if weight is None else inverse * weight
        dx = (dy - means[0].view(ctx.shape) - hat * means[1].view(ctx.shape)) * factor.view(ctx.shape)
        # The gradients of weight and bias are those of this process's samples: they are summed with all others.
        of_weight, of_bias = (None, None) if weight is None else (sums[1], sums[0])
        return dx.to(x.dtype), of_weight, of_bias, None, None


def _at_least_single(x: Tensor) -> Tensor:
    """In float32, where it is of lower precision: the statistics of bf16 activations are float32, as torch's are."""
    return x if x.dtype == torch.float64 else x.float()
