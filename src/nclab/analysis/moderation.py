"""A spread that the settings of one claim share: moderated variances (empirical Bayes, as in limma).

Three seeds say little of the spread of a setting, but a claim is judged in several settings (k = 1, 2, 3), whose
spreads resemble one another. Smyth (2004, Linear models and empirical Bayes methods for assessing differential
expression in microarray experiments, Statistical Applications in Genetics and Molecular Biology 3, article 3) lets each
variance s^2 with d degrees of freedom be shrunk towards what all of them have in common:

    s~^2 = (d0 s0^2 + d s^2) / (d0 + d),    with d0 + d degrees of freedom.

s0^2 and d0 come from the settings themselves, by the moments of log s^2 (his section 6.2): the more the variances
differ among settings, the smaller d0, and the less is lent. Where they differ by no more than chance d0 is infinite,
and every setting has the pooled variance. As in limma the degrees of freedom are never more than those of all settings
together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, polygamma


@dataclass(frozen=True)
class Prior:
    """What the settings of a claim have in common: s0 as `sd`, d0 as `df` (infinite where they differ by no more than
    chance), and `most`, the degrees of freedom of all of them together."""

    sd: float
    df: float
    most: float

    def moderated(self, sd: float, df: float) -> tuple[float, float]:
        """(s~, its degrees of freedom) of a setting with the standard deviation `sd` and `df` = n - 1."""
        if math.isinf(self.df):
            return self.sd, self.most
        variance = (self.df * self.sd**2 + df * sd**2) / (self.df + df)
        return math.sqrt(variance), min(self.df + df, self.most)


def fit_prior(sds: Sequence[float], dfs: Sequence[float]) -> Prior | None:
    """d0 and s0 of settings with these standard deviations (above 0) and degrees of freedom (n - 1, at least 1).

    With e = log s^2 - digamma(d / 2) + log(d / 2), whose mean is log s0^2 - digamma(d0 / 2) + log(d0 / 2) and whose
    variance is trigamma(d / 2) + trigamma(d0 / 2), both unknowns follow from the mean and the variance of e. None of
    fewer than two settings: there is nothing to lend.
    """
    if len(sds) < 2:
        return None
    d = np.asarray(dfs, dtype=float)
    variances = np.square(np.asarray(sds, dtype=float))
    e = np.log(variances) - digamma(d / 2) + np.log(d / 2)
    excess = float(np.var(e, ddof=1) - np.mean(polygamma(1, d / 2)))
    if excess <= 0:
        return Prior(math.sqrt(float(np.average(variances, weights=d))), math.inf, float(d.sum()))
    d0 = 2 * trigamma_inverse(excess)
    s0 = math.exp((float(np.mean(e)) + float(digamma(d0 / 2)) - math.log(d0 / 2)) / 2)
    return Prior(s0, d0, float(d.sum()))


def trigamma_inverse(x: float) -> float:
    """The y > 0 with trigamma(y) = x > 0, by Newton's method on 1 / trigamma, which is convex and nearly linear."""
    y = 0.5 + 1 / x
    for _ in range(50):
        trigamma = float(polygamma(1, y))
        step = trigamma * (1 - trigamma / x) / float(polygamma(2, y))
        y += step
        if -step / y < 1e-12:
            break
    return y
