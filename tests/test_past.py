"""metrics.suite=[past]: features of earlier phases beside those of the present one, against a slow reference."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from collapse_reference import reference
from run_folders import rows

from nclab.interfaces.targets import Values
from nclab.metrics.past import past_geometry
from nclab.metrics.suite import Context, Seen
from nclab.metrics.suites.past import PastSuite
from nclab.run.execute import train
from nclab.run.trained import load_trained
from nclab.runfolder import checkpoint
from nclab.training.evaluate import MetricsSettings, evaluate
from nclab.training.passes import Pass
from nclab.training.phases import PHASES
from nclab.training.samplers.replay import Replay

D = 9
EACH = ("nc1", "nc2_equinorm", "nc2_equiangular", "nc2_gram", "nc3")


@pytest.fixture
def clouds():
    """60 samples of six classes in nine dimensions, each class with a spread of its own; a weight."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(6).repeat_interleave(torch.tensor([9, 11, 7, 13, 10, 10]))
    centres = 3 * torch.randn(6, D, generator=g, dtype=torch.float64) + 20
    spread = (1 + labels.double())[:, None] * torch.randn(60, D, generator=g, dtype=torch.float64) / 4
    mixed = torch.randperm(60, generator=g)
    return (centres[labels] + spread)[mixed], labels[mixed], torch.randn(6, D, generator=g, dtype=torch.float64)


def outside(y, past, memory):
    """The control as stated: the rest of the past in a fixed random order, of every class the first, as many as in the
    buffer; empty where a class has too few."""
    rest = sorted(i for i in past if i not in memory)
    rest = [rest[j] for j in torch.randperm(len(rest), generator=torch.Generator().manual_seed(0)).tolist()]
    drawn = []
    for c in {int(y[i]) for i in memory}:
        count, own = sum(int(y[i]) == c for i in memory), [i for i in rest if int(y[i]) == c]
        if count > len(own):
            return []
        drawn += own[:count]
    return drawn


def slow(h, y, w, present, past, memory):
    """By loops over samples and pairs, the projection from a QR decomposition of the means."""
    control = outside(y, past, memory)
    h, y, w = (np.asarray(t, np.float64) for t in (h, y, w))

    def means(rows):
        return {c: np.mean([h[i] for i in rows if y[i] == c], 0) for c in sorted({y[i] for i in rows})}

    def centred(of):
        return np.array(list(of.values())) - np.mean(list(of.values()), 0)

    now, old, held, seen = (means(rows) for rows in (present, past, memory, [*present, *past]))
    q, _ = np.linalg.qr(centred(now)[:-1].T)  # the last centred mean is minus the sum of the others
    whole = np.eye(h.shape[1])
    projections = {"": whole, "_in_span": q @ q.T, "_orthogonal": whole - q @ q.T}
    variance = {
        (part, c): np.mean([np.sum((p @ (h[i] - mu)) ** 2) for i in past if y[i] == c])
        for part, p in projections.items()
        for c, mu in old.items()
    }
    found = {"present_rank": len(now) - 1, "past_rank": len(old) - 1, "seen_rank": len(seen) - 1}
    found |= {
        f"past_snr{part}": np.mean(
            [
                np.sum((p @ (old[a] - old[b])) ** 2) / (variance[part, a] + variance[part, b])
                for a, b in combinations(old, 2)
            ]
        )
        for part, p in projections.items()
    }
    m = centred(old)
    found["past_mean_in_span"] = np.sum((m @ q) ** 2) / np.sum(m**2)
    deviations = [h[i] - old[y[i]] for i in past]
    found["past_spread_in_span"] = sum(np.sum((q.T @ z) ** 2) for z in deviations) / sum(
        np.sum(z**2) for z in deviations
    )
    alike = means(control) if control else {}
    for name, of in (("memory", held), ("control", alike)):
        norms = [np.mean(np.linalg.norm(centred(rows), axis=1)) for rows in (of, old)] if of else [math.nan, 1]
        found[f"{name}_norm_ratio"] = norms[0] / norms[1]
    for name, rows_of, of in (("past", past, old), ("memory", memory, held), ("control", control, alike)):
        if not rows_of:
            found |= dict.fromkeys((f"{name}_{key}" for key in EACH), math.nan)
            continue
        index = list(of)
        own = torch.tensor([index.index(y[i]) for i in rows_of])
        weight = torch.tensor(w[[int(c) for c in index]])
        values = reference(torch.tensor(h[rows_of]), own, len(index), weight - weight.mean(0))
        found |= {f"{name}_{key}": values[key] for key in EACH}
    return found


