"""metrics.suite=[seen_probe]: what a linear classifier of the features could still tell, against scikit-learn."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from run_folders import rows
from sklearn.linear_model import LogisticRegression

from nclab.interfaces.targets import Values
from nclab.metrics.probing import SeenProbe
from nclab.metrics.suite import Context, Seen
from nclab.metrics.suites.seen_probe import SeenProbeSuite
from nclab.run.execute import train
from nclab.run.trained import load_trained
from nclab.training.evaluate import MetricsSettings, evaluate
from nclab.training.fit import Fit

TASKS = ("phases=tasks", "phases.count=5", "epochs=5", "batch_size=16", "dataset.train_size=200",
         "metrics.suite=[collapse,seen_probe]", "optimizer.lr=0.05")  # fmt: skip


def features_of(model, dataset, split):
    with torch.no_grad():
        out = model(dataset.inputs(split.samples))
    return out.features[model.inputs()[model.classifier]].double().numpy(), split.targets.numpy()


def of_skl(h, y):
    return LogisticRegression(C=10, max_iter=5000).fit(h, y)


def logged(folder, epoch, split):
    return next(r[4] for r in rows(folder) if (r[0], r[1], r[3]) == (epoch, split, "seen_probe_accuracy"))


@pytest.mark.parametrize("keys", [("sampler=replay", "sampler.share=0.2"), ("sampler=shuffled",)])
def test_it_is_scikit_learn_on_the_train_features_of_all_tasks_seen(tiny, monkeypatch, keys):
    """After the third of five tasks: the fourth and the fifth have no say."""
    end, kept = Fit.end_epoch, {}

    def then_keep(self, *given):
        end(self, *given)
        kept[self.progress.epoch] = deepcopy(self.model.state_dict())

    monkeypatch.setattr(Fit, "end_epoch", then_keep)
    folder = train(tiny(*TASKS, *keys))
    model, dataset, config = load_trained(folder)
    model.load_state_dict(kept[3])
    groups = config.phases.groups(10, config.seed)
    h, y = features_of(model, dataset, dataset.train)
    seen = np.isin(y, [label for group in groups[:3] for label in group])
    assert seen.sum() < len(seen)
    probe = of_skl(h[seen], y[seen])
    for split in ("test", "task1", "task2", "task3", "task4"):
        found = logged(folder, 3, split)
        assert found == probe.score(*features_of(model, dataset, dataset.splits[split])), split
        assert found > 0 if split != "task4" else found == 0
    assert not [r for r in rows(folder) if r[1] == "train" and r[3] == "seen_probe_accuracy"]


def test_with_a_head_each_every_task_has_a_probe_of_its_own(tiny):
    folder = train(tiny(*TASKS, "phases.incremental=task"))
    model, dataset, _ = load_trained(folder)
    h, y = features_of(model, dataset, dataset.train)
    right = 0
    for i, head in enumerate(dataset.targets.heads):
        of_task = np.isin(y, head)
        hits = of_skl(h[of_task], y[of_task]).score(*features_of(model, dataset, dataset.splits[f"task{i + 1}"]))
        assert logged(folder, 5, f"task{i + 1}") == hits
        right += hits * len(dataset.splits[f"task{i + 1}"])
    assert logged(folder, 5, "test") == pytest.approx(right / len(dataset.splits["test"]), abs=1e-12)
    assert logged(folder, 1, "task5") == 0  # no head of its own was ever trained


def test_without_phases_all_samples_are_seen(tiny):
    model, dataset, _ = load_trained(train(tiny("epochs=1")))
    settings = MetricsSettings(suite=["seen_probe"])
    found = evaluate(model, dataset, settings).values["test"]
    layer = next(name for name, values in found.items() if "seen_probe_accuracy" in values)
    own = of_skl(*features_of(model, dataset, dataset.train)).score(
        *features_of(model, dataset, dataset.splits["test"])
    )
    assert found[layer]["seen_probe_accuracy"] == own
    few = Seen(torch.arange(50), torch.arange(50, 80))
    again = evaluate(model, dataset, settings, seen=few).values["test"][layer]["seen_probe_accuracy"]
    h, y = features_of(model, dataset, dataset.train)
    assert again == of_skl(h[:80], y[:80]).score(*features_of(model, dataset, dataset.splits["test"])) < own


@pytest.mark.fast
def test_what_cannot_be_fitted_is_nan():
    h, y = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(8, dtype=torch.int64)
    assert np.isnan(SeenProbe(h, y).accuracy(h, y))
    y[4:] = 1
    assert 0 <= SeenProbe(h, y).accuracy(h, y) <= 1
    h[0, 0] = float("inf")
    assert np.isnan(SeenProbe(h, y).accuracy(h[1:], y[1:]))


@pytest.mark.fast
def test_a_probe_needs_classes():
    with pytest.raises(ValueError, match=r"metrics\.suite: seen_probe needs classes"):
        SeenProbeSuite().start(Context(torch.nn.Linear(1, 1), [], Values(1)))
