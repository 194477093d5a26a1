"""The head that is the simplex ETF nearest to class means: its closed form, its gradient, degenerate means, its module.

The independent truths are scipy's polar decomposition, finite differences, and autograd through Denman-Beavers
iterations for (A^T A)^(-1/2), in float64.
"""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.nn import functional

from nclab.etf import NearestETFHead, fixed_layers, nearest_head, simplex_etf
from nclab.etf.frame import haar
from nclab.etf.state import load_without_fixed, pack, state_without_fixed, unpack
from nclab.metrics import measure


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def by_hand(means, previous, delta):
    """(W, b, U) in numpy, by scipy's polar decomposition."""
    means, previous = means.numpy(), previous.numpy()
    k = len(means)
    centring = np.eye(k) - 1 / k
    centred = (means - means.mean(0)).T
    hat = centred / np.linalg.norm(centred)
    u, _ = scipy.linalg.polar(2 / np.sqrt(k - 1) * hat @ centring + delta * previous)
    w = np.sqrt(k / (k - 1)) * centring @ u.T
    return w, -w @ means.mean(0), u


def through_the_solve(means, previous, delta):
    """(W, b) whose graph holds every iteration for the inverse root of A^T A."""
    k = len(means)
    centring = torch.eye(k, dtype=torch.float64) - 1 / k
    centred = (means - means.mean(0)).T
    a = 2 / (k - 1) ** 0.5 * centred / centred.norm() @ centring + delta * previous
    gram = a.T @ a
    root, inverse = gram, torch.eye(k, dtype=torch.float64)
    for _ in range(40):
        root, inverse = (root + torch.linalg.inv(inverse)) / 2, (inverse + torch.linalg.inv(root)) / 2
    w = (k / (k - 1)) ** 0.5 * centring @ (a @ inverse).T
    return w, -w @ means.mean(0)


@pytest.mark.parametrize(("k", "d", "delta"), [(10, 40, 1e-3), (4, 4, 1e-3), (2, 7, 0.1), (30, 64, 1.0)])
def test_it_is_the_polar_factor_of_scipy(k, d, delta):
    means, previous = normal(k, d), haar(d, k, generator(1))
    weight, bias, frame = nearest_head(means, previous, delta)
    w, b, u = by_hand(means, previous, delta)
    np.testing.assert_allclose(frame, u, atol=1e-11)
    np.testing.assert_allclose(weight, w, atol=1e-11)
    np.testing.assert_allclose(bias, b, atol=1e-11)
    etf = simplex_etf(k, d, "canonical")
    torch.testing.assert_close(weight @ weight.T, etf.T @ etf, rtol=0, atol=1e-13)


def test_no_other_frame_is_nearer():
    k, d, delta = 5, 9, 0.05
    means, previous = normal(k, d), haar(d, k, generator(1))
    centred = (means - means.mean(0)).T
    hat = centred / centred.norm()
    centring = torch.eye(k, dtype=torch.float64) - 1 / k

    def distance(u):
        return (hat - u @ centring / (k - 1) ** 0.5).square().sum() + delta / 2 * (u - previous).square().sum()

    frame = nearest_head(means, previous, delta)[2]
    best = distance(frame)
    for seed in range(200):
        step = 10.0 ** -(seed % 5)
        other = torch.linalg.qr(frame + step * normal(d, k, seed=seed))[0]
        other = other * torch.sign((other * frame).sum(0))
        assert distance(other) > best


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_that_of_finite_differences(seed):
    means, previous = normal(4, 6, seed=seed).requires_grad_(), haar(6, 4, generator(seed))
    call = lambda m: nearest_head(m, previous, 0.1)[:2]  # noqa: E731
    assert torch.autograd.gradcheck(call, (means,), eps=1e-5, atol=1e-6)


