"""phases=tasks: which classes each task has, what a sample is told apart from, and what a task begins with."""

import signal

import pytest
import torch
from run_folders import assert_same_run, events, rows
from torch.nn import functional

from nclab.config.schema import ConfigError, RunConfig
from nclab.data import Dataset, Split
from nclab.interfaces.batch import Batch, Output
from nclab.interfaces.shapes import ArrayShape
from nclab.interfaces.targets import Classes, Values
from nclab.papers.long_tail.parts.post_hoc import variants
from nclab.run.execute import train, train_seeds
from nclab.run.longer import longer
from nclab.run.trained import load_trained
from nclab.runfolder import checkpoint
from nclab.system.signals import Stopped, StopSignals
from nclab.training import seeds
from nclab.training.fit import Fit
from nclab.training.objective import LOSSES
from nclab.training.phases import PHASES, Phase, rate_of_phases
from nclab.training.progress import Part
from nclab.training.sequences.tasks import TasksSettings

TASKS = ("phases=tasks", "epochs=10", "batch_size=16", "dataset.train_size=400", "metrics.every=2")


def images(per_class, classes=6):
    """`per_class` images of each class, in rising order of the label."""
    labels = torch.arange(classes).repeat_interleave(per_class)
    return Split(torch.arange(len(labels), dtype=torch.uint8).reshape(-1, 1, 1, 1), labels)


@pytest.fixture
def dataset():
    return Dataset({"train": images(4), "test": images(2)}, Classes(6), (1, 1, 1))


def tasks(dataset, seed=0, epochs=6, **keys):
    """The dataset as the phases see it, and the phases."""
    settings = TasksSettings(**{"count": 3, **keys})
    seen = settings.data(dataset, seed)
    return seen, PHASES["tasks"].build(settings, seed)(dataset, epochs)


@pytest.mark.fast
@pytest.mark.parametrize("incremental", ["class", "task", "domain"])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_class_is_in_one_task_and_its_samples_with_it(dataset, seed, incremental):
    seen, phases = tasks(dataset, seed, incremental=incremental)
    assert [(p.name, p.epochs) for p in phases] == [("task1", 2), ("task2", 2), ("task3", 2)]
    assert list(seen.splits) == ["train", "test", "task1", "task2", "task3"]
    labels = [set(dataset.train.targets[p.rows].tolist()) for p in phases]
    assert [len(own) for own in labels] == [2, 2, 2]
    assert set.union(*labels) == set(range(6))
    assert torch.equal(torch.cat([p.rows for p in phases]).sort().values, torch.arange(24))
    for phase, own in zip(phases, labels, strict=True):
        rows_of_test = torch.tensor([int(label) in own for label in dataset.splits["test"].targets])
        assert torch.equal(seen.splits[phase.name].samples, dataset.splits["test"].samples[rows_of_test])
        assert torch.equal(seen.splits[phase.name].targets, seen.splits["test"].targets[rows_of_test])


@pytest.mark.fast
def test_the_seed_permutes_the_classes_unless_it_must_not(dataset):
    def order(seed, **keys):
        return [tuple(dataset.train.targets[p.rows].unique().tolist()) for p in tasks(dataset, seed, **keys)[1]]

    assert order(0) == order(0)
    assert len({tuple(order(seed)) for seed in range(8)}) > 4
    assert order(0, permute=False) == order(5, permute=False) == [(0, 1), (2, 3), (4, 5)]
    assert order(0, count=None, classes=3, permute=False) == [(0, 1, 2), (3, 4, 5)]


@pytest.mark.fast
def test_domains_share_the_labels_of_one_head(dataset):
    seen, phases = tasks(dataset, incremental="domain", permute=False)
    assert seen.targets.dim == 2
    for split in ("train", "test"):
        assert torch.equal(seen.splits[split].targets, dataset.splits[split].targets % 2)
    assert set(seen.train.targets[phases[1].rows].tolist()) == {0, 1}
    assert seen.train.samples is dataset.train.samples


