"""What a training step does: `train()` against a loop in plain PyTorch, weights equal."""

import math

import pytest
import torch
from run_folders import events
from torch import nn
from torch.nn import functional

from nclab.data import load_dataset
from nclab.data.augment import crop_flip
from nclab.etf.layer import Recipe, etf_weight
from nclab.etf.policy import site_seed
from nclab.models.mlp import MLP
from nclab.run.execute import train
from nclab.runfolder import checkpoint

EPOCHS, BATCH, LR, MOMENTUM, DECAY, SEED = 4, 64, 0.05, 0.8, 1e-3, 5
KEYS = (
    f"epochs={EPOCHS}",
    f"batch_size={BATCH}",
    f"optimizer.momentum={MOMENTUM}",
    f"optimizer.weight_decay={DECAY}",
    "schedule=cosine",
    "dataset.augment=crop_flip",
    "etf=last_k",
    "etf.k=2",
    f"seed={SEED}",
    "metrics.every=0",
)


class PlainMLP(nn.Module):
    """The MLP of `tiny`, written out: three layers that learn, two fixed."""

    def __init__(self, floats):
        super().__init__()
        self.fc1, self.norm1 = nn.Linear(64, 24), nn.BatchNorm1d(24)
        self.fc2, self.norm2 = nn.Linear(24, 24), nn.BatchNorm1d(24)
        self.fc3, self.norm3 = nn.Linear(24, 24), nn.BatchNorm1d(24)
        self.fc4 = nn.Linear(24, 10)
        fixed = {"fc3": Recipe(seed=site_seed(SEED, "fc3"), num_classes=10)}
        fixed["fc4"] = Recipe(rank="rows", seed=site_seed(SEED, "fc4"), num_classes=10)
        self.to(floats)
        for name, recipe in fixed.items():
            layer = getattr(self, name)
            layer.weight.data = etf_weight(layer.out_features, layer.in_features, recipe)[0].to(floats)
            layer.weight.requires_grad_(False)

    def forward(self, x):
        h = torch.relu(self.norm1(self.fc1(x.flatten(1))))
        h = torch.relu(self.norm2(self.fc2(h)))
        return self.fc4(torch.relu(self.norm3(self.fc3(h))))