@pytest.mark.parametrize("delta", [1e-3, 0.01, 1.0])
def test_the_gradient_is_that_through_an_explicit_solve(delta):
    k, d = 6, 20
    means, previous = normal(k, d).requires_grad_(), haar(d, k, generator(1))
    weights, biases = normal(k, d, seed=2), normal(k, seed=3)
    found = []
    for solve in (lambda: nearest_head(means, previous, delta)[:2], lambda: through_the_solve(means, previous, delta)):
        weight, bias = solve()
        found += torch.autograd.grad((weight * weights).sum() + (bias * biases).sum(), means)
    torch.testing.assert_close(found[0], found[1], rtol=1e-6 / delta**0.5, atol=0)
    assert found[0].abs().max() > 0.1


def test_float32_means_give_a_float32_head_of_the_same_numbers():
    means, previous = normal(10, 32).float().requires_grad_(), haar(32, 10, generator(1)).float()
    weight, bias, frame = nearest_head(means, previous)
    assert {t.dtype for t in (weight, bias, frame)} == {torch.float32}
    (gradient,) = torch.autograd.grad(weight[0].sum(), means)
    assert gradient.dtype == torch.float32
    exact = means.detach().double().requires_grad_()
    w = nearest_head(exact, previous.double())[0]
    torch.testing.assert_close(weight.double(), w, rtol=0, atol=1e-7)
    (true,) = torch.autograd.grad(w[0].sum(), exact)
    torch.testing.assert_close(gradient.double(), true, rtol=1e-4, atol=1e-6)


def test_the_head_of_a_collapsed_network_is_its_class_means():
    """Means r E^T + mu of a simplex ETF E give W = E^T and b = -W mu, once the frame has followed."""
    etf, mu = simplex_etf(6, 12, generator=generator()), normal(12)
    means, frame = 3 * etf.T + mu, haar(12, 6, generator(1))
    for _ in range(60):
        weight, bias, frame = nearest_head(means, frame, 0.1)
    torch.testing.assert_close(weight, etf.T, rtol=0, atol=1e-10)
    torch.testing.assert_close(bias, -weight @ mu, rtol=0, atol=1e-10)
    labels = torch.arange(6)
    assert measure(means, labels, 6, weight, bias)["nc3"] < 1e-10