@pytest.mark.fast
@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
def test_a_sample_is_told_apart_from_the_classes_of_its_task_alone(dataset, loss):
    seen, _ = tasks(dataset, incremental="task", permute=False)
    assert seen.targets.heads == ((0, 1), (2, 3), (4, 5))
    assert seen.train is dataset.train
    entry = LOSSES[loss]
    objective = entry.build(entry.settings())
    objective.setup(None, seen)
    logits = torch.randn(12, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    targets = torch.arange(12) % 6
    batch, out = Batch(logits[:, :0], targets, torch.arange(12), 12), Output(logits, {})
    own = torch.stack([row[2 * (y // 2) : 2 * (y // 2) + 2] for row, y in zip(logits, targets.tolist(), strict=True)])
    expected = functional.cross_entropy(own, targets % 2, reduction="none")
    if loss == "focal":
        expected = (1 - torch.exp(-expected)) ** 3 * expected
    torch.testing.assert_close(objective.each(out, batch), expected)
    torch.testing.assert_close(objective.mean(out, batch), expected.mean())
    found = objective.scores(out, batch)
    assert torch.equal(found["accuracy"], own.argmax(1) == targets % 2)
    assert not torch.equal(found["accuracy"], logits.argmax(1) == targets)  # one head is another question
    (gradient,) = torch.autograd.grad(objective.mean(out, batch), logits)
    other = torch.arange(6) // 2 != (targets // 2)[:, None]
    assert gradient[other].eq(0).all()
    assert gradient[~other].ne(0).all()


@pytest.mark.fast
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"count": 4}, "phases.count=4 does not divide the 6 classes"),
        ({"count": None, "classes": 4}, "phases.classes=4 does not divide the 6 classes"),
        ({"count": 3, "classes": 3}, "phases.count=3 of phases.classes=3 each are 9 classes, and the dataset has 6"),
        ({"epochs": 7}, "phases=tasks shares the epochs evenly: expected a multiple of its 3 tasks, got epochs=7"),
        ({"count": 6, "incremental": "domain"}, "expected two or more classes a task, got 1"),
        ({"count": 6, "incremental": "task"}, "expected two or more classes a task, got 1"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(dataset, keys, message):
    with pytest.raises(ValueError, match=message):
        tasks(dataset, **keys)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"count": 1}, "phases.count must be at least 2"),
        ({"count": None}, "phases=tasks needs phases.count or phases.classes"),
        ({"count": None, "classes": 0}, "phases.classes must be at least 1"),
        ({"incremental": "clas"}, "unknown phases.incremental 'clas'; did you mean class?"),
        ({"optimizer": "forget"}, "unknown phases.optimizer 'forget'; valid: restart, keep"),
        ({"schedule": "no"}, "unknown phases.schedule 'no'; valid: restart, keep"),
    ],
)
def test_settings_that_mean_nothing_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        TasksSettings(**keys)


@pytest.mark.fast
def test_a_dataset_without_classes_or_test_split_is_refused(dataset):
    values = Split(torch.zeros(4, 2), torch.zeros(4, 1))
    with pytest.raises(ValueError, match="phases=tasks needs classes, and this dataset's targets are values"):
        tasks(Dataset({"train": values}, Values(1), ArrayShape(2)))
    with pytest.raises(ValueError, match="phases=tasks needs a split test, the dataset has train"):
        tasks(Dataset({"train": dataset.train}, Classes(6), (1, 1, 1)))
    taken = {**dataset.splits, "task2": dataset.splits["test"]}
    with pytest.raises(ValueError, match="the data have a split task2 already"):
        tasks(Dataset(taken, Classes(6), (1, 1, 1)))


@pytest.mark.fast
def test_the_learning_rate_of_phases_that_begin_their_schedule_anew():
    phases = [Phase("a", 2), Phase("b", 3), Phase("c", 2, fresh_schedule=True)]
    asked = []

    def rate(epochs):
        asked.append(epochs)
        return lambda epoch: 100 * epochs + epoch

    of = rate_of_phases(phases, rate)
    assert [of(epoch) for epoch in range(8)] == [500, 501, 502, 503, 504, 200, 201, 202]
    assert asked == [5, 2]


def accuracies(folder):
    return {(r[0], r[1]): r[4] for r in rows(folder) if r[2:4] == ("network", "accuracy")}


def test_a_network_forgets_a_task_with_one_head_and_less_with_a_head_each(tiny, tmp_path):
    keys = (*TASKS, "phases.count=2", "epochs=16", "metrics.every=8")
    single = accuracies(train(tiny(*keys, root=tmp_path / "class")))
    assert single[8, "task1"] > 0.8
    assert single[8, "task2"] == 0
    assert single[16, "task1"] < 0.2
    heads = accuracies(train(tiny(*keys, "phases.incremental=task", root=tmp_path / "task")))
    assert heads[16, "task2"] > 0.8
    assert heads[16, "task1"] > single[16, "task1"] + 0.2
    domain = train(tiny(*keys, "phases.incremental=domain", root=tmp_path / "domain"))
    model, dataset, _ = load_trained(domain)
    assert model.num_classes == dataset.targets.dim == 5
    split = dataset.splits["task2"]
    with torch.no_grad():
        right = model(dataset.inputs(split.samples)).prediction.argmax(1) == split.targets
    assert accuracies(domain)[16, "task2"] == pytest.approx(float(right.double().mean()))


@pytest.mark.parametrize("incremental", ["class", "task", "domain"])
def test_each_of_several_seeds_has_classes_of_its_own(tiny, tmp_path, monkeypatch, incremental):
    monkeypatch.setattr(seeds, "LEAST_SEEDS_ON_CPU", 2)
    keys = (*TASKS, f"phases.incremental={incremental}")
    config = tiny(*keys)
    assert list(train_seeds([config.of_seed(s) for s in (0, 1)]).values()) == [None, None]
    alone = tiny(*keys, "seed=1", root=tmp_path / "alone")
    train(alone)
    found, expected = accuracies(tmp_path / "main" / alone.run_name), accuracies(alone.folder)
    assert found == pytest.approx(expected, abs=0.05)
    assert found[2, "task1"] > 0.6
    stacked = {e.get("seeds") for e in events(tmp_path / "main" / alone.run_name, "epoch")}
    assert 2 in stacked if incremental == "class" else stacked == {None}  # labels or heads of its own: in turns


