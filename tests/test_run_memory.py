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
from nclab.training import fit as fit_module
from nclab.training import memory as memory_module
from nclab.training.memory import activation_bytes, gradient_bytes, peak, weight_bytes
from nclab.training.objective import CROSS_ENTROPY
from nclab.training.step import PRECISIONS, training_run

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


def test_copies_of_weights_that_autocast_makes_are_no_activations():
    """bf16 halves what a layer keeps; its weights are the same, and so is every count of theirs."""
    model, batch = mlp(), batch_of(5)
    convert(model, ["fc2"], frame="random", seed=0)  # its frame is cast as the weights are
    half = activation_bytes(model, lambda m: training_run(m, "bf16"), CROSS_ENTROPY, batch)
    # The batch and two outputs of ReLU in bf16, log-probabilities in float32, the divisor of the loss.
    assert half == 2 * (5 * 10 + 2 * 5 * 8) + FLOAT * (5 * 3 + 1)
    wide = MLP(10, 3, 3, 400, "none")
    counts = {p: activation_bytes(wide, lambda m, p=p: training_run(m, p), CROSS_ENTROPY, batch) for p in PRECISIONS}
    assert counts["bf16"] < counts["float32"]


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
    found = peak(torch.device("cpu"), None)
    assert found["peak_of"] == "resident set of the process"
    more = torch.ones(2**25)  # 128 MiB, written
    after = peak(torch.device("cpu"), None)["peak_bytes"]
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
    assert m["optimizer_bytes"] == m["weights_learnable_bytes"]  # momentum
    assert "optimizer_bytes" not in summary  # said once
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


OUT = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB.")


@pytest.mark.parametrize("error", [OUT, MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_trained_run_is_not_lost_where_counting_its_memory_runs_out_of_it(tiny, monkeypatch, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(memory_module, "batch_loss", fails)
    folder = train(tiny("epochs=2"))
    assert (folder / "DONE").exists()
    memory = json.loads((folder / "summary.json").read_text())["memory"]
    assert memory.pop("activations_bytes") is None
    assert None not in memory.values()
    (warning,) = events(folder, "warning")
    assert warning["epoch"] == 2
    assert "activations_bytes is null: out of memory while counting it" in warning["text"]


def test_an_error_of_another_kind_is_not_taken_for_want_of_memory(tiny, monkeypatch):
    def fails(*_):
        raise RuntimeError("expected m1 and m2 to have the same dtype")

    monkeypatch.setattr(memory_module, "batch_loss", fails)
    with pytest.raises(RuntimeError, match="same dtype"):
        train(tiny("epochs=1"))


def test_gradients_are_freed_before_activations_are_counted(tiny, monkeypatch):
    seen, count = [], memory_module.activation_bytes

    def noted(model, *more):
        seen.append([p.grad for p in model.parameters()])
        return count(model, *more)

    monkeypatch.setattr(memory_module, "activation_bytes", noted)
    train(tiny("epochs=1"))
    assert len(seen) == 1
    assert {type(grad) for grad in seen[0]} == {type(None)}


def test_the_peak_of_a_gpu_is_that_of_the_training_steps(tiny, monkeypatch):
    """A stub of torch's counter: evaluations allocate 900, the steps of three epochs 300, 500 and 400."""
    held, of_epochs = [0], iter([300, 500, 400])
    evaluate, epoch = fit_module.evaluate, fit_module.train_epoch

    def counted(call, most):
        def run(*given, **named):
            held[0] = max(held[0], most())
            return call(*given, **named)

        return run

    monkeypatch.setattr(fit_module, "begin_peak", lambda device: held.__setitem__(0, 0))
    monkeypatch.setattr(fit_module, "allocated_peak", lambda device: held[0])
    monkeypatch.setattr(fit_module, "evaluate", counted(evaluate, lambda: 900))
    monkeypatch.setattr(fit_module, "train_epoch", counted(epoch, lambda: next(of_epochs)))
    peaks = []
    count = memory_module.peak
    monkeypatch.setattr(memory_module, "peak", lambda device, steps: peaks.append(steps) or count(device, steps))
    train(tiny("epochs=3"))
    assert held == [900]
    assert peaks == [500]
    assert peak(torch.device("cuda"), 500) == {"peak_bytes": 500, "peak_of": "tensors on the GPU in training steps"}
    assert peak(torch.device("cuda"), None)["peak_bytes"] is None  # a resume that had nothing left to train