@pytest.mark.parametrize(
    "means_of",
    [
        lambda eps: torch.zeros(4, 8),
        lambda eps: normal(1, 8).repeat(4, 1),
        lambda eps: 1e5 * (1 + eps / 2 * normal(4, 8)),
    ],
    ids=["zero", "coincident", "up to rounding"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_means_without_a_direction_keep_the_frame(means_of, dtype):
    means = means_of(torch.finfo(dtype).eps).to(dtype).requires_grad_()
    previous = haar(8, 4, generator(1)).to(dtype)
    weight, bias, frame = nearest_head(means, previous)
    torch.testing.assert_close(frame, previous, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-12)
    (gradient,) = torch.autograd.grad(weight.sum() + bias.sum(), means)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("scale", [2.0**-300, 2.0**300])
def test_the_scale_of_the_means_does_not_matter(scale):
    means, previous = normal(4, 8).requires_grad_(), haar(8, 4, generator(1))
    tiny = (means.detach() * scale).requires_grad_()
    weight, other = nearest_head(means, previous)[0], nearest_head(tiny, previous)[0]
    assert torch.equal(weight, other)
    (a,), (b,) = torch.autograd.grad(weight[0, 0], means), torch.autograd.grad(other[0, 0], tiny)
    torch.testing.assert_close(b * scale, a, rtol=1e-12, atol=0)


def test_two_classes_with_one_mean():
    means = normal(4, 8)
    means[1] = means[0]
    means.requires_grad_()
    previous = haar(8, 4, generator(1))
    weight, bias, _ = nearest_head(means, previous)
    np.testing.assert_allclose(weight.detach(), by_hand(means.detach(), previous, 1e-3)[0], atol=1e-10)
    (gradient,) = torch.autograd.grad(weight[0, 0] + bias[0], means)
    assert gradient.isfinite().all()


def test_means_that_are_no_numbers_give_a_head_that_is_none():
    means, previous = normal(4, 8), haar(8, 4, generator(1))
    means[2, 3] = float("nan")
    weight, bias, frame = nearest_head(means, previous)
    assert weight.isnan().all()
    assert bias.isnan().all()
    assert torch.equal(frame, previous)


def test_wrong_means_and_frames_are_refused():
    with pytest.raises(ValueError, match="the head's 5 vectors need a frame in dimension 5 or more, got dimension 4"):
        nearest_head(normal(5, 4), normal(4, 5))
    with pytest.raises(ValueError, match="expected at least 2 classes, got 1"):
        nearest_head(normal(1, 4), normal(4, 1))
    with pytest.raises(ValueError, match=r"expected the previous frame of shape \(8, 4\), got \(4, 8\)"):
        nearest_head(normal(4, 8), normal(4, 8))
    for delta in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="delta must be above 0 and finite, got"):
            nearest_head(normal(4, 8), haar(8, 4, generator()), delta)


# The module


def test_a_stranger_trains_with_it():
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    inputs = 3 * torch.eye(3, 10)[labels] + torch.randn(60, 10)
    body, head = torch.nn.Linear(10, 16), NearestETFHead(16, 3, seed=0)
    assert list(head.parameters()) == []
    optimizer = torch.optim.SGD(body.parameters(), lr=0.1)
    first = None
    for _ in range(50):
        loss = functional.cross_entropy(head(body(inputs), labels), labels)
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * first
    assert (head(body(inputs)).argmax(1) == labels).float().mean() > 0.95


@pytest.mark.parametrize("gradient", [True, False])
def test_logits_of_a_step_are_of_the_head_of_that_step(gradient):
    head = NearestETFHead(8, 4, gradient=gradient, seed=0, dtype=torch.float64)
    labels = torch.arange(12) % 4
    for step in range(3):
        x = normal(12, 8, seed=step).requires_grad_()
        out = head(x, labels)
        torch.testing.assert_close(out, functional.linear(x, head.weight, head.bias), rtol=0, atol=1e-14)
        torch.testing.assert_close(out, head(x), rtol=0, atol=1e-14)
    (whole,) = torch.autograd.grad(functional.cross_entropy(out, labels), x)
    (held,) = torch.autograd.grad(functional.cross_entropy(head(x), labels), x)
    assert torch.allclose(whole, held) != gradient


@pytest.mark.parametrize("gradient", [True, False])
def test_without_a_bias_nothing_but_the_bias_is_gone(gradient):
    with_bias, without = (NearestETFHead(8, 4, gradient=gradient, seed=0, bias=bias) for bias in (True, False))
    x, labels = normal(12, 8).float().requires_grad_(), torch.arange(12) % 4
    out = without(x, labels)
    torch.testing.assert_close(out, with_bias(x, labels) - with_bias.bias, rtol=0, atol=1e-6)
    assert float(with_bias.bias.abs().min()) > 1e-3
    assert torch.equal(with_bias.weight, without.weight)
    assert set(without.state_dict()) == {"weight", "means", "counts", "frame"}
    assert torch.equal(without(x), functional.linear(x, without.weight))


def test_running_means_count_every_class_for_itself():
    head = NearestETFHead(6, 3, seed=0, dtype=torch.float64)
    x = normal(8, 6)
    labels = torch.tensor([0, 0, 1, 1, 0, 0, 2, 2])
    head(x[:4], labels[:4])
    means = {0: x[:2].mean(0), 1: x[2:4].mean(0)}
    torch.testing.assert_close(head.means[:2], torch.stack(list(means.values())))
    assert head.counts.tolist() == [1, 1, 0]
    head(x[4:], labels[4:])
    means[0] = means[0] + 2 / 3 * (x[4:6].mean(0) - means[0])  # 2 / (count + 2), one batch before it
    means[2] = x[6:].mean(0)
    torch.testing.assert_close(head.means, torch.stack([means[c] for c in range(3)]))
    assert head.counts.tolist() == [2, 1, 1]
    head.counts.fill_(10**6)
    before = head.means.clone()
    head(x[:2], labels[:2])
    torch.testing.assert_close(head.means[0], before[0] + 1e-4 * (x[:2].mean(0) - before[0]))


def test_a_class_never_seen_takes_no_part_in_the_centre():
    head = NearestETFHead(6, 3, seed=0, dtype=torch.float64)
    frame = head.frame.clone()
    x, labels = normal(4, 6), torch.tensor([0, 0, 1, 1])
    head(x, labels)
    seen = torch.stack([x[:2].mean(0), x[2:].mean(0)])
    filled = torch.cat([seen, seen.mean(0, keepdim=True)])
    weight, bias, _ = nearest_head(filled, frame)
    torch.testing.assert_close(head.weight, weight)
    torch.testing.assert_close(head.bias, bias)
    empty = head.weight.clone()
    head(x[:0], labels[:0])  # a process without a sample of the batch
    torch.testing.assert_close(head.means[:2], seen)
    assert not torch.equal(head.weight, empty)  # the frame goes on to follow


def test_the_head_stays_in_its_own_precision_under_autocast():
    head = NearestETFHead(8, 4, seed=0)
    x, labels = normal(12, 8).float(), torch.arange(12) % 4
    with torch.autocast("cpu", torch.bfloat16):
        out = head(x.bfloat16(), labels)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, functional.linear(x.bfloat16().float(), head.weight, head.bias))


