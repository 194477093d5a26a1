"""The decomposition of the squared error against a reference that solves the least-squares problem sample by sample."""

import numpy as np
import pytest
import torch
from run_folders import rows

from nclab.interfaces.batch import Batch, Output
from nclab.interfaces.targets import Classes, Values
from nclab.metrics.suite import METRICS, Context
from nclab.papers.terminal_phase.parts.linear import Linear
from nclab.run.execute import train


def reference(weight, features, labels, penalties):
    """All five numbers in float64, from the samples: least squares by the stacked rows of (H~, sqrt(N D))."""
    count, classes = len(labels), len(weight)
    y = np.eye(classes)[labels]  # (N, C)
    rows_of_penalty = np.diag(np.sqrt(count * penalties))
    stacked = np.vstack([features, rows_of_penalty])
    best = np.linalg.lstsq(stacked, np.vstack([y, np.zeros((len(penalties), classes))]), rcond=None)[0].T

    def loss(w, h, target):
        return ((h @ w.T - target) ** 2).sum(1).mean() / 2

    def ridge(w):
        return (w**2 @ penalties).sum() / 2

    means = np.stack([features[labels == c].mean(0) for c in range(classes)])
    spread = ((features - means[labels]) @ best.T) ** 2
    objective, least = loss(weight, features, y) + ridge(weight), loss(best, features, y) + ridge(best)
    nc1 = spread.sum(1).mean() / 2 + ridge(best)
    return objective, least, objective - least, nc1, loss(best, means[labels], y)


def measured(features, labels, classes, bias, penalties, batch=7, split="train"):
    torch.manual_seed(0)
    model = Linear(features.shape[1], classes, bias)
    suite = METRICS["central_path"].build()
    suite.start(Context(model, model.probes("linear"), Classes(classes), split=split, penalties=penalties))
    for start in range(0, len(labels), batch):
        x, y = features[start : start + batch], labels[start : start + batch]
        suite.add(1, {"features": x}, Batch(x, y, torch.arange(len(y)), len(y)), Output(x[:, :0], {}))
    return model, suite.compute(suite.sums())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("penalties", [{"head.weight": 0.01, "head.bias": 0.01}, {"head.weight": 0.01}, {}])
def test_it_is_the_least_squares_decomposition(bias, penalties):
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(60).remainder(4).sort().values[3:]  # classes of unequal size
    features = torch.randn(57, 6, generator=generator, dtype=torch.float64) + labels[:, None]
    model, found = measured(features, labels, 4, bias, penalties)
    weight = model.head.weight.detach().double().numpy()
    extended, lambdas = features.numpy(), [penalties.get("head.weight", 0.0)] * 6
    if bias:
        weight = np.hstack([weight, model.head.bias.detach().double().numpy()[:, None]])
        extended, lambdas = np.hstack([extended, np.ones((57, 1))]), [*lambdas, penalties.get("head.bias", 0.0)]
    wanted = reference(weight, extended, labels.numpy(), np.array(lambdas))
    names = ("last_layer_objective", "least_squares_loss", "central_path_distance", "least_squares_nc1")
    assert [found[f"features/{name}"] for name in (*names, "least_squares_nc23")] == pytest.approx(wanted, rel=1e-9)
    assert found["features/central_path_distance"] > 0.01


def test_the_parts_add_up_also_where_the_features_span_few_directions():
    """Without a penalty and with dead units the least-squares classifier is not unique; its loss is."""
    features = torch.randn(40, 3, generator=torch.Generator().manual_seed(2)) @ torch.eye(3, 8)
    found = measured(features, torch.arange(40) % 3, 3, True, {})[1]
    whole = found["features/last_layer_objective"]
    parts = found["features/least_squares_loss"] + found["features/central_path_distance"]
    split = found["features/least_squares_nc1"] + found["features/least_squares_nc23"]
    assert whole == pytest.approx(parts, rel=1e-12)
    assert found["features/least_squares_loss"] == pytest.approx(split, rel=1e-12)
    assert np.isfinite([*found.values()]).all()


def test_on_the_central_path_nothing_is_left():
    """One-hot features at W = (1 - lambda C) ... : a closed form. h = e_y, no bias: W_LS = I / (1 + C lambda)."""
    classes, penalty = 5, 0.02
    labels = torch.arange(classes).repeat_interleave(6)
    features = torch.eye(classes, dtype=torch.float64)[labels]
    model = Linear(classes, classes, False)
    with torch.no_grad():
        model.head.weight.copy_(torch.eye(classes) / (1 + classes * penalty))
    suite = METRICS["central_path"].build()
    suite.start(Context(model, model.probes("linear"), Classes(classes), penalties={"head.weight": penalty}))
    suite.add(1, {"features": features}, Batch(features, labels, labels, len(labels)), Output(features, {}))
    found = suite.compute(suite.sums())
    shrink = 1 / (1 + classes * penalty)
    assert found["features/central_path_distance"] == pytest.approx(0, abs=1e-15)
    assert found["features/least_squares_nc23"] == pytest.approx((1 - shrink) ** 2 / 2)
    assert found["features/least_squares_nc1"] == pytest.approx(penalty * classes * shrink**2 / 2)  # the penalty alone


def test_a_training_logs_it_beside_its_own_loss(tiny):
    """L is the loss that the run logs plus the penalty of its last layer."""
    keys = ("loss=mse", "loss.l2=0.01", "optimizer.weight_decay=0", "metrics.suite=[collapse,central_path]")
    folder = train(tiny(*keys, "metrics.every=3"))
    found = {(r[0], r[1], r[3]): r[4] for r in rows(folder) if r[2] in ("act3", "network")}
    weights = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
    ridge = 0.005 * sum(float(weights[f"fc4.{name}"].double().square().sum()) for name in ("weight", "bias"))
    assert found[6, "train", "last_layer_objective"] == pytest.approx(found[6, "train", "loss"] + ridge, rel=1e-5)
    for epoch in (0, 3, 6):
        whole, least, off = (
            found[epoch, "train", name]
            for name in ("last_layer_objective", "least_squares_loss", "central_path_distance")
        )
        assert whole == pytest.approx(least + off, rel=1e-10)
        assert 0 < least < whole
    assert not any(split == "test" and name == "least_squares_loss" for _, split, name in found)


def test_values_have_no_classes():
    model = Linear(3, 2, True)
    with pytest.raises(ValueError, match=r"metrics\.suite: central_path needs classes"):
        METRICS["central_path"].build().start(Context(model, model.probes("linear"), Values(2)))
