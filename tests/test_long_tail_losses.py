"""Losses of long tails against references written formula by formula in float64; minimisers; what they ask for."""

import math

import numpy as np
import pytest
import torch
from conftest import composed
from run_folders import assert_same_run, killed_after, rows
from torch.func import vmap

from nclab.config.schema import ConfigError
from nclab.data.free_features import FreeFeaturesSettings
from nclab.data.free_features import build as free_features
from nclab.interfaces.batch import Batch, Output
from nclab.run.execute import check, train
from nclab.training.losses.multi_center import allocated, rows_beside
from nclab.training.objective import LOSSES

COUNTS = [20, 9, 4]  # n_k of the dataset below
THETA, F, C, D = 0.2, 4, 3, 15
G = torch.Generator().manual_seed(0)
DATA = free_features(FreeFeaturesSettings(classes=3, per_class=20, imbalance=5), None).cast(torch.float64)
H = torch.randn(8, D, generator=G, dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])
W = torch.linalg.qr(torch.randn(D, C, generator=G, dtype=torch.float64)).Q.T  # orthonormal rows


def loss(name, **settings):
    entry = LOSSES[name]
    own = entry.build(entry.settings(name=name, **settings))
    own.setup(None, DATA)
    return own


def given(h=H, w=W, y=Y):
    return Output(h @ w.T, {"before": h * 0, "h": h}), Batch(h, y, torch.arange(len(y)), len(y))


# ---- logit adjustment


@pytest.mark.parametrize("temperature", [0.0, 1.0, 1.7])
def test_logit_adjusted_is_its_formula(temperature):
    found = loss("logit_adjusted", temperature=temperature).each(*given()).numpy()
    z, share = (H @ W.T).numpy(), np.array(COUNTS) / sum(COUNTS)
    for i, y in enumerate(Y):
        wanted = -math.log(
            share[y] ** temperature * math.exp(z[i, y])
            / sum(share[c] ** temperature * math.exp(z[i, c]) for c in range(C))
        )  # fmt: skip
        assert found[i] == pytest.approx(wanted, rel=1e-12)
    assert DATA.train.targets.bincount().tolist() == COUNTS


def test_logit_adjustment_ends_where_classes_count_alike():
    """Of inputs that say nothing, cross-entropy learns the shares and adjusted logits are equal."""
    y, batch = DATA.train.targets, len(DATA.train)
    for name, wanted in (("logit_adjusted", [0.0, 0.0, 0.0]), ("cross_entropy", np.log(np.array(COUNTS) / 20))):
        z = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        own, optimizer = loss(name), torch.optim.LBFGS([z], max_iter=100, line_search_fn="strong_wolfe")

        def closure(own=own, z=z, optimizer=optimizer):
            optimizer.zero_grad()
            value = own.mean(Output(z.expand(batch, 3), {}), Batch(y, y, y, batch))
            value.backward()
            return value

        optimizer.step(closure)
        assert (z - z[0]).tolist() == pytest.approx(list(wanted), abs=1e-5)


# ---- dot regression


def test_dot_regression_is_its_formula_and_does_not_see_lengths():
    found = loss("dot_regression").each(*given())
    for i, y in enumerate(Y):
        cosine = sum(float(H[i, k]) * float(W[y, k]) for k in range(D)) / math.sqrt(sum(float(v) ** 2 for v in H[i]))
        assert float(found[i]) == pytest.approx((cosine - 1) ** 2 / 2, rel=1e-12)
    torch.testing.assert_close(loss("dot_regression").each(*given(7 * H)), found)
    assert loss("dot_regression").each(*given(W[Y])).abs().max() < 1e-30
    assert loss("dot_regression").each(*given(0 * H)).tolist() == [0.5] * 8  # a feature of zeros is no nan


@pytest.mark.parametrize("name", ["logit_adjusted", "dot_regression"])
def test_gradients_against_differences_and_many_seeds_at_once(name):
    own = loss(name)
    assert torch.autograd.gradcheck(lambda h: own.mean(*given(h)), H.clone().requires_grad_())
    both = torch.stack([H, H.flip(0)])
    torch.testing.assert_close(
        vmap(lambda h: own.mean(*given(h)))(both), torch.stack([own.mean(*given(h)) for h in both])
    )
    assert own.stackable
    assert own.scores(*given()).keys() == own.score_names(Y) == {"loss", "accuracy"}


# ---- many centres


def by_hand(h, y, q, m, weight):
    """The loss of one sample, centre by centre; q[k]: the rows of class k, weight: that of its class."""
    length = math.sqrt(sum(float(v) ** 2 for v in h))
    total = 0.0
    for j in range(m[y]):
        centre = math.cos(THETA) * q[y][j] + math.sin(THETA) * W[y]
        total += weight / m[y] * (1 - float(h @ centre) / length) ** 2
    return total + 6e-4 * (length - 1) ** 2


