"""precision=float64: weights, fixed layers, inputs, values, steps and measurements, none of them rounded to float32."""

from dataclasses import dataclass

import pytest
import torch
from run_folders import assert_same_run, killed_after, rows
from test_seeds import models

from nclab.config.schema import ConfigError, RunConfig, resolve_machine
from nclab.data import DATASETS, Dataset, DatasetSettings, Split, load_dataset
from nclab.data.arrays import ArraySettings
from nclab.etf.layer import Recipe, etf_weight
from nclab.etf.policy import site_seed
from nclab.interfaces.shapes import ArrayShape
from nclab.interfaces.targets import Values
from nclab.metrics import measure
from nclab.models.mlp import MLP
from nclab.run.build import built, prepared
from nclab.run.execute import train, train_seeds
from nclab.run.trained import load_trained
from nclab.runfolder import checkpoint
from nclab.training import seeds as training_seeds
from nclab.training.optim import SGDSettings, sgd
from nclab.training.progress import Part
from nclab.training.stack import Stack, stacked_run, train_epoch_stacked

DOUBLE = "precision=float64"
FIXED = ("etf=last_k", "etf.k=2", "dataset.pixels=standardize")
THIRD = torch.tensor(1 / 3, dtype=torch.float64)  # no float32 is it


def floats(tensors):
    return {t.dtype for t in tensors if t.is_floating_point()}


