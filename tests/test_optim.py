"""Schedules against torch's own, torch's optimizers without their wrappers, and settings out of range."""

from functools import wraps

import pytest
import torch

from nclab.training.optim import OPTIMIZERS, SCHEDULES, Eager, below_wrappers, optimizer_bytes


def schedule(name: str, epochs: int, **settings):
    entry = SCHEDULES[name]
    return entry.build(entry.settings(**settings), epochs)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            schedule("multistep", 12, milestones=[3, 7, 9], gamma=0.1),
            lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [3, 7, 9], gamma=0.1),
        ),
        (schedule("cosine", 12), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 12)),
        (
            schedule("cosine", 12, final=0.25),
            lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 12, eta_min=0.25),
        ),
        (schedule("constant", 12), lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0)),
    ],
)
def test_schedules_equal_torchs(ours, theirs):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = theirs(optimizer)
    for epoch in range(12):
        assert ours(epoch) == pytest.approx(optimizer.param_groups[0]["lr"]), epoch
        optimizer.step()
        scheduler.step()


def test_only_wrappers_known_as_torchs_are_left_out():
    torch.optim.SGD([torch.zeros(1, requires_grad=True)])  # has its step wrapped for the profiler, if none was before
    step = torch.optim.SGD.step

    @wraps(step)
    def another(*args):
        return step(*args)

    assert below_wrappers(another) is another
    assert not hasattr(below_wrappers(step), "__wrapped__")
    optimizer = OPTIMIZERS["sgd"].build(OPTIMIZERS["sgd"].settings(), [torch.zeros(1, requires_grad=True)])
    assert type(optimizer).zero_grad is Eager.zero_grad is not torch.optim.Optimizer.zero_grad


@pytest.mark.parametrize(("name", "per_weight"), [("sgd", 4), ("adamw", 8)])
def test_optimizer_bytes_count_the_state(name, per_weight):
    entry = OPTIMIZERS[name]
    weight = torch.zeros(10, 10, requires_grad=True)
    optimizer = entry.build(entry.settings(), [weight])
    assert optimizer_bytes(optimizer) == 0
    weight.sum().backward()
    optimizer.step()
    steps = 4 if name == "adamw" else 0  # one float32 counter
    assert optimizer_bytes(optimizer) == 100 * per_weight + steps


@pytest.mark.parametrize(
    ("registry", "name", "change", "message"),
    [
        (OPTIMIZERS, "sgd", {"lr": 0.0}, "optimizer.lr must be above 0"),
        (OPTIMIZERS, "sgd", {"lr": float("nan")}, "optimizer.lr must be above 0"),
        (OPTIMIZERS, "sgd", {"weight_decay": -1.0}, "optimizer.weight_decay must be at least 0"),
        (OPTIMIZERS, "sgd", {"momentum": 1.0}, r"optimizer.momentum must be in \[0, 1\)"),
        (OPTIMIZERS, "sgd", {"momentum": 0.0, "nesterov": True}, "needs optimizer.momentum above 0"),
        (OPTIMIZERS, "adamw", {"betas": [0.9]}, "optimizer.betas must be two numbers"),
        (SCHEDULES, "multistep", {"milestones": [5, 3]}, "must be rising epochs"),
        (SCHEDULES, "multistep", {"gamma": 0.0}, "schedule.gamma must be above 0"),
        (SCHEDULES, "cosine", {"final": 2.0}, r"schedule.final must be in \[0, 1\]"),
    ],
)
def test_values_out_of_range_are_refused(registry, name, change, message):
    with pytest.raises(ValueError, match=message):
        registry[name].settings(**change)