def of_classes(y, classes):
    return torch.isin(y, torch.tensor(classes)).nonzero().flatten()


@pytest.mark.fast
def test_against_a_slow_reference(clouds):
    h, y, w = clouds
    present, past = of_classes(y, [1, 4, 5]), of_classes(y, [0, 2, 3])
    memory = past[::3]
    seen = Seen(present, past, memory)
    expected = slow(h, y, w, present.tolist(), past.tolist(), memory.tolist())
    found = past_geometry(h, y, seen, w)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-9), name
    assert 0 < found["past_mean_in_span"] < 1
    all_held = past_geometry(h, y, Seen(present, past, past), w)
    assert all_held["memory_norm_ratio"] == pytest.approx(1, abs=1e-12)
    assert all_held["memory_nc1"] == all_held["past_nc1"]
    assert not math.isnan(found["control_nc1"])
    assert {name for name, value in all_held.items() if math.isnan(value)} == {
        *(f"control_{key}" for key in EACH),
        "control_norm_ratio",
    }


@pytest.mark.fast
def test_the_control_is_of_the_past_outside_the_buffer(clouds):
    """Features that tell where they come from: 1 in the buffer, 3 outside, and the present is far away."""
    _, y, w = clouds
    present, past = of_classes(y, [1, 4, 5]), of_classes(y, [0, 2, 3])
    memory = torch.cat([of_classes(y, [c])[: 2 + c] for c in (0, 2, 3)]).sort().values  # 2 of 9, 4 of 7, 5 of 13
    h = torch.nn.functional.one_hot(y, D).double() * 3
    h[present] += 100
    h[memory] /= 3
    few = past_geometry(h, y, Seen(present, past, memory), w)
    assert math.isnan(few["control_norm_ratio"])  # of class 2 there are 4 inside and 3 outside
    memory = memory[memory != of_classes(y, [2])[3]]
    h[of_classes(y, [2])[3]] *= 3
    found = past_geometry(h, y, Seen(present, past, memory), w)
    assert found["control_nc1"] == 0
    assert found["control_norm_ratio"] == pytest.approx(3 * found["memory_norm_ratio"])


@pytest.mark.fast
@pytest.mark.parametrize("share", [0.01, 0.05])
def test_few_samples_look_collapsed_without_any_training(share):
    """Of Gaussian classes the buffer is below all samples in NC1 and has longer means, and is like its control."""
    g, each = torch.Generator().manual_seed(0), 400
    y = torch.arange(10).repeat_interleave(each)
    against_all, against_control = [], []
    for _ in range(12):
        h = torch.randn(10, 64, generator=g)[y] * 0.5 + torch.randn(len(y), 64, generator=g)
        present, past = of_classes(y, [8, 9]), of_classes(y, list(range(8)))
        count = round(share * each)
        memory = torch.cat([of_classes(y, [c])[torch.randperm(each, generator=g)[:count]] for c in range(8)]).sort()
        found = past_geometry(h, y, Seen(present, past, memory.values), torch.randn(10, 64, generator=g))
        for other, into in (("past", against_all), ("control", against_control)):
            length = found.get(f"{other}_norm_ratio", 1)
            nc1 = math.log10(found[f"{other}_nc1"] / found["memory_nc1"])
            into.append((nc1, 100 * (found["memory_norm_ratio"] / length - 1)))
    collapse, inflation = np.mean(against_all, 0)
    assert collapse > 0.05
    assert inflation > 5
    collapse, inflation = np.mean(against_control, 0)
    assert abs(collapse) < 0.04
    assert abs(inflation) < 4


