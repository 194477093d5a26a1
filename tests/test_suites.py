"""All suites of metrics at once: in a run, resumed, and over several processes."""

import math

import pytest
import torch
from run_folders import assert_same_run, killed_after, rows

from nclab.data import Dataset, DatasetSettings, load_dataset
from nclab.data.dataset import DATASETS
from nclab.data.images import ImageSettings
from nclab.data.split import Split
from nclab.interfaces.targets import Classes
from nclab.metrics.suite import METRICS, Context
from nclab.models.mlp import MLP
from nclab.run.execute import train
from nclab.training.passes import Pass

SUITES = ("collapse", "spectra", "probe", "seen_probe", "calibration", "ood", "margin", "complexity",
          "complexity_estimate", "long_tail")  # fmt: skip
# test_regression_collapse.py, test_few_shot.py, test_past.py
ELSEWHERE = {"regression_collapse", "few_shot", "past"}
OF_SUITE = {  # a column of each, and where it is logged
    "collapse": ("train", "fc2", "nc1"),
    "spectra": ("train", "fc2", "effective_rank_features"),
    "probe": ("test", "fc2", "linear_probe_accuracy"),
    "seen_probe": ("test", "act3", "seen_probe_accuracy"),
    "calibration": ("test", "network", "ece"),
    "ood": ("test", "act3", "neco_auroc"),
    "margin": ("test", "act3", "cosine_margin_min"),
    "complexity": ("train", "act3", "geometric_complexity"),
    "complexity_estimate": ("train", "act3", "geometric_complexity_estimate"),
    "long_tail": ("train", "act3", "nc1_balanced"),
}
KEYS = (f"metrics.suite=[{','.join(SUITES)}]", "metrics.ood_dataset=speckle", "metrics.batch_size=64")


@pytest.fixture
def speckle(own_registries):
    def build(settings, root):
        samples = torch.randint(0, 17, (40, 1, 8, 8), generator=torch.Generator().manual_seed(5)).to(torch.uint8)
        split = Split(samples, torch.arange(40) % 2)
        return Dataset({"train": split, "test": split}, Classes(2), (1, 8, 8), pixel_max=16)

    DATASETS.add("speckle", ImageSettings)(build)


def test_every_suite_of_ours_is_here():
    ours = {name for name in METRICS.names() if METRICS[name].build.__module__.startswith("nclab.metrics.")}
    assert ours - ELSEWHERE == set(SUITES) == set(OF_SUITE)


@pytest.mark.fast
def test_a_run_with_all_of_them(tiny, speckle):
    """Stopped and resumed bit for bit; the columns of the default suite have the bits of a run with it alone."""
    folder = train(tiny("epochs=2", *KEYS))
    logged = {r[:4]: r[4] for r in rows(folder)}
    for split, layer, metric in OF_SUITE.values():
        for epoch in (0, 1, 2):
            assert math.isfinite(logged[epoch, split, layer, metric]), metric
    plain = {r[:4]: r[4] for r in rows(train(tiny("epochs=2", "metrics.batch_size=64")))}
    assert len(plain) > 100
    assert {key: repr(logged[key]) for key in plain} == {key: repr(value) for key, value in plain.items()}


def test_a_resumed_run_has_the_same_bits(tiny, speckle, tmp_path):
    whole = train(tiny("epochs=3", *KEYS, root=tmp_path / "whole"))
    again = tiny("epochs=3", *KEYS, root=tmp_path / "again")
    killed_after(2, again)
    assert_same_run(whole, train(again))


@pytest.mark.fast
@pytest.mark.parametrize("name", SUITES)
def test_sums_of_two_processes_give_the_numbers_of_one(name, speckle):
    """Each sees every other batch, and both get the sums of both."""
    data = load_dataset(DatasetSettings("digits", train_size=200, test_size=90), "data")
    other = load_dataset(DatasetSettings("speckle"), "data").train
    torch.manual_seed(0)
    model = MLP(64, 10, 3, 16).eval()
    probes, measured = model.probes("linear"), {}
    for split, s in data.splits.items():
        of_train = measured.get("train", [None] * 3)
        suites = [METRICS[name].build() for _ in range(3)]  # of one process; of the two
        for suite, own in zip(suites, of_train, strict=True):
            suite.start(Context(model, probes, data.targets, split, own, samples=len(s), outside=len(other)))
        with torch.no_grad():
            batches, outside = (list(Pass(model, data, of, 30)) for of in (s, other))
        one, *two = suites
        for n_pass in range(1, one.passes + 1):
            feed(one, n_pass, batches, outside if split == "train" else [])
            for i, part in enumerate(two):
                feed(part, n_pass, batches[i::2], outside[i::2] if split == "train" else [])
            alone, both = one.sums(), two[0].sums() + two[1].sums()
            if n_pass < one.passes:
                one.next_pass(n_pass + 1, alone)
                for part in two:
                    part.next_pass(n_pass + 1, both)
        measured[split] = suites
        expected = one.compute(alone)
        for part in two:
            assert part.compute(both) == pytest.approx(expected, rel=1e-6, nan_ok=True)
        silent = split == "train" if name.endswith("probe") else name.startswith("complexity") and split != "train"
        assert bool(expected) != silent


def feed(suite, n_pass, batches, outside):
    for features, batch, out in batches:
        suite.add(n_pass, features, batch, out)
    if suite.outside and n_pass == suite.passes:
        for features, batch, out in outside:
            suite.add_outside(features, batch, out)
