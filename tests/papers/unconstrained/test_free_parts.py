"""What the wing brings for training: critical points as a start, curvature and singular values as numbers."""

import numpy as np
import pytest
import torch
from conftest import composed
from run_folders import rows

from nclab.config.schema import ConfigError
from nclab.interfaces.shapes import IndexShape
from nclab.models import MODELS
from nclab.papers.unconstrained.parts.singular_values import leading
from nclab.run.execute import check, train
from nclab.theory.critical_points import grouped
from nclab.theory.one_layer import cross_entropy_optimum

SMALL = ("dataset.classes=4", "dataset.per_class=2", "model.dim=5", "sampler.repeats=2", "device=cpu", "threads=1")


def saddle(rows=8, classes=4, **settings):
    torch.manual_seed(3)
    entry = MODELS["saddle"]
    return entry.build(entry.settings(dim=5, **settings), IndexShape(rows), classes)


def run(tmp_path, *overrides):
    return train(composed(f"output_root={tmp_path}", *SMALL, *overrides))


def at(folder, epoch, metric):
    return {r[2]: r[4] for r in rows(folder) if r[:2] == (epoch, "train") and r[3] == metric}


def test_a_saddle_starts_at_the_critical_point():
    model = saddle(groups=2, l2_weight=0.02, l2_features=0.01)
    w, h = grouped(4, 2, 2, 5, 0.02, 0.01, np.random.default_rng(3))
    torch.testing.assert_close(model.fc1.weight.detach(), torch.from_numpy(w).float())
    torch.testing.assert_close(model.free.detach(), torch.from_numpy(h).float())
    assert (model.fc1.bias == 0).all()
    assert model(torch.arange(8)).prediction.shape == (8, 4)


def test_noise_is_added_to_every_parameter():
    clean, noisy = saddle(groups=2), saddle(groups=2, beside=1e-3)
    for name, parameter in noisy.named_parameters():
        off = parameter - clean.get_parameter(name)
        assert 1e-4 < off.abs().max() < 1e-2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"depth": 2}, r"model=saddle has one layer without tau, got model\.depth=2"),
        ({"tau": 1.0}, r"model=saddle has one layer without tau, .* model\.tau=1"),
        ({"beside": -1.0}, r"model\.beside must be at least 0, got -1"),
        ({"groups": 3}, r"groups: expected a number that divides 4"),
        ({"rows": 9}, r"model=saddle needs as many samples of every class: got 9 of 4 classes"),
    ],
)
def test_a_saddle_that_cannot_be_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        saddle(**settings)


def test_descent_beside_a_saddle_measures_its_curvature(tmp_path):
    folder = run(tmp_path, "experiment=unconstrained/saddles", "epochs=1")
    (gradient,), (curvature,) = (at(folder, 0, name).values() for name in ("gradient_norm", "hessian_least"))
    assert gradient < 1e-6
    assert curvature < -1e-3


@pytest.mark.parametrize(("loss", "share"), [((), 1.0), (("loss=label_smoothing", "loss.smoothing=0.4"), 0.6)])
def test_curvature_is_that_of_the_whole_objective(tmp_path, loss, share):
    """At all zero the objective is quadratic up to third order: its Hessian is known by hand."""
    given = ("experiment=unconstrained/saddles", "model.groups=1", "model.beside=0", "epochs=1", *loss)
    folder = run(tmp_path, *given)
    (curvature,) = at(folder, 0, "hessian_least").values()
    # [[l_W, -s], [-s, l_H]] on pairs (row of W, class mean of H), s = 1/(C sqrt(n)), for C - 1 directions. Smoothed
    # labels are nearer to the softmax there, which is uniform.
    l_w, l_h, s = 0.005, 0.004, share / (4 * 2**0.5)
    assert curvature == pytest.approx(np.linalg.eigvalsh([[l_w, -s], [-s, l_h]])[0], abs=1e-7)


def test_singular_values_are_those_of_means_and_weights(tmp_path):
    given = (
        "experiment=unconstrained/deep_relu",
        "model.depth=2",
        "epochs=2",
        "dataset.classes=3",
        "precision=float64",
    )
    folder = run(tmp_path, *given)
    state = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
    classes = 3
    h = state["free"]
    of = {"free": h, "fc1": h @ state["fc1.weight"].T}
    of |= {"act1": of["fc1"].relu(), "fc2": of["fc1"].relu() @ state["fc2.weight"].T}
    for i in range(1, classes + 1):
        found = at(folder, 2, f"means_singular_{i}")
        for layer, value in found.items():
            means = of[layer].view(classes, 2, -1).mean(1).numpy()
            assert value == pytest.approx(np.linalg.svd(means, compute_uv=False)[i - 1], rel=1e-9)
        assert found.keys() == of.keys()
        weights = at(folder, 2, f"weight_singular_{i}")
        assert weights.keys() == {"fc1", "fc2"}
        assert weights["fc1"] == pytest.approx(np.linalg.svd(state["fc1.weight"].numpy(), compute_uv=False)[i - 1])


def test_leading_singular_values():
    assert leading(torch.tensor([[0.0, 2.0]]), 2) == [2.0, 0.0]
    assert np.isnan(leading(torch.tensor([[float("nan")]]), 2)).all()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("precision=float32",), r"metrics\.suite: curvature needs precision=float64, got free of torch\.float32"),
        (("model.groups=3",), r"model=saddle: groups: expected a number that divides 4 \(1, 2, 4\), got 3"),
        (("model.groups=4", "model.dim=2"), r"model=saddle: dim: expected at least 3"),
        (("dataset.per_class=4", "dataset.imbalance=2"), r"model=saddle .* every class, got 2 to 4"),
        (("loss=mse",), r"model=saddle .* expected loss=cross_entropy, got loss=mse"),
        (("loss=label_smoothing",), r"model=saddle .* expected loss=cross_entropy, got loss=label_smoothing"),
        (("model.l2_weight=0.1",), r"model=saddle .* model\.l2_weight 0\.005, .* got 0\.1"),
        (("model.l2_features=0.1",), r"model=saddle .* model\.l2_features 0\.004, .* got 0\.1"),
    ],
)
def test_a_check_refuses_them_before_any_work(keys, said):
    with pytest.raises(ConfigError, match=said):
        check([composed("experiment=unconstrained/saddles", *SMALL, *keys)])


@pytest.mark.parametrize("suite", ["curvature", "singular_values"])
def test_suites_need_classes(suite):
    from nclab.interfaces.targets import Values
    from nclab.metrics.suite import METRICS, Context

    context = Context(saddle(), [], Values(2))
    with pytest.raises(ValueError, match=f"{suite} needs classes"):
        METRICS[suite].build().start(context)


def test_the_fixed_etf_has_the_norm_of_the_optimum():
    config = composed("experiment=unconstrained/fixed_etf")
    data, loss = config.dataset, config.loss
    optimum = cross_entropy_optimum(data.classes, data.per_class, loss.l2, loss.l2_features)
    assert config.etf.classifier_scale == pytest.approx((optimum.weight_square / data.classes) ** 0.5, rel=1e-12)
