"""What a run says of its memory and of the time of its steps, against bytes counted by hand."""

import json
import statistics

import pytest
import torch
from run_folders import events, killed_after
from torch import nn
from torch.nn.functional import cross_entropy

from nclab.etf import convert
from nclab.interfaces.batch import Batch, Output
from nclab.models.mlp import MLP
from nclab.run.execute import train, train_seeds
from nclab.training.memory import activation_bytes, gradient_bytes, peak, weight_bytes
from nclab.training.objective import CROSS_ENTROPY

FLOAT, LONG = 4, 8


def mlp(norm="none", depth=3):
    torch.manual_seed(0)
    return MLP(10, 3, depth, 8, norm)


def batch_of(n=5):
    x = torch.randn(n, 10, generator=torch.Generator().manual_seed(1))
    return Batch(x, torch.arange(n) % 3, torch.arange(n), n)


@pytest.mark.fast
def test_weights_are_counted_learnable_and_fixed_apart():
    learnt = 10 * 8 + 8 + 8 * 8 + 8 + 8 * 3 + 3
    assert weight_bytes(mlp()) == {"learnable": FLOAT * learnt, "fixed": 0, "statistics": 0}
    normed = FLOAT * (learnt + 2 * (8 + 8))
    assert weight_bytes(mlp("batch")) == {
        "learnable": normed,
        "fixed": 0,
        "statistics": 2 * (FLOAT * (8 + 8) + LONG),  # running mean and variance, and the count of batches
    }
    model = mlp()
    convert(model, ["fc2"], frame="random", seed=0)
    assert weight_bytes(model) == {"learnable": FLOAT * (learnt - 64), "fixed": FLOAT * 64, "statistics": 0}


def test_an_implicit_frame_counts_what_it_stores():
    model = mlp()
    convert(model, ["fc2"], frame="signed_permutation", seed=0)
    stored = 8 * LONG + 8 * LONG + 8 * FLOAT  # vertex, units and signs of 8 units; no matrix (8, 8)
    assert weight_bytes(model)["fixed"] == stored
    model = mlp()
    convert(model, ["fc2"], frame="canonical", seed=0)
    assert weight_bytes(model)["fixed"] == 0


def test_a_weight_that_a_policy_holds_is_fixed():
    model = mlp()
    model.fc1.weight.requires_grad_(False)
    assert weight_bytes(model)["fixed"] == FLOAT * 80
    assert gradient_bytes(model) == weight_bytes(model)["learnable"]


def test_gradients_are_those_that_a_step_leaves():
    model, batch = mlp("batch"), batch_of()
    convert(model, ["fc2"], frame="random", seed=0)
    cross_entropy(model(batch.inputs).prediction, batch.targets).backward()
    assert gradient_bytes(model) == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None) > 0


def test_activations_are_what_autograd_keeps_besides_weights_and_batch():
    model, batch = mlp(), batch_of(5)
    before = [p.clone() for p in model.parameters()]
    kept = activation_bytes(model, lambda m: lambda x: Output(*m(x)), CROSS_ENTROPY, batch)
    # Two outputs of ReLU (5, 8), each also the next layer's input; log-probabilities (5, 3); the sum of class weights
    # that the loss divides by.
    assert kept == FLOAT * (2 * 5 * 8 + 5 * 3 + 1)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_fixed_layers_need_fewer_activations():
    """A fixed layer's input is kept only where something else needs it: behind tanh nothing but its output."""

    class Two(nn.Sequential):
        def forward(self, x):
            return Output(super().forward(x), {})

    def build():
        torch.manual_seed(0)
        return Two(nn.Linear(10, 8), nn.Linear(8, 8), nn.Linear(8, 3))

    def kept(model):
        return activation_bytes(model, lambda m: lambda x: Output(*m(x)), CROSS_ENTROPY, batch_of(5))

    fixed = build()
    convert(fixed, ["1"], frame="random", seed=0)
    assert kept(build()) - kept(fixed) == FLOAT * 5 * 8


def test_measuring_activations_changes_no_statistics():
    model = mlp("batch").eval()
    state = {name: t.clone() for name, t in model.state_dict().items()}
    activation_bytes(model, lambda m: lambda x: Output(*m(x)), CROSS_ENTROPY, batch_of())
    assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())
    assert not model.training


def test_the_peak_of_a_cpu_is_that_of_the_process():
    found = peak(torch.device("cpu"))
    assert found["peak_of"] == "resident set of the process"
    more = torch.ones(2**25)  # 128 MiB, written
    after = peak(torch.device("cpu"))["peak_bytes"]
    assert after >= more.nbytes
    assert after >= found["peak_bytes"] > 2**25
    assert after - found["peak_bytes"] <= 2 * more.nbytes


@pytest.mark.fast
def test_a_summary_says_memory_and_step_time(tiny):
    folder = train(tiny("etf=last_k", "etf.k=2", "etf.classifier_frame=random", "epochs=3"))
    summary = json.loads((folder / "summary.json").read_text())
    width, pixels, batch = 24, 64, 128
    hidden = (pixels * width + width) + (width * width + width)
    biases, norms = width + 10, 3 * 2 * width
    m = summary["memory"]
    assert m["weights_learnable_bytes"] == FLOAT * (hidden + biases + norms)
    assert m["weights_fixed_bytes"] == FLOAT * (width * width + width * 10)
    assert m["statistics_bytes"] == 3 * (2 * FLOAT * width + LONG)
    assert m["gradients_bytes"] == m["weights_learnable_bytes"]
    assert m["optimizer_bytes"] == m["weights_learnable_bytes"] == summary["optimizer_bytes"]  # momentum
    assert m["activations_bytes"] > FLOAT * batch * (2 * 3 * width)  # norm's input and ReLU's output, of three layers
    assert m["peak_bytes"] > 2**25
    assert m["peak_of"] == "resident set of the process"
    steps = -(-200 // batch)
    seconds = [e["train_seconds"] / steps for e in events(folder, "epoch")]
    assert summary["step_seconds"] == pytest.approx(statistics.median(seconds), rel=1e-6)


def test_step_time_runs_over_all_epochs_of_a_resumed_run(tiny):
    folder = killed_after(3, tiny("epochs=5"))
    train(tiny("epochs=5"))
    seconds = [e["train_seconds"] / 2 for e in events(folder, "epoch")]
    assert len(seconds) == 5
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["step_seconds"] == pytest.approx(statistics.median(seconds), rel=1e-6)


def test_seeds_that_train_together_say_it_too(tiny):
    config = tiny("epochs=2")
    ended = train_seeds([config.of_seed(seed) for seed in range(4)])
    for folder in ended:
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["memory"]["gradients_bytes"] == summary["memory"]["weights_learnable_bytes"] > 0
        assert summary["step_seconds"] > 0
