"""What a GPU must do as a CPU does. Every test runs on both: here without a GPU on the CPU alone, so that its text is
tried; `python -m pytest -m gpu` runs those of the GPU."""

import os
from copy import deepcopy

import pytest
import torch
from run_folders import ADAPTIVE, assert_same_run, events, killed_after, rows

from nclab.bench.by_hand import feed, learner
from nclab.data import Dataset, Split, load_dataset
from nclab.data.images import ImageSettings
from nclab.interfaces.targets import Classes
from nclab.metrics import measure
from nclab.models.mlp import MLP
from nclab.models.resnet import ResNetSettings, build_resnet
from nclab.run.build import prepared
from nclab.run.execute import train, train_seeds
from nclab.training.evaluate import MetricsSettings, evaluate
from nclab.training.optim import SGDSettings, sgd
from nclab.training.step import set_products, train_epoch, training_run

# cuBLAS reads it once, at its first product: what is deterministic here comes later than what is not.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
WITHOUT = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, WITHOUT])])
def device(request):
    """Both, with what a run sets of the process undone."""
    conv, deterministic = torch.backends.cudnn.conv.fp32_precision, torch.are_deterministic_algorithms_enabled()
    yield request.param
    set_products(tf32=False)
    torch.backends.cudnn.conv.fp32_precision = conv
    torch.use_deterministic_algorithms(deterministic)


def loss_rows(folder, epoch=None):
    """(epoch, split) -> the loss, or at an epoch alone."""
    return {r[:2]: r[4] for r in rows(folder) if r[2:4] == ("network", "loss") and epoch in (None, r[0])}


def test_a_run_ends_where_it_ends_on_a_cpu(device, tiny, tmp_path):
    keys = ("epochs=2", "etf=last_k", "etf.k=2")
    here, there = (train(tiny(*keys, f"device={d}", root=tmp_path / f"on {d}")) for d in (device, "cpu"))
    assert loss_rows(here).keys() == loss_rows(there).keys()
    assert loss_rows(here) == pytest.approx(loss_rows(there), rel=1e-3)
    for one, two in zip(rows(here), rows(there), strict=True):
        assert one[:4] == two[:4]


def test_everything_of_a_run_lies_on_the_device(device, tiny):
    data = prepared(tiny(f"device={device}", "data_root=.", "dataset.label_noise=0.5"))
    held = [t for split in data.splits.values() for t in (split.samples, split.targets)]
    assert {t.device.type for t in held} == {device}
    batches = feed(data, 32)
    batch = batches.batch(torch.arange(32, device=device))
    assert {t.device.type for t in (batch.inputs, batch.targets, batch.index)} == {device}


def test_metrics_of_the_device_are_those_of_the_cpu_in_float64(device):
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 10
    features = torch.randn(10, 64, generator=g)[labels] + 0.3 * torch.randn(600, 64, generator=g)
    weight, bias = torch.randn(10, 64, generator=g), torch.randn(10, generator=g)
    there = [t.to(device) for t in (features, labels, weight, bias)]
    found = measure(*there[:2], 10, *there[2:])
    truth = measure(features.double(), labels, 10, weight.double(), bias.double())
    assert found == pytest.approx(truth, rel=2e-5, abs=1e-6)


def numbers(evaluation):
    return {
        (split, layer, metric): value
        for split, layers in evaluation.values.items()
        for layer, values in layers.items()
        for metric, value in values.items()
    }


def test_tf32_is_for_training_alone(device, tiny):
    data = prepared(tiny(f"device={device}", "data_root=.", "tf32=true"))
    assert torch.backends.cuda.matmul.fp32_precision == torch.backends.cudnn.conv.fp32_precision == "tf32"
    torch.manual_seed(0)
    model = MLP(64, 10, 3, 256).to(device)
    lowered = numbers(evaluate(model, data, MetricsSettings()))
    x = torch.randn(256, 256, generator=torch.Generator().manual_seed(0)).to(device)
    tf32 = x @ x
    prepared(tiny(f"device={device}", "data_root=."))
    assert torch.backends.cuda.matmul.fp32_precision == torch.backends.cudnn.conv.fp32_precision == "ieee"
    assert numbers(evaluate(model, data, MetricsSettings())) == pytest.approx(lowered, rel=1e-5, abs=1e-6, nan_ok=True)
    error = ((tf32 - x @ x).abs().max() / tf32.abs().max()).item()
    assert (1e-5 < error < 1e-2) if device == "cuda" else error == 0