@pytest.mark.fast
def test_the_scale_of_the_features_has_no_say(clouds):
    h, y, w = clouds
    seen = Seen(of_classes(y, [1, 4, 5]), of_classes(y, [0, 2, 3]), of_classes(y, [0, 2, 3])[::3])
    expected = past_geometry(h, y, seen, w)
    for power in (-300, -40, 40, 300):
        assert past_geometry(h * 2.0**power, y, seen, w) == expected
        assert past_geometry(h, y, seen, w * 2.0**power) == expected


@pytest.mark.fast
def test_closed_forms():
    """Old means along axes that the present ones do not touch have no part in their span; along the same all."""
    axes = torch.eye(6, dtype=torch.float64)
    now = torch.cat(
        [axes[0] + 0.1 * axes[5], axes[0] - 0.1 * axes[5], -axes[0] + 0.1 * axes[5], -axes[0] - 0.1 * axes[5]]
    )
    for axis, share in ((1, 0.0), (0, 1.0)):
        old = torch.cat([s * 2 * axes[axis] + t * axes[3] for s in (1, -1) for t in (1, -1)])
        h, y = torch.cat([now, old]).view(8, 6), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
        seen = Seen(torch.arange(4), torch.arange(4, 8))
        found = past_geometry(h, y, seen, torch.zeros(4, 6, dtype=torch.float64))
        assert found["past_mean_in_span"] == pytest.approx(share, abs=1e-12)
        assert found["past_spread_in_span"] == pytest.approx(0, abs=1e-12)
        assert found["past_snr"] == pytest.approx(16 / 2)
        assert found["present_rank"] == found["past_rank"] == 1
        assert math.isnan(found["memory_nc1"])
        assert math.isnan(found["memory_norm_ratio"])


@pytest.mark.fast
def test_what_is_not_there_is_nan(clouds):
    h, y, w = clouds
    names = past_geometry(h, y, Seen(torch.arange(30), torch.arange(30, 60)), w).keys()
    for seen, defined in (
        (Seen(torch.arange(60)), {"present_rank", "seen_rank"}),  # no phase before
        (Seen(of_classes(y, [0, 1]), of_classes(y, [2])), {"present_rank", "seen_rank", "past_spread_in_span"}),
        (Seen(of_classes(y, [0]), of_classes(y, [1])), {"seen_rank"}),
    ):
        found = past_geometry(h, y, seen, w)
        assert found.keys() == names
        assert {name for name, value in found.items() if not math.isnan(value)} == defined
    still = h.clone()
    still[:] = still[0]
    assert math.isnan(past_geometry(still, y, Seen(torch.arange(30), torch.arange(30, 60)), w)["past_snr"])
    h[3, 3] = float("inf")
    found = past_geometry(h, y, Seen(torch.arange(30), torch.arange(30, 60)), w)
    assert all(math.isnan(value) for value in found.values())


