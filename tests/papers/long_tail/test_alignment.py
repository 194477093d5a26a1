"""Rows turned to class means: closed forms, the policy in steps, in a run and resumed, and the post-hoc suite."""

import math

import numpy as np
import pytest
import torch
from run_folders import assert_same_run, killed_after, rows
from sklearn.metrics import balanced_accuracy_score

from nclab.etf.policy import POLICIES
from nclab.interfaces.batch import Batch
from nclab.models.mlp import MLP
from nclab.papers.long_tail.parts.align import misalignment
from nclab.papers.long_tail.parts.post_hoc import variants
from nclab.papers.long_tail.parts.rows import equalised, projected, slerp
from nclab.run.execute import train
from nclab.run.trained import load_trained

G = torch.Generator().manual_seed(0)
W, M = (torch.randn(5, 9, generator=G, dtype=torch.float64) for _ in range(2))


def angle(a, b):
    a, b = a / a.norm(), b / b.norm()
    return 2 * math.atan2(float((a - b).norm()), float((a + b).norm()))  # precise near 0, where arccos is not


@pytest.mark.parametrize("amount", [0.0, 0.3, 1.0])
def test_slerp_turns_by_a_share_of_the_angle_and_keeps_lengths(amount):
    turned = slerp(W, M, amount)
    torch.testing.assert_close(turned.norm(dim=1), W.norm(dim=1))
    for w, t, m in zip(W, turned, M, strict=True):
        whole = angle(w, m)
        assert angle(t, m) == pytest.approx((1 - amount) * whole, abs=1e-7)
        assert angle(w, t) == pytest.approx(amount * whole, abs=1e-7)
    # What has no great circle stays: along its target, opposite to it, towards nothing.
    same = torch.stack([W[0], W[0], W[0]])
    torch.testing.assert_close(slerp(same, torch.stack([3 * W[0], -W[0], 0 * W[0]]), amount), same)


def test_a_projection_leaves_the_span_alone_and_equal_rows_their_directions():
    centred = M - M.mean(0)
    inside = projected(W, centred)
    solved = np.linalg.lstsq(centred.numpy().T, W.numpy().T, rcond=None)[0]  # least squares within the span
    np.testing.assert_allclose(inside.numpy(), (centred.numpy().T @ solved).T, atol=1e-10)
    torch.testing.assert_close(projected(inside, centred), inside)
    assert torch.linalg.matrix_rank(inside) == 4
    equal = equalised(W)
    torch.testing.assert_close(equal.norm(dim=1), W.norm(dim=1).mean().expand(5))
    assert all(angle(a, b) < 1e-7 for a, b in zip(W, equal, strict=True))


def test_misalignment_is_its_formula():
    a, b = W - W.mean(0), M - M.mean(0)
    wanted = np.mean([1 - math.cos(angle(x, y)) for x, y in zip(a, b, strict=True)])
    assert float(misalignment(W, b)) == pytest.approx(wanted)
    assert float(misalignment(3 * b + 1, b)) == pytest.approx(0, abs=1e-12)


def policy(**settings):
    entry = POLICIES["align"]
    return entry.build(entry.settings(**settings))


def stepped(own, model, labels, parts=1, total=None):
    """One pass of the policy over a batch, in parts as processes share it; the gradient of the rows."""
    x = torch.rand(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(2))
    model.zero_grad()
    for piece in torch.arange(len(labels)).chunk(parts):
        out = model(x[piece])
        batch = Batch(x[piece], labels[piece], piece, len(labels))
        out = own.before_loss(model, batch, out, *([total] if total else []))
        (0 * out.prediction.sum()).backward()
    return model.fc3.weight.grad, model(x).features["act2"].detach()


