"""Simplex ETFs against their definition, and the nearest one against brute force."""

import pytest
import torch

from nclab.etf.frame import haar, nearest_etf, nearest_etf_product, simplex_basis, simplex_etf
from nclab.etf.structured import STRUCTURED


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_simplex(etf: torch.Tensor) -> None:
    k = etf.shape[1]
    gram = torch.full((k, k), -1 / (k - 1), dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(etf.T @ etf, gram, atol=1e-12, rtol=0)
    torch.testing.assert_close(etf.sum(1), torch.zeros(len(etf), dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("frame", ["random", *STRUCTURED])
@pytest.mark.parametrize(("k", "d"), [(2, 2), (3, 5), (10, 10), (10, 400), (100, 128)])
def test_unit_columns_at_cosine_minus_one_over_k_minus_one(k, d, frame):
    assert_simplex(simplex_etf(k, d, frame, generator()))


@pytest.mark.fast
def test_fits_into_k_minus_one_dimensions():
    assert_simplex(simplex_etf(5, 4, "random", generator()))


@pytest.mark.fast
def test_canonical_is_the_papers_formula():
    k, d = 4, 6
    p = torch.eye(d, dtype=torch.float64)[:, :k]
    centring = torch.eye(k, dtype=torch.float64) - torch.ones(k, k, dtype=torch.float64) / k
    torch.testing.assert_close(simplex_etf(k, d, "canonical"), (k / (k - 1)) ** 0.5 * p @ centring)


@pytest.mark.fast
def test_random_frame_follows_its_generator():
    assert torch.equal(simplex_etf(5, 9, "random", generator(1)), simplex_etf(5, 9, "random", generator(1)))
    assert not torch.equal(simplex_etf(5, 9, "random", generator(1)), simplex_etf(5, 9, "random", generator(2)))


def test_haar_does_not_lean_anywhere():
    """E[q] = 0 and E[q q^T] = I/d for every column of a Haar frame; QR without sign correction has E[q_11] < 0."""
    g = generator()
    columns = torch.stack([haar(6, 2, g)[:, 0] for _ in range(4000)])  # (4000, 6)
    assert columns.mean(0).abs().max() < 0.03
    torch.testing.assert_close(columns.T @ columns / 4000, torch.eye(6, dtype=torch.float64) / 6, atol=0.02, rtol=0)


def test_simplex_basis_spans_the_centred_hyperplane():
    basis = simplex_basis(7)
    torch.testing.assert_close(basis.T @ basis, torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(basis @ basis.T, torch.eye(7, dtype=torch.float64) - 1 / 7)


@pytest.mark.parametrize(
    ("k", "d", "frame", "message"),
    [
        (10, 8, "random", "dimension 9 or more, got dimension 8"),
        (1, 8, "random", "at least 2 vectors, got 1"),
        (5, 4, "canonical", "needs dimension >= 5, got 4"),
        (5, 4, "hadamard", "needs dimension >= 5, got 4; 'random' fits"),
        (5, 8, "nearest", "valid: random, canonical, block, signed_permutation, hadamard"),
    ],
)
def test_impossible_frames_are_refused(k, d, frame, message):
    with pytest.raises(ValueError, match=message):
        simplex_etf(k, d, frame)


@pytest.mark.parametrize(("d", "k"), [(6, 6), (9, 5), (4, 5)])
def test_nearest_beats_every_other_frame(d, k):
    target = torch.randn(d, k, dtype=torch.float64, generator=generator(3))
    etf, scale = nearest_etf(target)
    assert_simplex(etf)
    best = (scale * etf - target).norm()
    g = generator(4)
    for _ in range(200):
        other = simplex_etf(k, d, "random", g)
        s = (other * target).sum() / other.square().sum()
        assert best <= (s * other - target).norm() + 1e-12
    # and its neighbours: rotate a little within R^d
    for _ in range(50):
        skew = 1e-2 * torch.randn(d, d, dtype=torch.float64, generator=g)
        near = torch.linalg.matrix_exp(skew - skew.T) @ etf
        assert best <= (scale * near - target).norm() + 1e-12


@pytest.mark.fast
def test_nearest_to_a_scaled_etf_is_itself():
    etf = simplex_etf(6, 9, "random", generator(5))
    found, scale = nearest_etf(2.5 * etf)
    torch.testing.assert_close(found, etf)
    assert scale == pytest.approx(2.5)


def test_nearest_product_finds_a_scaled_product_of_two_etfs():
    m_out, m_in = simplex_etf(4, 7, "random", generator(6)), simplex_etf(4, 5, "random", generator(7))
    found, scale = nearest_etf_product(0.3 * m_out @ m_in.T, 4)
    torch.testing.assert_close(scale * found, 0.3 * m_out @ m_in.T)
    assert scale == pytest.approx(0.3)


@pytest.mark.parametrize("nearest", [nearest_etf, lambda t: nearest_etf_product(t, 3)])
def test_nearest_refuses_a_diverged_weight(nearest):
    with pytest.raises(ValueError, match="training has diverged"):
        nearest(torch.full((4, 4), float("nan")))
