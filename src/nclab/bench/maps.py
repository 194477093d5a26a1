"""Stacks of fixed and learnable linear layers, and a training step of them, for the benchmarks of layers."""

import torch
from torch import Tensor, nn

from nclab.bench.harness import Call
from nclab.etf import Recipe, fix
from nclab.training.optim import AdamWSettings, adamw

BATCH, STACK, STEPS = 512, 8, 10


def make(kind: str, d: int, device: str = "cpu") -> nn.Module:
    """A layer d -> d: learnable, frozen at its initial weight, or a simplex ETF with the frame of that name."""
    linear = nn.Linear(d, d, device=device)
    if kind == "learnable":
        return linear
    recipe = Recipe(kind="frozen") if kind == "frozen" else Recipe(frame=kind, num_classes=10)
    return fix(linear, recipe)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


def steps_of_stack(kind: str, d: int, device: str = "cpu", steps: int = STEPS, batch: int = BATCH) -> Call:
    """A call that makes so many training steps with Adam of STACK such layers behind a learnable one."""
    x = torch.randn(batch, d, device=device)
    model = nn.Sequential(nn.Linear(d, d, device=device), *(make(kind, d, device) for _ in range(STACK)))
    optimizer = adamw(AdamWSettings(), model.parameters())

    def train() -> None:
        for _ in range(steps):
            step(model, optimizer, x)

    return train