def test_a_run_in_tf32_ends_near_that_in_float32(device, tiny, tmp_path):
    keys = ("epochs=1", f"device={device}", "model=vit")
    full, lowered = (train(tiny(*keys, f"tf32={on}", root=tmp_path / on)) for on in ("false", "true"))
    assert loss_rows(lowered) == pytest.approx(loss_rows(full), rel=0.05)


def test_bf16_trains_near_float32_and_keeps_its_weights_in_it(device, tiny, tmp_path):
    keys = ("epochs=2", f"device={device}")
    full, low = (train(tiny(*keys, f"precision={p}", root=tmp_path)) for p in ("float32", "bf16"))
    assert loss_rows(low) != loss_rows(full)
    assert loss_rows(low, 2) == pytest.approx(loss_rows(full, 2), rel=0.1)


def small_images(device, n=64):
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=g)
    return Dataset({"train": Split(pixels, torch.arange(n) % 4)}, Classes(4), (3, 8, 8)).to(device)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_resnet_reads_its_images_channels_last(device, precision):
    set_products(tf32=False)
    data = small_images(device)
    torch.manual_seed(0)
    ours = build_resnet(ResNetSettings(depth=8, width=8, stem="cifar"), data.shape, 4).to(device)
    plain = deepcopy(ours)
    plain.prepared = lambda x: x  # as images lie in the dataset
    inputs = data.inputs(data.train.samples)
    assert ours.prepared(inputs).is_contiguous(memory_format=torch.channels_last)
    seen = []
    ours.layer1.register_forward_hook(
        lambda _, __, out: seen.append(out.is_contiguous(memory_format=torch.channels_last))
    )
    found = []
    for model in (ours, plain):
        prediction = training_run(model, precision)(inputs).prediction
        prediction.square().mean().backward()
        found.append((prediction, model.fc.weight.grad, model.stem[0].weight.grad))
    assert seen == [True]
    tolerance = {"float32": 1e-3, "bf16": 0.1}[precision]
    for one, two in zip(*found, strict=True):
        assert (one - two).norm() <= tolerance * two.norm()


def test_stacked_seeds_train_as_each_alone(device, tiny, tmp_path):
    keys = ("epochs=1", "etf=last_k", "etf.k=2", f"device={device}")
    configs = [tiny(*keys, f"seed={seed}", root=tmp_path / "stacked") for seed in range(4)]
    assert set(train_seeds(configs).values()) == {None}
    for config in configs:
        assert {event.get("seeds") for event in events(config.folder, "epoch")} == {4}
        alone = train(tiny(*keys, f"seed={config.seed}", root=tmp_path / "alone"))
        assert loss_rows(config.folder) == pytest.approx(loss_rows(alone), rel=1e-3)


def test_a_deterministic_run_resumes_to_the_bit(device, tiny, tmp_path):
    keys = (*ADAPTIVE, "deterministic=true", f"device={device}")
    whole = train(tiny(*keys, root=tmp_path / "whole"))
    killed = tiny(*keys, root=tmp_path / "killed")
    killed_after(3, killed)
    assert_same_run(train(killed), whole)
    assert events(whole, "switch")


def test_two_deterministic_trainings_of_a_resnet_are_one(device):
    torch.use_deterministic_algorithms(True)
    data, found = small_images(device), []
    for _ in range(2):
        torch.manual_seed(0)
        model = build_resnet(ResNetSettings(depth=8, width=8, stem="cifar"), data.shape, 4).to(device)
        train_epoch(learner(model, sgd(SGDSettings(), model.parameters())), feed(data, 32))
        found.append(model.fc.weight.detach().clone())
    assert torch.equal(*found)


def test_a_dataset_of_the_device_gives_what_the_cpu_gives(device, tmp_path):
    settings = ImageSettings("digits", train_size=100, pixels="standardize", augment="crop_flip")
    here, there = (load_dataset(settings, tmp_path, d) for d in (device, "cpu"))
    draws = [torch.Generator().manual_seed(1) for _ in range(2)]
    seen = [d.inputs(d.train.samples[:50], g).cpu() for d, g in zip((here, there), draws, strict=True)]
    torch.testing.assert_close(*seen, rtol=0, atol=1e-6)