def test_the_penalty_of_reg_reaches_the_rows_alone_and_is_the_same_in_parts():
    torch.manual_seed(0)
    model, labels = MLP(64, 4, 3, 6, norm="none"), torch.arange(20) % 4
    own = policy(strategy="reg", amount=2.0)
    first, h = stepped(own, model, labels)
    assert not first.any()  # no means yet
    own.after_epoch(model, None, None, 1)
    means = torch.stack([h[labels == c].double().mean(0) for c in range(4)])
    torch.testing.assert_close(own.means, means - means.mean(0))
    weight = model.fc3.weight.detach().clone().requires_grad_()
    (2.0 * misalignment(weight, (means - means.mean(0)).float())).backward()
    whole, _ = stepped(own, model, labels)
    torch.testing.assert_close(whole, weight.grad)
    assert weight.grad.abs().max() > 0.01
    shared, _ = stepped(own, model, labels, parts=2)
    torch.testing.assert_close(shared, weight.grad)
    assert not model.fc1.weight.grad.any()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, lambda w, m: slerp(w, m, 0.3)),
        ({"amount": 0.0, "equal_norms": True}, lambda w, m: equalised(w)),
        ({"strategy": "proj", "amount": 1.0}, projected),
        ({"strategy": "proj", "amount": 1.0, "equal_norms": True}, lambda w, m: equalised(projected(w, m))),
    ],
)
def test_rows_turn_after_every_second_epoch(settings, expected):
    torch.manual_seed(0)
    model, labels, own = MLP(64, 4, 3, 6, norm="none"), torch.arange(20) % 4, policy(**settings)
    for epoch in (1, 2):
        before = model.fc3.weight.detach().double().clone()
        _, h = stepped(own, model, labels)
        assert own.after_epoch(model, None, None, epoch) == []
        means = torch.stack([h[labels == c].double().mean(0) for c in range(4)])
        wanted = before if epoch == 1 else expected(before, means - means.mean(0))
        torch.testing.assert_close(model.fc3.weight.detach().double(), wanted, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(before, wanted, atol=1e-3)
    stepped(own, model, labels[labels < 3])  # a class without a sample
    before = model.fc3.weight.detach().clone()
    own.after_epoch(model, None, None, 4)
    assert torch.equal(model.fc3.weight, before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "rotate"}, r"unknown etf\.strategy 'rotate'; .*valid: reg, slerp, proj"),
        ({"amount": 1.5}, r"etf\.amount must be at least 0 and at most 1, got 1\.5"),
        ({"strategy": "reg", "amount": math.inf}, r"etf\.amount must be at least 0 and finite, got inf"),
        ({"every": 0}, r"etf\.every must be at least 1, got 0"),
        ({"strategy": "reg", "equal_norms": True}, r"have no effect with etf\.strategy=reg"),
        ({"strategy": "proj"}, r"expected etf\.amount=1, got 0\.3"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        policy(**settings)


TAIL = ("dataset.imbalance=8", "metrics.suite=[collapse,long_tail,post_hoc]")


@pytest.mark.parametrize("keys", [("etf.strategy=reg", "etf.amount=0.1"), ("etf.strategy=slerp",)])
def test_a_killed_run_goes_on_bit_for_bit(tiny, tmp_path, keys):
    keys = ("etf=align", *keys, *TAIL, "epochs=4")
    whole = train(tiny(*keys, root=tmp_path / "whole"))
    config = tiny(*keys, root=tmp_path / "cut")
    killed_after(2, config)
    assert_same_run(whole, train(config))
    plain = {r[:4]: r[4] for r in rows(train(tiny(*TAIL, "epochs=4")))}
    cosine = [key for key in plain if key[0] == 3 and key[3] == "row_cosine"]
    assert len(cosine) == 1
    assert {r[:4]: r[4] for r in rows(whole)}[cosine[0]] > plain[cosine[0]]  # it does align


def test_the_post_hoc_suite_measures_the_turned_classifier(tiny):
    folder = train(tiny(*TAIL, "epochs=3", "metrics.batch_size=37"))
    logged = {r[3]: r[4] for r in rows(folder) if r[:3] == (3, "test", "network")}
    model, data, _ = load_trained(folder)
    with torch.no_grad():
        h = {s: model(data.inputs(data.splits[s].samples)).features["act3"].double() for s in ("train", "test")}
    means = torch.stack([h["train"][data.train.targets == c].mean(0) for c in range(10)])
    y = data.splits["test"].targets
    found = variants(model.fc4.weight.detach().double(), means - means.mean(0))
    assert len(found) == 5
    for name, w in found.items():
        guess = (h["test"] @ w.T + model.fc4.bias.detach().double()).argmax(1)
        assert logged[f"post_hoc_{name}"] == pytest.approx(balanced_accuracy_score(y, guess), rel=1e-12), name
        tail = np.mean([(guess[y == c] == c).double().mean() for c in (7, 8, 9)])
        assert logged[f"post_hoc_tail_{name}"] == pytest.approx(tail, rel=1e-12)
    assert not any(r[3].startswith("post_hoc") for r in rows(folder) if r[1] == "train")