@pytest.mark.parametrize("kept", ["restart", "keep"])
def test_a_task_begins_with_the_optimizer_and_the_schedule_that_are_chosen(tiny, kept):
    held = []
    begin = Fit.begin_epoch

    def begin_epoch(self):
        begin(self)
        held.append(len(self.learner.optimizer.state))

    keys = (
        *TASKS,
        f"phases.optimizer={kept}",
        f"phases.schedule={kept}",
        "schedule=multistep",
        "schedule.milestones=[1]",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fit, "begin_epoch", begin_epoch)
        folder = train(tiny(*keys, "metrics.every=1"))
    rates = [r[4] for r in rows(folder) if r[3] == "learning_rate" and r[0]]
    if kept == "restart":
        assert [bool(n) for n in held] == [False, True] * 5
        assert rates == pytest.approx([0.05, 0.005] * 5)
    else:
        assert [bool(n) for n in held] == [False] + [True] * 9
        assert rates == pytest.approx([0.05] + [0.005] * 9)


def test_a_run_that_is_stopped_in_the_third_task_goes_on_there(tiny, tmp_path, monkeypatch):
    keys = (*TASKS, "optimizer.momentum=0.9")
    whole = train(tiny(*keys, root=tmp_path / "whole"))
    config, count = tiny(*keys), Part.count

    def then_stop(self, loss, samples):
        count(self, loss, samples)
        then_stop.steps += 1
        if then_stop.steps == 22:  # 5 steps an epoch, two epochs a task
            StopSignals._active.number = signal.SIGTERM

    then_stop.steps = 0
    with monkeypatch.context() as patch:
        patch.setattr(Part, "count", then_stop)
        with pytest.raises(Stopped):
            train(config)
    progress = checkpoint.load(config.folder)["progress"]
    assert (progress["epoch"], progress["part"]["batches"] > 0) == (4, True)
    assert_same_run(train(config), whole)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("epochs=11",), "expected a multiple of its 5 tasks, got epochs=11"),
        (("phases.count=3",), "phases.count=3 does not divide the 10 classes"),
        (
            ("phases.incremental=task", "loss=mse"),
            "loss=mse takes all classes in one head: expected phases of one head, or a loss of cross_entropy, dot_reg",
        ),
        (("phases.incremental=task", "loss=label_smoothing"), "loss=label_smoothing takes all classes in one head"),
    ],
)
def test_runs_that_do_not_fit_are_refused_before_anything_is_written(tiny, tmp_path, keys, message):
    with pytest.raises(ConfigError, match=message):
        train(tiny(*TASKS, *keys))
    assert not list(tmp_path.iterdir())


def test_tasks_of_more_epochs_are_said_to_be_others(tiny):
    folder = train(tiny(*TASKS))
    config = tiny(*TASKS)
    more = longer(folder, config, RunConfig(**{**vars(config), "epochs": 20}))
    said = [e["text"] for e in events(train(more), "warning")]
    assert any("phases=tasks depends on the number of epochs" in text for text in said)


def test_every_suite_tells_a_sample_from_the_classes_of_its_head(tiny):
    """As the accuracy and the loss do: what they agree with is computed here by hand."""
    suites = "metrics.suite=[collapse,long_tail,post_hoc,calibration]"
    folder = train(tiny(*TASKS, "phases.incremental=task", suites))
    logged = {(split, name): v for epoch, split, layer, name, v in rows(folder) if (epoch, layer) == (10, "network")}
    model, dataset, _ = load_trained(folder)
    y, head = dataset.splits["test"].targets, {c: own for own in dataset.targets.heads for c in own}
    counts = y.bincount(minlength=10).double()
    own = torch.tensor([logged["test", f"class_accuracy_{c}"] for c in range(10)], dtype=torch.float64)
    accuracy = logged["test", "accuracy"]
    assert float(own @ counts / counts.sum()) == pytest.approx(accuracy, abs=1e-12)
    assert logged["test", "nll"] == pytest.approx(logged["test", "loss"], rel=1e-5)
    with torch.no_grad():
        h, train_h = (
            model(dataset.inputs(dataset.splits[s].samples)).features["act3"].double() for s in ("test", "train")
        )
    means = torch.stack([train_h[dataset.train.targets == c].mean(0) for c in range(10)])
    for name, weight in variants(model.fc4.weight.detach().double(), means - means.mean(0)).items():
        scores = (h @ weight.T + model.fc4.bias.detach().double()).tolist()
        hits = [max(head[int(c)], key=row.__getitem__) == c for row, c in zip(scores, y.tolist(), strict=True)]
        right = torch.tensor(hits).double()
        expected = torch.stack([right[y == c].mean() for c in range(10)]).mean()
        assert logged["test", f"post_hoc_{name}"] == pytest.approx(float(expected), abs=1e-12), name
    single = (model(dataset.inputs(dataset.splits["test"].samples)).prediction.argmax(1) == y).double().mean()
    assert accuracy > float(single) + 0.1  # heads do matter here