def rho_by_hand(m):
    return math.sqrt(math.cos(THETA) ** 2 + m * math.sin(THETA) ** 2) / math.sqrt(m)


CAL_WEIGHTS = [m * rho_by_hand(m) for m in (1, 3, 5)]
MEAN_OF_CAL = sum(n * w for n, w in zip(COUNTS, CAL_WEIGHTS, strict=True)) / sum(COUNTS)
BACK = [m * rho_by_hand(m) for m in (5, 3, 1)]
MEAN_OF_BACK = sum(n * w for n, w in zip(COUNTS, BACK, strict=True)) / sum(COUNTS)
EQUAL = {"weights": "equal", "scale": "class_aware"}
VARIANTS = {  # settings, m, weights of the classes
    "al": ({"allocation": "equal"}, [3, 3, 3], [3 * rho_by_hand(3)] * 3),
    "cal": ({}, [1, 3, 5], CAL_WEIGHTS),
    "cal_at_its_own_scale": ({"scale": "class_aware"}, [1, 3, 5], CAL_WEIGHTS),
    "mean": ({"weights": "mean"}, [1, 3, 5], [rho_by_hand(m) for m in (1, 3, 5)]),
    "al_weighted": ({"allocation": "equal", "weights": "class_aware"}, [3, 3, 3], CAL_WEIGHTS),
    "al_scaled": ({"allocation": "equal", **EQUAL}, [3, 3, 3], [MEAN_OF_CAL] * 3),
    "cal_equal": (EQUAL, [1, 3, 5], [MEAN_OF_CAL] * 3),
    "ones": ({"weights": "equal"}, [1, 3, 5], [1.0] * 3),
    "reversed": ({"allocation": "reversed"}, [5, 3, 1], BACK),
    "reversed_scaled": (
        {"allocation": "reversed", "scale": "class_aware"},
        [5, 3, 1],
        [w * MEAN_OF_CAL / MEAN_OF_BACK for w in BACK],
    ),
}


class Layer:
    weight = W
    recipe = type("R", (), {"seed": 11})


class Model:
    classifier = "fc"

    def get_submodule(self, name):
        return Layer


def multi_center(variant):
    own = loss("multi_center", centres=F, theta=THETA, **VARIANTS[variant][0])
    own.follow(Model())
    return own


@pytest.mark.parametrize("variant", VARIANTS)
def test_multi_center_is_its_formula(variant):
    own = multi_center(variant)
    _, m, weights = VARIANTS[variant]
    q = dict(enumerate(own.q.split(m)))
    found = own.each(*given())
    wanted = [by_hand(h, int(y), q, m, weights[y]) for h, y in zip(H, Y, strict=True)]
    assert found.tolist() == pytest.approx(wanted, rel=1e-12)
    assert torch.autograd.gradcheck(lambda h: own.mean(*given(h)), H.clone().requires_grad_())
    frame = torch.cat([W, own.q])
    torch.testing.assert_close(frame @ frame.T, torch.eye(C * F, dtype=torch.float64), rtol=0, atol=1e-12)
    assert own.scores(*given()).keys() == own.score_names(Y) == {"loss", "accuracy", "centre_cosine"}
    assert not own.stackable


def test_the_allocation_of_the_facts():
    """n = 1000 ... 10 of ten classes; f = 20."""
    counts = [int(1000 * 100 ** (-k / 9)) for k in range(10)]
    assert allocated(counts, 20) == [1, 2, 2, 4, 6, 11, 17, 28, 45, 74]
    assert allocated(counts, 20, "reversed") == [1, 2, 2, 4, 6, 11, 17, 28, 45, 74][::-1]
    assert allocated(counts, 20, "equal") == [19] * 10
    assert allocated(counts[::-1], 20) == [1, 2, 2, 4, 6, 11, 17, 28, 45, 74][::-1]  # by size, not by number
    assert allocated([50] * 4, 5) == [4] * 4
    for counts in ([7, 1], [3, 3, 2], [1000, 1, 1, 1, 1]):
        for f in (2, 3, 20):
            assert sum(allocated(counts, f)) == len(counts) * (f - 1)
            assert min(allocated(counts, f)) >= 1


