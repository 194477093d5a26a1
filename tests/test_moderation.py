"""The spread that settings share: limma's own numbers, Satterthwaite's by hand, and what one setting has to itself."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import polygamma

from nclab.analysis.moderation import fit_prior, trigamma_inverse


@pytest.mark.parametrize(
    ("variances", "dfs", "d0"),
    [  # fitFDist of inmoose 0.9.1, a port of limma; its s0^2 is another one
        ([0.04, 0.09, 0.01], [2, 2, 2], math.inf),
        ([0.5, 0.001, 0.2, 3.0], [2, 2, 2, 2], 0.6627918920056998),
        ([0.5, 0.02, 0.2, 3.0], [9, 9, 7, 4], 1.0967527689015586),
        ([0.5, 0.001, 0.2, 3.0, 0.05, 7.0], [4] * 6, 0.6890314620378887),
    ],
)
def test_the_weight_of_the_others_is_limmas(variances, dfs, d0):
    prior = fit_prior(np.sqrt(variances), dfs)
    assert float(prior.df) == pytest.approx(d0, rel=1e-9)
    assert prior.total == sum(dfs)
    assert float(prior.sd) ** 2 == pytest.approx(np.dot(variances, dfs) / sum(dfs))


@pytest.mark.parametrize("x", [1e-3, 0.1, 1.0, 50.0, 1e4])
def test_the_inverse_of_trigamma(x):
    found = brentq(lambda y: float(polygamma(1, y)) - x, 1e-4, 1e5, xtol=1e-14)
    assert float(trigamma_inverse(np.asarray(x))) == pytest.approx(found, rel=1e-8)


def test_a_setting_keeps_two_thirds_of_its_own_variance():
    prior = fit_prior([0.2, 0.3, 0.25], [2, 2, 2])
    assert math.isinf(float(prior.df))  # they differ by no more than chance
    sd, df = prior.moderated(0.2, 2)
    pooled = (0.2**2 + 0.3**2 + 0.25**2) / 3
    assert float(sd) ** 2 == pytest.approx((pooled + 2 * 0.2**2) / 3)
    weights = np.array([2 / 3 + 1 / 9, 1 / 9, 1 / 9])  # of the three variances, each with 2 degrees of freedom
    assert float(df) == pytest.approx(1 / np.sum(weights**2 / 2))


def test_many_fits_at_once_are_the_same_one_by_one():
    rng = np.random.default_rng(0)
    sds, dfs = np.exp(rng.normal(size=(20, 3))), [2, 4, 3]
    together = fit_prior(sds, dfs)
    assert np.isinf(together.df).any()
    assert np.isfinite(together.df).any()
    for i, row in enumerate(sds):
        alone = fit_prior(row, dfs)
        assert (float(alone.df), float(alone.sd)) == pytest.approx((together.df[i], together.sd[i]))


def test_one_setting_has_nothing_to_lend():
    assert fit_prior([0.2], [2]) is None


def test_settings_that_differ_widely_lend_less():
    alike, apart = fit_prior([0.2, 0.3], [9, 9]), fit_prior([0.2, 3.0], [9, 9])
    assert float(apart.moderated(0.2, 9)[1]) - 9 < 0.25 * (float(alike.moderated(0.2, 9)[1]) - 9)
    assert float(apart.df) > 0