def test_a_run_logs_it_for_the_classifier_s_input(tiny):
    keys = (
        "phases=tasks",
        "epochs=5",
        "batch_size=16",
        "dataset.train_size=200",
        "sampler=replay",
        "sampler.share=0.3",
    )
    folder = train(tiny(*keys, "metrics.suite=[collapse,past]"))
    model, dataset, config = load_trained(folder)
    phases = PHASES["tasks"].build(config.phases, config.seed)(dataset, 5)
    with torch.no_grad():
        out = model(dataset.inputs(dataset.train.samples))
    layer = next(r[2] for r in rows(folder) if r[3] == "past_snr")
    h = out.features[model.inputs()[model.classifier]]
    sampler = Replay(config.sampler)
    sampler.load_state_dict(checkpoint.load(folder)["sampler"])
    past = torch.cat([phase.rows for phase in phases[:-1]])
    given = [r.tolist() for r in (phases[-1].rows, past, sampler.memory())]
    expected = slow(h, dataset.train.targets, model.fc4.weight.detach(), *given)
    logged = {r[3]: r[4] for r in rows(folder) if r[:3] == (5, "train", layer)}
    for name, value in expected.items():
        assert logged[name] == pytest.approx(value, rel=2e-4), name
    right = (out.prediction.argmax(1) == dataset.train.targets).double()
    of_network = {r[3]: r[4] for r in rows(folder) if r[:3] == (5, "train", "network")}
    for name, own in zip(("present", "past", "memory"), given, strict=True):
        assert of_network[f"{name}_accuracy"] == pytest.approx(right[own].mean().item(), abs=1e-12)
    assert of_network["present_accuracy"] != of_network["past_accuracy"]
    first = {r[3]: r[4] for r in rows(folder) if r[:3] == (1, "train", layer)}
    assert math.isnan(first["past_snr"])
    assert first["present_rank"] == 1
    assert not [r for r in rows(folder) if r[1] != "train" and r[3] == "past_snr"]


def test_with_a_head_each_a_sample_is_decided_within_its_own(tiny):
    keys = ("phases=tasks", "phases.incremental=task", "epochs=5", "batch_size=16", "dataset.train_size=200")
    folder = train(tiny(*keys, "metrics.suite=[past]"))
    model, dataset, config = load_trained(folder)
    with torch.no_grad():
        logits = model(dataset.inputs(dataset.train.samples)).prediction
    y, right = dataset.train.targets, []
    for i in range(len(y)):
        (head,) = (head for head in dataset.targets.heads if int(y[i]) in head)
        right.append(max(head, key=lambda label, i=i: logits[i, label].item()) == int(y[i]))
    whole = torch.tensor(right)
    (present,) = (phase.rows for phase in PHASES["tasks"].build(config.phases, config.seed)(dataset, 5)[-1:])
    found = {r[3]: r[4] for r in rows(folder) if r[:3] == (5, "train", "network")}
    assert found["present_accuracy"] == pytest.approx(whole[present].double().mean().item(), abs=1e-12)
    assert whole[present].sum() > (logits.argmax(1) == y)[present].sum() or found["present_accuracy"] == 1
    assert math.isnan(found["memory_accuracy"])  # no buffer


def test_two_processes_have_the_numbers_of_one(tiny):
    """Each with every other batch."""
    model, dataset, _ = load_trained(train(tiny("epochs=1")))
    y = dataset.train.targets
    seen = Seen(of_classes(y, [1, 4, 5]), of_classes(y, [0, 2, 3]), of_classes(y, [0, 2, 3])[::3])
    found = evaluate(model, dataset, MetricsSettings(suite=["past"], batch_size=30), seen=seen).values["train"]
    suites = [PastSuite(), PastSuite()]
    with torch.no_grad():
        batches = list(Pass(model, dataset, dataset.train, 30))
    for i, suite in enumerate(suites):
        suite.start(Context(model, model.probes("linear"), dataset.targets, samples=len(y), seen=seen))
        for features, batch, out in batches[i::2]:
            suite.add(1, features, batch, out)
    both = suites[0].sums() + suites[1].sums()
    for suite in suites:
        for key, value in suite.compute(both).items():
            layer, _, name = key.rpartition("/")
            assert found[layer or "network"][name] == value


@pytest.mark.fast
def test_it_needs_classes():
    with pytest.raises(ValueError, match=r"metrics\.suite: past needs classes"):
        PastSuite().start(Context(torch.nn.Linear(1, 1), [], Values(1)))