def test_state_round_trips():
    head, other = NearestETFHead(8, 4, seed=0), NearestETFHead(8, 4, seed=1)
    x, labels = normal(12, 8).float(), torch.arange(12) % 4
    head(x, labels)
    state = head.state_dict()
    assert set(state) == {"weight", "bias", "means", "counts", "frame"}
    other.load_state_dict(state)
    assert torch.equal(other(x), head(x))
    assert torch.equal(other(x, labels), head(x, labels))
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict(torch.nn.Linear(8, 4).state_dict())


@pytest.mark.parametrize("bias", [True, False])
def test_a_checkpoint_makes_the_same_head_in_the_place_of_a_linear_layer(bias):
    head = NearestETFHead(8, 4, delta=0.3, gradient=False, seed=0, bias=bias)
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), head)
    x, labels = normal(12, 8).float(), torch.arange(12) % 4
    model[1](x, labels)
    packed = {name: pack(layer) for name, layer in fixed_layers(model).items()}
    built = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Linear(8, 4))
    built[1] = unpack(built[1], packed["1"])
    load_without_fixed(built, state_without_fixed(model))
    again = built[1]
    assert isinstance(again, NearestETFHead)
    assert (again.delta, again.gradient, again.bias is not None) == (0.3, False, bias)
    assert torch.equal(again(x), model[1](x))
    assert torch.equal(again(x, labels), model[1](x, labels))


def test_wrong_uses_of_the_module_are_refused():
    with pytest.raises(ValueError, match="need a frame in dimension 5 or more, got dimension 4"):
        NearestETFHead(4, 5)
    with pytest.raises(ValueError, match="delta must be above 0 and finite, got 0"):
        NearestETFHead(8, 4, delta=0)
    head = NearestETFHead(8, 4, seed=0)
    with pytest.raises(ValueError, match=r"expected features \(B, 8\) with labels, got \(2, 3, 8\)"):
        head(torch.zeros(2, 3, 8), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"expected labels \(2,\) of class numbers, got \(3,\)"):
        head(torch.zeros(2, 8), torch.zeros(3, dtype=torch.int64))
