"""Four systems of other papers in small, each a file outside the core: what a wing or a user may bring."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import composed
from run_folders import Killed, assert_same_run, events, rows

from nclab.config.schema import ConfigError, RunConfig, load_named
from nclab.etf import simplex_etf
from nclab.metrics import measure
from nclab.metrics.suite import METRICS, Metric, SuiteSettings
from nclab.run.execute import train, train_seeds
from nclab.run.trained import load_trained
from nclab.runfolder import checkpoint
from nclab.system.signals import Stopped, StopSignals
from nclab.training import seeds
from nclab.training.fit import Fit, RunError
from nclab.training.objective import LOSSES, Objective
from nclab.training.progress import Part
from nclab.training.sampler import SAMPLERS, Shuffled

FREE = (
    "plugins=[free_features]",
    "dataset=free_samples",
    "model=free_features",
    "batch_size=null",
    "optimizer.lr=0.5",
    "epochs=40",
    "metrics.every=10",
)
REGRESSION = (
    "plugins=[regression]",
    "dataset=waves",
    "loss=mse",
    "metrics.suite=[r2]",
    "metrics.headline=r2",
    "model.norm=none",
    "optimizer.lr=0.1",
    "epochs=40",
    "metrics.every=20",
)
TASKS = ("plugins=[two_tasks]", "dataset=digit_tasks", "phases=two_tasks", "dataset.train_size=400", "epochs=16")
HEAD = ("plugins=[running_head]", "etf=running_head")
EVERY = [pytest.param(FREE, id="free"), pytest.param(REGRESSION, id="regression"), pytest.param(TASKS, id="tasks"),
         pytest.param(HEAD, id="head")]  # fmt: skip


@pytest.fixture
def extended(own_registries, tiny, tmp_path) -> Iterator[Callable[..., RunConfig]]:
    """`tiny` with tests/extensions on the path, as a user's folder is. Before it composes it imports the plug-ins that
    the keys name, as nclab-train does."""

    def make(*keys: str, **more) -> RunConfig:
        named = [key.removeprefix("plugins=").strip("[]") for key in keys if key.startswith("plugins=")]
        load_named(named)
        if "model=free_features" in keys:  # has no width and depth
            return composed("threads=1", "checkpoint_seconds=0", f"output_root={more.get('root', tmp_path)}", *keys)
        return tiny(*keys, **more)

    with pytest.MonkeyPatch.context() as patch:  # of its own: tests undo theirs halfway
        patch.setattr(sys, "path", [*sys.path, str(Path(__file__).parent / "extensions")])
        yield make


def last(folder: Path, split: str) -> dict[str, float]:
    """What the last epoch measured of the network, by metric."""
    found = rows(folder)
    return {r[3]: r[4] for r in found if r[0] == found[-1][0] and r[1:3] == (split, "network")}


def headline(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())["headline"]


def test_free_features_collapse(extended):
    folder = train(extended(*FREE))
    model, dataset, _ = load_trained(folder)
    found = measure(model.free.detach(), dataset.train.targets, 4, model.head.weight.detach(), model.head.bias.detach())
    assert found["ncc_accuracy"] == last(folder, "train")["accuracy"] == 1.0
    logged = {(r[0], r[3]): r[4] for r in rows(folder) if r[1:3] == ("train", "free")}
    assert logged[40, "nc1"] == pytest.approx(found["nc1"], rel=1e-6)
    assert logged[40, "nc1"] < 0.5 * logged[0, "nc1"]
    assert headline(folder) == {"split": "train", "metric": "accuracy", "value": 1.0}


def test_a_regression_is_judged_by_what_it_explains(extended):
    folder = train(extended(*REGRESSION))
    model, dataset, _ = load_trained(folder)
    test = dataset.splits["test"]
    y, prediction = test.targets.double(), model(test.samples).prediction.detach().double()
    r2 = float(1 - (y - prediction).square().sum() / (y - y.mean(0)).square().sum())
    assert headline(folder) == {"split": "test", "metric": "r2", "value": pytest.approx(r2, rel=1e-6)}
    assert r2 > 0.8
    assert "accuracy" not in last(folder, "test")


def test_the_second_task_makes_the_network_forget_the_first(extended):
    folder = train(extended(*TASKS))
    accuracy = {(r[0], r[1]): r[4] for r in rows(folder) if r[2:4] == ("network", "accuracy")}
    assert accuracy[8, "task1"] > 0.8
    assert accuracy[8, "task2"] == 0
    assert accuracy[16, "task1"] < 0.2
    assert accuracy[16, "task2"] > 0.8


def test_the_head_is_an_etf_after_every_step(extended):
    folder = train(extended(*HEAD))
    head = checkpoint.load(folder)["model"]["fc4.weight"].double()
    etf = simplex_etf(10, 24).T
    torch.testing.assert_close(head @ head.T, etf @ etf.T, rtol=0, atol=1e-6)
    assert last(folder, "train")["accuracy"] > 0.8
    assert events(folder, "switch") == []  # it is no event


@pytest.mark.parametrize("keys", EVERY)
def test_each_resumes_to_the_same_bits(extended, tmp_path, monkeypatch, keys):
    config = extended(*keys)
    with monkeypatch.context() as patch:
        middle = config.epochs // 2
        patch.setattr(Fit, "begin_epoch", _killed_at(middle, Fit.begin_epoch))
        with pytest.raises(Killed):
            train(config)
    assert checkpoint.load(config.folder)["progress"]["epoch"] == middle
    resumed = train(RunConfig(resume=str(config.folder)))
    assert_same_run(resumed, train(extended(*keys, root=tmp_path / "whole")))


def _killed_at(epoch, begin):
    def begin_epoch(self):
        if self.progress.epoch == epoch:
            raise Killed
        begin(self)

    return begin_epoch


@pytest.mark.parametrize("keys", EVERY)
def test_each_trains_several_seeds_at_once(extended, tmp_path, monkeypatch, keys):
    """As one model, or in turns where the policy must see every step."""
    monkeypatch.setattr(seeds, "LEAST_SEEDS_ON_CPU", 2)
    config = extended(*keys)
    ended = train_seeds([config.of_seed(seed) for seed in (0, 1)])
    assert list(ended.values()) == [None, None]
    stacked = [e.get("seeds") for folder in ended for e in events(folder, "epoch")]
    assert set(stacked) == ({None} if keys is HEAD else {2})
    alone = train(extended(*keys, "seed=1", root=tmp_path / "alone"))
    (stacked_one,) = [folder for folder in ended if folder.name == alone.name]
    assert last(stacked_one, "train") == pytest.approx(last(alone, "train"), rel=2e-2, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ((*REGRESSION, "metrics.suite=[collapse]"), "collapse needs classes"),
        ((*REGRESSION, "loss=cross_entropy"), "loss=cross_entropy needs classes"),
        ((*REGRESSION, "metrics.suite=[r3]"), "metrics.suite: unknown metric 'r3'; valid: .*calibration, .*collapse"),
        ((*REGRESSION, "sampler=class_balanced"), "sampler=class_balanced needs class"),
        (("plugins=[regression]", "metrics.suite=[r2]"), "r2 needs targets that are values, got classes"),
        ((*TASKS, "epochs=1"), "phases must have at least one epoch each and 1 in all, got task1: 0, task2: 1"),
        ((*FREE, "model=mlp"), "model=mlp reads images, and the dataset holds row numbers"),
        (("plugins=[nowhere]",), "plug-in 'nowhere' .* cannot be imported"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(extended, tmp_path, keys, message):
    with pytest.raises(ConfigError, match=message):
        train(extended(*keys))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("metrics.headline=tset/accuracy",), r"a split that is measured \(train, test\), got tset"),
        (("metrics.headline=acuracy",), "unknown metrics.headline 'test/acuracy'; did you mean test/accuracy?"),
        (
            ("metrics.headline=nc1", "metrics.every=0"),
            "'test/nc1'; valid: train/accuracy, train/loss, test/accuracy, t",
        ),
        (("metrics.headline=learning_rate",), "'test/learning_rate'; did you mean train/learning_rate?"),
        ((*REGRESSION[:-4], "metrics.headline=r3"), "unknown metrics.headline 'test/r3'; did you mean test/r2?"),
        (("metrics.suite=[]", "etf=adaptive"), "etf=adaptive decides by NCC accuracy: expected"),
    ],
)
def test_a_headline_or_policy_without_its_measure_is_refused_before_anything_is_written(
    extended, tmp_path, keys, message
):
    with pytest.raises(ConfigError, match=message):
        train(extended(*keys))
    assert not list(tmp_path.iterdir())


def test_the_valid_headlines_are_what_is_measured(tiny):
    """Of all suites; also the penalty, which only some losses have, and the depths, which only the train split has."""
    ours = [name for name in METRICS.names() if METRICS[name].build.__module__.startswith("nclab.metrics.")]
    ours.remove("regression_collapse")  # of targets that are values
    suites = f"metrics.suite=[{','.join(ours)}]"
    keys = ("epochs=1", "loss.l2=0.001", "optimizer.weight_decay=0", suites, "dataset.source_classes=6")
    with pytest.raises(ConfigError, match=r"unknown metrics\.headline") as refused:
        train(tiny(*keys, "metrics.headline=xyz"))
    valid = str(refused.value).partition("valid: ")[2].split(", ")
    folder = train(tiny(*keys, "metrics.headline=train/effective_depth"))
    assert sorted(valid) == sorted({f"{r[1]}/{r[3]}" for r in rows(folder) if r[2] == "network"})
    assert headline(folder)["metric"] == "effective_depth"


@pytest.mark.parametrize("whose", ["suite", "loss"])
def test_a_headline_of_which_nobody_says_that_it_is_measured_is_tried(tiny, monkeypatch, whose):
    """A suite without `names`, a loss with scores of its own: known when the untrained network is measured."""
    if whose == "suite":
        monkeypatch.setattr(METRICS["collapse"].build, "names", Metric.names)
    else:
        monkeypatch.setattr(LOSSES["cross_entropy"].build, "scores", lambda *given: Objective.scores(*given))
    assert headline(train(tiny("epochs=1", "metrics.headline=test/loss")))["metric"] == "loss"
    config = tiny("metrics.headline=acuracy")
    with pytest.raises(RunError, match="'test/acuracy' is not measured; valid: train/loss, train/accuracy"):
        train(config)
    assert not events(config.folder, "epoch")


@METRICS.add("twice", SuiteSettings)
class Twice(Metric):
    """Measures what the loss measures."""

    def __init__(self, settings=None):
        pass

    def start(self, context):
        pass

    def add(self, n_pass, features, batch, out):
        pass

    def sums(self):
        return torch.zeros(1)

    def compute(self, reduced):
        return {"accuracy": 0.0}


def test_two_measures_of_one_name_are_refused(tiny):
    with pytest.raises(ValueError, match="expected every metric once, got network/accuracy"):
        train(tiny("metrics.suite=[collapse,twice]"))


class Counting(Shuffled):
    """A sampler that remembers how often it was asked: every other epoch is reversed."""

    def __init__(self, settings):
        super().__init__(settings)
        self.asked = 0

    def order(self, split, epoch, generator):
        self.asked += 1
        drawn = super().order(split, epoch, generator)
        return drawn.flip(0) if self.asked % 2 else drawn

    def state_dict(self):
        return {"asked": self.asked}

    def load_state_dict(self, state):
        self.asked = state["asked"]


def test_a_sampler_with_a_memory_goes_on_in_the_middle_of_an_epoch(tiny, tmp_path, monkeypatch):
    entry = SAMPLERS["shuffled"]
    monkeypatch.setitem(SAMPLERS._entries, "shuffled", type(entry)(entry.settings, Counting))
    whole = train(tiny("batch_size=50", root=tmp_path / "whole"))
    count, steps = Part.count, []

    def then_stop(self, loss, samples):
        count(self, loss, samples)
        steps.append(samples)
        if len(steps) == 10:  # the second of the four batches of epoch 3
            StopSignals._active.number = signal.SIGTERM

    monkeypatch.setattr(Part, "count", then_stop)
    with pytest.raises(Stopped):
        train(tiny("batch_size=50"))
    assert_same_run(train(tiny("batch_size=50")), whole)
