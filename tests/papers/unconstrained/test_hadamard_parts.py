"""Hadamard initialisation as a model, its suite of metrics, and steps that grow."""

import doctest

import numpy as np
import pytest
import torch
from conftest import composed
from run_folders import rows

from nclab.config.schema import ConfigError
from nclab.interfaces.shapes import ArrayShape, IndexShape
from nclab.models import MODELS
from nclab.papers.unconstrained.parts import log_time as log_time_module
from nclab.papers.unconstrained.parts.hadamard import HadamardSettings
from nclab.papers.unconstrained.parts.hadamard_flow import of_product
from nclab.run.execute import check, train
from nclab.theory.hadamard import etf_cosine, factors, flow, log_excess, logits, lyapunov
from nclab.training.optim import SCHEDULES, OptimizerSettings, learning_rate


def model(classes=8, seed=0, **settings):
    torch.manual_seed(seed)
    return MODELS["hadamard"].build(HadamardSettings(**settings), IndexShape(classes), classes)


def singular_values(built):
    return np.diag(built.left.T.numpy() @ built.product().detach().numpy() @ built.right.numpy())


def columns(built):
    return of_product(built.product().detach(), built.left, built.right)


def test_the_start_is_that_of_the_theory():
    built = model()
    s = singular_values(built)
    w, h = factors(s)
    assert built.fc1.weight.dtype == torch.float64
    np.testing.assert_allclose(built.fc1.weight.detach(), w, atol=1e-15)
    np.testing.assert_allclose(built.free.detach().T, h, atol=1e-15)
    out = built(torch.arange(8))
    np.testing.assert_allclose(out.prediction.detach().T, logits(s), atol=1e-15)
    assert list(out.features) == ["free"]


def test_directions_differ_and_nothing_else():
    starts = {name: model(directions=name) for name in ("hadamard", "aligned", "random")}
    s = {name: singular_values(built) for name, built in starts.items()}
    for name, built in starts.items():
        np.testing.assert_allclose(s[name], s["hadamard"], rtol=1e-12)
        w, h = built.fc1.weight.detach(), built.free.detach()
        torch.testing.assert_close(w.T @ w, h.T @ h)  # balanced
        assert columns(built)["leakage"] < 1e-14
        for frame in (built.left, built.right):
            torch.testing.assert_close(frame.T @ frame, torch.eye(8, dtype=torch.float64))
    assert torch.equal(starts["aligned"].left, starts["aligned"].right)
    assert not torch.equal(starts["random"].left, starts["random"].right)
    assert not np.allclose(s["hadamard"], singular_values(model(seed=1)))


def test_scale_and_spread_are_those_of_the_singular_values():
    logs = np.log(np.concatenate([singular_values(model(64, seed, scale=0.3, spread=0.7)) for seed in range(8)]))
    assert np.median(logs) == pytest.approx(np.log(0.3), abs=0.1)
    assert logs.std() == pytest.approx(0.7, abs=0.05)


def test_a_start_on_a_face_and_one_beside_it():
    on, beside = (singular_values(model(face=2, beside=value)) for value in (0.0, 1e-3))
    np.testing.assert_allclose(on[1:3], 0, atol=1e-16)
    np.testing.assert_allclose(beside[1:3], 1e-3)
    np.testing.assert_allclose(on[3:], beside[3:])
    assert HadamardSettings(face=2, beside=1e-3).label == "hadamard_hadamard_face2_0.001"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"directions": "haar"}, "unknown model.directions 'haar'; .*valid: hadamard, aligned, random"),
        ({"scale": 0.0}, "model.scale must be above 0 and finite, got 0"),
        ({"spread": -1.0}, "model.spread must be at least 0 and finite, got -1"),
        ({"face": -1}, "model.face must be at least 0 and finite, got -1"),
        ({"face": 1, "beside": float("inf")}, "model.beside must be at least 0 and finite, got inf"),
        ({"beside": 0.1}, "model.beside is the start of the s_i that model.face counts: got 0.1 and 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        HadamardSettings(**settings)


@pytest.mark.parametrize(
    ("shape", "classes", "settings", "message"),
    [
        (IndexShape(16), 8, {}, "one feature a class: expected .* dataset.per_class=1; got 8 classes and 16 rows"),
        (ArrayShape(8), 8, {}, "one feature a class: expected .* got 8 classes and arrays"),
        (IndexShape(6), 6, {}, "expected dataset.classes to be a power of two, got 6"),
        (IndexShape(8), 8, {"face": 7}, "model.face must be at most 6, all of s_1, s_2 ... but one; got 7"),
    ],
)
def test_wrong_datasets_are_refused(shape, classes, settings, message):
    with pytest.raises(ValueError, match=message):
        MODELS["hadamard"].build(HadamardSettings(**settings), shape, classes)


def test_columns_are_those_of_the_theory_on_the_diagonal():
    built = model(spread=1.0, scale=2.0)
    s, found = singular_values(built), columns(built)
    assert [found[f"s_{i}"] for i in range(8)] == pytest.approx(list(s))
    assert [found[f"singular_value_{i}"] for i in range(8)] == pytest.approx(sorted(s, reverse=True))
    assert found["log_excess"] == pytest.approx(log_excess(s))
    assert found["lyapunov"] == pytest.approx(lyapunov(s))
    assert found["etf_cosine"] == pytest.approx(etf_cosine(s))


def test_columns_of_any_product_by_numpy():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4, 4))
    left, right = (np.linalg.qr(rng.normal(size=(4, 4)))[0] for _ in range(2))
    found = of_product(*map(torch.from_numpy, (z, left, right)))
    loss = -np.log(np.diag(np.exp(z) / np.exp(z).sum(0))).mean()
    centre = np.eye(4) - 1 / 4
    assert found["log_excess"] == pytest.approx(np.log(np.expm1(loss)))
    nuclear = np.linalg.norm(centre @ z, "nuc")
    assert found["lyapunov"] == pytest.approx(-np.log(np.expm1(loss)) / nuclear)
    cosine = (centre @ z * centre).sum() / np.linalg.norm(centre @ z) / np.linalg.norm(centre)
    assert found["etf_cosine"] == pytest.approx(cosine)
    inner = left.T @ z @ right
    assert found["leakage"] == pytest.approx(np.linalg.norm(inner - np.diag(np.diag(inner))) / np.linalg.norm(z))
    assert [found[f"s_{i}"] for i in range(4)] == pytest.approx(list(np.diag(inner)))