def test_weights_fixed_layers_and_inputs_are_float64(tiny):
    folder = train(tiny(DOUBLE, *FIXED, "epochs=2"))
    assert floats(checkpoint.load(folder)["model"].values()) == {torch.float64}
    model, dataset, config = load_trained(folder)
    assert floats(model.state_dict().values()) == {torch.float64}
    fixed = model.get_submodule("fc4")
    expected, _ = etf_weight(10, 24, Recipe(rank="rows", seed=site_seed(config.seed, "fc4"), num_classes=10))
    assert torch.equal(fixed.weight, expected)  # not rounded to float32 on the way
    pixels = dataset.train.samples.double() / 16
    std, mean = torch.std_mean(pixels, (0, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(dataset.inputs(dataset.train.samples), (pixels - mean) / std, rtol=1e-14, atol=1e-14)


def test_what_is_logged_is_of_the_float64_network(tiny):
    """Loss, collapse and spectra at the digits of float64: float32 has seven."""
    folder = train(tiny(DOUBLE, *FIXED, "epochs=2", "metrics.suite=[collapse,spectra,calibration]"))
    model, dataset, _ = load_trained(folder)
    split = dataset.train
    with torch.no_grad():
        logits, features = model(dataset.inputs(split.samples))
    loss = torch.nn.functional.cross_entropy(logits, split.targets).item()
    logged = {(r[2], r[3]): r[4] for r in rows(folder) if r[:2] == (2, "train")}
    assert logged["network", "loss"] == pytest.approx(loss, rel=1e-14)
    assert logged["network", "nll"] == pytest.approx(loss, rel=1e-13)
    own = measure(features["fc1"], split.targets, 10)
    found = {name: logged["fc1", name] for name in own}
    assert found == pytest.approx(own, rel=1e-12)
    _, _, vh = torch.linalg.svd(features["fc1"] - features["fc1"].mean(0), full_matrices=False)
    assert logged["fc1", "rank"] == 9 < len(vh)


def test_a_run_begins_where_the_float32_run_begins(tiny):
    """The random numbers are those of float32, so that two precisions differ in rounding alone."""
    weights = []
    for precision in ("float32", "float64"):
        config = tiny(f"precision={precision}")
        torch.manual_seed(config.seed)
        weights.append(built(config, prepared(resolve_machine(config))).model.state_dict())
    for name, single in weights[0].items():
        assert torch.equal(single.to(weights[1][name].dtype), weights[1][name])


@pytest.mark.parametrize("keys", [("model=vit",), ("model=rn", "model.blocks=2"), ("model=tf", "model.blocks=2"),
                                  ("model=cnn",), ("optimizer=adamw", "etf=clock", "etf.start=1"),
                                  ("etf=last_k", "etf.frame=hadamard", "etf.k=3")])  # fmt: skip
def test_every_model_trains_in_float64(tiny, keys):
    folder = train(tiny(DOUBLE, *keys, "epochs=2"))
    model, _, _ = load_trained(folder)
    assert floats(model.state_dict().values()) == {torch.float64}
    optimizer = checkpoint.load(folder)["optimizer"]["state"].values()
    assert floats(t for state in optimizer for name, t in state.items() if name != "step") == {torch.float64}


@dataclass
class ThirdsSettings(ArraySettings):
    name: str = "thirds"


@pytest.fixture
def thirds(own_registries):
    """Arrays and values that float32 does not hold, as a dataset of theory brings them."""
    samples = THIRD * torch.arange(1.0, 25, dtype=torch.float64).reshape(12, 2)
    split = Split(samples, samples.sum(1, keepdim=True) * THIRD)
    DATASETS.add("thirds", ThirdsSettings)(lambda settings, root: Dataset({"train": split}, Values(1), ArrayShape(2)))
    return split


def test_float64_arrays_and_values_stay_what_they_are_or_are_rounded_once(thirds):
    for dtype in (torch.float32, torch.float64):
        dataset = load_dataset(ThirdsSettings(), ".", floats=dtype)
        assert floats([dataset.train.samples, dataset.train.targets]) == {dtype}
        assert torch.equal(dataset.train.targets, thirds.targets.to(dtype))
        assert torch.equal(dataset.inputs(dataset.train.samples), thirds.samples.to(dtype))
        standardised = load_dataset(ThirdsSettings(standardize=True), ".", floats=dtype)
        assert floats([standardised.mean, standardised.inputs(standardised.train.samples)]) == {dtype}
    assert floats([load_dataset(DatasetSettings("thirds"), ".").train.targets]) == {torch.float32}


def test_splits_that_share_samples_still_do():
    noisy = load_dataset(DatasetSettings("digits", label_noise=0.2), ".", floats=torch.float64)
    assert noisy.splits["train_clean"].samples is noisy.train.samples
    assert noisy.inputs(noisy.train.samples[:1]).dtype == torch.float64


def test_a_run_is_resumed_to_the_bit(tiny, tmp_path):
    keys = (DOUBLE, "etf=adaptive", "etf.start=2", "etf.patience=1", "etf.threshold=0.5")
    killed = killed_after(3, tiny(*keys))
    resumed = train(RunConfig(resume=str(killed)))
    assert_same_run(resumed, train(tiny(*keys, root=tmp_path / "whole")))


def test_stacked_seeds_are_their_own_runs(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(training_seeds, "LEAST_SEEDS_ON_CPU", 2)
    config = tiny(DOUBLE, "epochs=2", root=tmp_path / "together")
    assert list(train_seeds([config.of_seed(seed) for seed in range(2)]).values()) == [None, None]
    for seed in range(2):
        alone = train(tiny(DOUBLE, "epochs=2", f"seed={seed}", root=tmp_path / "alone"))
        together = checkpoint.load(config.of_seed(seed).folder)
        for name, weight in checkpoint.load(alone)["model"].items():
            torch.testing.assert_close(together["model"][name], weight, rtol=1e-10, atol=1e-12)
        assert (alone / "events.jsonl").read_text().count('"seeds"') == 0


def test_the_loss_so_far_of_stacked_seeds_keeps_its_digits(tiny, monkeypatch):
    """An epoch that is resumed in its middle goes on from a float64 sum."""
    sums = []
    monkeypatch.setattr(Stack, "hand_back", lambda self, done: sums.append(done.loss) or done.loss.tolist())
    monkeypatch.setattr("nclab.training.stack.train_steps", lambda *given: None)
    data = load_dataset(tiny().dataset, ".")
    fits = list(models(lambda: MLP(64, 10, 2, 8), lambda p: sgd(SGDSettings(), p), data, seeds=2))
    for fit in fits:
        fit.progress.part = Part(batches=1, samples=3, loss=float(THIRD))
    train_epoch_stacked(fits, stacked_run("float64"))
    assert sums[0].tolist() == [float(THIRD)] * 2


def test_tf32_has_no_effect_and_is_refused(tiny):
    with pytest.raises(ConfigError, match=r"tf32 has no effect with precision=float64.*leave it out \(got tf32=true\)"):
        tiny(DOUBLE, "tf32=true")


def test_other_names_of_it_are_known(tiny):
    for name in ("double", "fp64"):
        with pytest.raises(ConfigError, match="did you mean float64"):
            tiny(f"precision={name}")