def reference(images, labels, floats=torch.float32):
    """Ten lines of plain PyTorch: cosine schedule, momentum, weight decay, shuffling, crop and flip."""
    torch.manual_seed(SEED)
    model = PlainMLP(floats)
    order, augment = (torch.Generator().manual_seed(site_seed(SEED, name)) for name in ("order", "augment"))
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learnt, lr=LR, momentum=MOMENTUM, weight_decay=DECAY)
    for epoch in range(EPOCHS):
        optimizer.param_groups[0]["lr"] = LR * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2
        for batch in torch.randperm(len(images), generator=order).split(BATCH):
            x = crop_flip(images[batch], augment).to(floats) / 16
            loss = functional.cross_entropy(model(x), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.state_dict()


def difference(tiny, *more, floats=torch.float32):
    """The largest difference of a weight between a run and the reference, relative to the largest weight."""
    config = tiny(*KEYS, *more)
    data = load_dataset(config.dataset, ".").train
    expected = reference(data.samples, data.targets, floats)
    state = checkpoint.load(train(config))["model"]
    learnt = [name for name in expected if name in state and expected[name].is_floating_point()]
    assert {"fc1.weight", "fc2.bias", "fc3.bias", "fc4.bias", "norm3.running_var"} <= set(learnt)
    return max(float((state[name] - expected[name]).abs().max() / expected[name].abs().max()) for name in learnt)


@pytest.mark.fast
def test_a_run_is_the_plain_loop(tiny):
    assert difference(tiny) < 1e-5


def test_a_run_in_float64_is_the_plain_loop_in_float64(tiny):
    assert difference(tiny, "precision=float64", floats=torch.float64) < 1e-12
    assert difference(tiny, floats=torch.float64) > 1e-9  # a run in float32 is not


@pytest.mark.parametrize("wrong", ["schedule=constant", "dataset.augment=none", "optimizer.momentum=0.7",
                                   "optimizer.weight_decay=0", "seed=6", "batch_size=65", "etf.k=1"])  # fmt: skip
def test_the_comparison_sees_every_ingredient(tiny, wrong):
    """A run with one ingredient changed is not the plain loop."""
    assert difference(tiny, wrong) > 1e-3


LINE_SEARCH = ("precision=float64", "batch_size=null", "sampler=repeated", "sampler.repeats=2", "epochs=2", "seed=5",
               "optimizer=lbfgs", "optimizer.max_iter=3", "loss.l2=1e-3", "etf=last_k", "etf.k=2",
               "metrics.every=0")  # fmt: skip


def line_search(images, labels):
    """Ten lines of plain PyTorch: L-BFGS on the whole train split, the penalty in what it minimises."""
    torch.manual_seed(SEED)
    model, x = PlainMLP(torch.float64), images.double() / 16
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.LBFGS(learnt, lr=LR, max_iter=3, max_eval=1000, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        objective = functional.cross_entropy(model(x), labels) + 1e-3 / 2 * sum(p.square().sum() for p in learnt)
        objective.backward()
        return objective

    for _ in range(4):
        optimizer.step(closure)
    return model.state_dict()


@pytest.mark.parametrize(
    ("wrong", "least", "most"),
    [
        # Rounding grows in twelve line searches: one unit in the last place of the first weights moves the last ones
        # by 4e-9 to 4e-7, and this difference is 6e-11 to 2e-8 by the vector instructions that torch and MKL use.
        (None, 0, 1e-5),
        ("loss.l2=2e-3", 1e-2, 10),
        ("optimizer.lr=0.1", 1e-2, 10),
        ("optimizer.history_size=1", 1e-2, 10),
        ("sampler.repeats=1", 1e-2, 10),
        ("precision=float32", 1e-2, 10),
    ],
)
def test_a_run_of_lbfgs_is_the_plain_loop_and_sees_every_ingredient(tiny, wrong, least, most):
    config = tiny(*LINE_SEARCH, *([wrong] if wrong else []))
    data = load_dataset(config.dataset, ".").train
    expected = line_search(data.samples, data.targets)
    state = checkpoint.load(train(config))["model"]
    learnt = [name for name in expected if name in state and expected[name].is_floating_point()]
    assert {"fc1.weight", "fc4.bias", "norm3.running_var"} <= set(learnt)
    worst = max(float((state[name] - expected[name]).abs().max() / expected[name].abs().max()) for name in learnt)
    assert least <= worst <= most


def switching(images, labels, switches):
    """The same loop, every layer learnt until the epoch after which it became the ETF nearest to it; without momentum
    of what is learnt no longer."""
    torch.manual_seed(SEED)
    model = MLP(64, 10, 4, 24)
    order = torch.Generator().manual_seed(site_seed(SEED, "order"))
    momentum = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for epoch in range(EPOCHS):
        for site in [site for site, after in switches if after == epoch]:
            layer = model.get_submodule(site)
            recipe = Recipe(frame="nearest", rank="rows" if site == "fc4" else "full", num_classes=10)
            weight, _ = etf_weight(layer.out_features, layer.in_features, recipe, layer.weight)
            layer.weight.data = weight.float()
            layer.weight.requires_grad_(False)
        for batch in torch.randperm(len(images), generator=order).split(BATCH):
            loss = functional.cross_entropy(model(images[batch].float() / 16).prediction, labels[batch])
            model.zero_grad()
            loss.backward()
            for name, p in model.named_parameters():
                if p.requires_grad:
                    momentum[name] = MOMENTUM * momentum[name] + p.grad + DECAY * p.data
                    p.data -= LR * momentum[name]
    return model.state_dict()


def test_a_run_whose_layers_switch_is_the_plain_loop_with_switches(tiny):
    keys = ("etf=adaptive", "etf.start=1", "etf.patience=1", "etf.threshold=0.05", "metrics.every=1")
    config = tiny(*KEYS[:4], "schedule=constant", f"seed={SEED}", *keys)
    folder = train(config)
    switches = [(e["site"], e["epoch"]) for e in events(folder, "switch")]
    assert [site for site, _ in switches] == ["fc4", "fc3", "fc2"]
    data = load_dataset(config.dataset, ".").train
    expected = switching(data.samples, data.targets, switches)
    state = checkpoint.load(folder)["model"]
    learnt = [name for name in expected if name in state and expected[name].is_floating_point()]
    worst = max(float((state[name] - expected[name]).abs().max() / expected[name].abs().max()) for name in learnt)
    assert worst < 1e-4