@pytest.mark.parametrize("variant", ["al", "cal", "mean", "cal_equal", "reversed_scaled"])
def test_unconstrained_features_end_along_the_mean_centre(variant):
    own = multi_center(variant)
    h = torch.randn(3, D, generator=torch.Generator().manual_seed(4), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([h], max_iter=2000, tolerance_grad=1e-13, tolerance_change=0, history_size=20,
                                  line_search_fn="strong_wolfe")  # fmt: skip
    y = torch.arange(3)

    def closure():
        optimizer.zero_grad()
        value = own.mean(*given(h, y=y))
        value.backward()
        return value

    optimizer.step(closure)
    h = h.detach()
    m = own.centres
    # With one centre the loss grows as the fourth power of the angle: L-BFGS ends sooner.
    for cosine, count in zip(own.scores(*given(h, y=y))["centre_cosine"].tolist(), m.tolist(), strict=True):
        assert cosine == pytest.approx(1.0, abs=1e-6 if count == 1 else 1e-9)
    wanted = math.sin(THETA) / (math.sin(THETA) ** 2 + math.cos(THETA) ** 2 / m).sqrt()
    unit = torch.nn.functional.normalize(h, dim=1)
    assert (unit * W).sum(1).tolist() == pytest.approx(wanted.tolist(), abs=1e-3)
    assert (unit @ unit.T - torch.eye(3)).abs().max() < 1e-3
    assert torch.linalg.vector_norm(h, dim=1).tolist() == pytest.approx([1.0] * 3, abs=1e-4)


def test_rows_beside_a_frame_follow_its_seed():
    first, again, other = (rows_beside(W, 9, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("logit_adjusted", {"temperature": -1.0}, r"loss\.temperature must be at least 0 and finite, got -1"),
        ("multi_center", {"centres": 1}, r"loss\.centres must be at least 2"),
        ("multi_center", {"theta": 0.0}, r"loss\.theta must be between 0 and pi/2, both excluded; got 0"),
        ("multi_center", {"length": -1.0}, r"loss\.length must be at least 0"),
        ("multi_center", {"allocation": "al"}, r"unknown loss\.allocation 'al'; .*valid: class_aware, equal, reversed"),
        ("multi_center", {"weights": "own"}, r"unknown loss\.weights 'own'; .*valid: sum, mean, equal, class_aware"),
        ("multi_center", {"scale": "one"}, r"unknown loss\.scale 'one'; .*valid: own, class_aware"),
    ],
)
def test_wrong_settings_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        LOSSES[name].settings(name=name, **settings)


# ---- in a run

FIXED = ("etf=last_k", "etf.bias=false", "model.head_norm=batch")
VALUES = ("dataset=diabetes", "dataset.train_size=null", "dataset.test_size=null")
CAL = (*FIXED, "loss=multi_center", "etf.kind=orthogonal", "loss.centres=2", "dataset.imbalance=10")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("loss=dot_regression",), "loss=dot_regression needs a classifier with fixed rows .* got etf=none"),
        (("loss=dot_regression", "etf=last_k"), "expected etf=last_k etf.bias=false, and no .* got etf=last1"),
        (("loss=dot_regression", *FIXED, "etf.classifier_scale=2"), "and no etf.classifier_scale; got etf=last1"),
        (("loss=dot_regression", *FIXED, "etf.kind=frozen"), "got etf=frozen_last1"),
        (("loss=multi_center", *FIXED, "loss.centres=2"), "expected etf=last_k etf.kind=orthogonal etf.bias=false"),
        ((*CAL, "loss.centres=3"), "loss.centres=3 times 10 orthogonal rows: expected a classifier of 30 inputs .* 24"),
        (("loss=logit_adjusted", *VALUES), "loss=logit_adjusted needs classes"),
    ],
)
def test_what_they_ask_for_is_checked_before_training(tiny, keys, message):
    with pytest.raises(ConfigError, match=message):
        check([tiny(*keys)])


def test_a_killed_run_has_the_same_centres_again(tiny, tmp_path):
    whole = train(tiny(*CAL, "epochs=4", "seed=1", root=tmp_path / "whole"))
    config = tiny(*CAL, "epochs=4", "seed=1", root=tmp_path / "cut")
    killed_after(2, config)
    assert_same_run(whole, train(config))
    logged = {r[0]: r[4] for r in rows(whole) if r[1:4] == ("train", "network", "centre_cosine")}
    assert logged[4] > logged[0] + 0.1


@pytest.mark.parametrize("keys", [(*FIXED, "loss=dot_regression"), CAL], ids=["dot_regression", "multi_center"])
def test_in_bf16_the_loss_itself_is_float32(tiny, keys):
    """Features come out of a lowered step in bf16, frames and logits are float32."""
    low, full = (train(tiny(*keys, "epochs=1", "dataset.imbalance=10", f"precision={p}")) for p in ("bf16", "float32"))
    own, expected = ({r[3]: r[4] for r in rows(f) if r[:3] == (1, "train", "network")} for f in (low, full))
    assert own["running_loss"] == pytest.approx(expected["running_loss"], rel=0.02)


@pytest.mark.parametrize("name", ["logit_adjusted", "dot_regression"])
def test_their_loss_falls_in_a_run(tiny, name):
    keys = FIXED if name == "dot_regression" else ()
    folder = train(tiny(f"loss={name}", *keys, "epochs=9", "dataset.imbalance=10"))
    loss_of = {r[0]: r[4] for r in rows(folder) if r[1:4] == ("train", "network", "loss")}
    assert loss_of[9] < 0.8 * loss_of[0]
    assert composed(f"loss={name}").run_name != composed().run_name