def test_lyapunov_is_below_its_bound_for_any_product():
    rng = np.random.default_rng(0)
    frame = torch.eye(8, dtype=torch.float64)
    for scale in (0.1, 1, 10, 100):
        for shift in (0, 3):
            z = torch.from_numpy(scale * (rng.normal(size=(8, 8)) + shift * np.eye(8)))
            assert of_product(z, frame, frame)["lyapunov"] < 1 / 7
    collapsed = 500 * (frame - 1 / 8)
    assert of_product(collapsed, frame, frame)["lyapunov"] == pytest.approx((500 - np.log(7)) / 3500)


def test_no_logits_have_no_lyapunov_function():
    found = of_product(torch.ones(4, 4, dtype=torch.float64), *[torch.eye(4, dtype=torch.float64)] * 2)
    assert np.isnan(found["lyapunov"])
    assert np.isnan(found["etf_cosine"])


def test_steps_grow_and_time_is_their_sum():
    settings = SCHEDULES["log_time"].settings(gamma=1.5)
    rate = learning_rate(OptimizerSettings(lr=0.2), settings, 10)
    assert [rate(e) for e in range(3)] == pytest.approx([0.2, 0.3, 0.45])
    assert sum(rate(e) for e in range(10)) == pytest.approx(0.2 * (1.5**10 - 1) / 0.5)
    assert doctest.testmod(log_time_module).attempted > 1
    assert doctest.testmod(log_time_module).failed == 0


@pytest.mark.parametrize(("gamma", "epochs"), [(1.0, 1), (float("inf"), 1), (10.0, 101)])
def test_steps_that_do_not_grow_or_have_no_end_are_refused(gamma, epochs):
    with pytest.raises(ValueError, match=r"schedule\.gamma"):
        learning_rate(OptimizerSettings(lr=0.2), SCHEDULES["log_time"].settings(gamma=gamma), epochs)


def test_a_check_refuses_steps_without_an_end_in_one_line():
    with pytest.raises(ConfigError, match=r"schedule\.gamma: expected gamma\^epochs .*, got 10 and 101 epochs"):
        check([composed("experiment=unconstrained/hadamard", "schedule.gamma=10", "epochs=101")])


def trained(tmp_path, *more):
    keys = ["experiment=unconstrained/hadamard", "dataset.classes=4", "epochs=30", "threads=1"]
    return train(composed(*keys, f"output_root={tmp_path}", *more))


def of_run(folder, epoch):
    return {metric: value for at, split, layer, metric, value in rows(folder) if at == epoch and layer == "network"}


def test_a_run_follows_the_flow(tmp_path):
    """The experiment as it is, shorter: gradient descent on matrices and the flow agree, and nothing leaks."""
    folder = trained(tmp_path)
    first, last = of_run(folder, 0), of_run(folder, 30)
    time = 20 * 0.05 * (1.1**30 - 1) / 0.1
    (exact,) = flow(np.array([first[f"s_{i}"] for i in range(4)]), [np.log1p(time)])
    assert [last[f"s_{i}"] for i in range(4)] == pytest.approx(list(exact), rel=1e-2)
    assert last["s_1"] > 20 * first["s_1"]
    assert last["leakage"] < 1e-13
    assert np.log1p(np.exp(last["log_excess"])) == pytest.approx(last["loss"])


def test_random_directions_turn(tmp_path):
    folder = trained(tmp_path, "model.directions=random")
    assert of_run(folder, 0)["leakage"] < 1e-14
    assert of_run(folder, 30)["leakage"] > 0.1


def test_the_suite_needs_the_model(tmp_path):
    with pytest.raises(ValueError, match="hadamard measures model=hadamard, which knows its frames; got a model of"):
        trained(tmp_path, "model=unconstrained", "model.dim=4")
