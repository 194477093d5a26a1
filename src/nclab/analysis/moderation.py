"""A spread that the settings of one claim share: variances moderated by empirical Bayes, as in limma, with a cap.

Three seeds say little of the spread of a setting, but a claim is judged in several settings (k = 1, 2, 3), whose
spreads resemble one another. Smyth (2004, Linear models and empirical Bayes methods for assessing differential
expression in microarray experiments, Statistical Applications in Genetics and Molecular Biology 3, article 3) shrinks
each variance s^2 with d degrees of freedom towards what all of them have in common:

    s~^2 = (d0 s0^2 + d s^2) / (d0 + d).

d0 comes from the settings themselves, by the moments of log s^2 (his section 6.2): the more the variances differ, the
smaller d0, and the less is lent. He has thousands of settings, a claim has three, and with so few his rule errs too
often: at three seeds 3.6 % instead of 2.5 %, in the noisiest of unequal settings 8 %. Three things differ here. They
bring it back to 2.5 % where the spreads are equal, not in the noisiest of unequal ones, where it is 4.7 % at 1 : 2 : 4
and up to about 7 % (docs/statistics.md has the simulation):

- d0 is at most d / 2, so that a setting's own variance always counts for two thirds and more;
- s0^2 is the pooled variance, the mean of all s^2 weighted by their d, which noisy settings pull up;
- the degrees of freedom are Satterthwaite's, of a weighted sum of D = sum d degrees of freedom in all:
  (d0 + d)^2 / (d + d0 (2 d + d0) / D), which is d at d0 = 0 and D at d0 = infinity.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, polygamma

MOST = 0.5  # of the degrees of freedom of a setting, how many others may lend it


@dataclass(frozen=True)
class Prior:
    """What the settings of a claim have in common: `sd` is s0, `df` is d0 before its cap (infinite where the variances
    differ by no more than chance), `total` is D. Numbers, or arrays of them."""

    sd: float | np.ndarray
    df: float | np.ndarray
    total: float

    def moderated(self, sd: float | np.ndarray, df: float) -> tuple[float | np.ndarray, float | np.ndarray]:
        """(s~, its degrees of freedom) of a setting with the standard deviation `sd` and `df` = n - 1."""
        lent = np.minimum(self.df, MOST * df)
        variance = (lent * np.square(self.sd) + df * np.square(sd)) / (lent + df)
        return np.sqrt(variance), (lent + df) ** 2 / (df + lent * (2 * df + lent) / self.total)


def fit_prior(sds: Sequence[float] | np.ndarray, dfs: Sequence[float]) -> Prior | None:
    """d0 and s0 of G settings with these standard deviations (above 0) and degrees of freedom (n - 1, at least 1).

    With e = log s^2 - digamma(d / 2) + log(d / 2), whose variance over settings is trigamma(d / 2) + trigamma(d0 / 2),
    d0 follows from the variance of e.

    Args:
        sds: (G,) or (..., G), the fits of which are made side by side.
        dfs: (G,)

    Returns:
        The prior, None of fewer than two settings: there is nothing to lend.
    """
    if len(dfs) < 2:
        return None
    d = np.asarray(dfs, dtype=float)
    variances = np.square(np.asarray(sds, dtype=float))  # (..., G)
    e = np.log(variances) - digamma(d / 2) + np.log(d / 2)
    excess = np.var(e, axis=-1, ddof=1) - np.mean(polygamma(1, d / 2))
    d0 = np.full(excess.shape, math.inf)
    d0[excess > 0] = 2 * trigamma_inverse(excess[excess > 0])
    return Prior(np.sqrt(np.average(variances, axis=-1, weights=d)), d0, float(d.sum()))


def trigamma_inverse(x: np.ndarray) -> np.ndarray:
    """The y > 0 with trigamma(y) = x > 0, by Newton's method on 1 / trigamma, which is convex and nearly linear."""
    y = 0.5 + 1 / x
    for _ in range(50):
        trigamma = polygamma(1, y)
        step = trigamma * (1 - trigamma / x) / polygamma(2, y)
        y = y + step
        if np.all(np.abs(step) <= 1e-12 * y):
            break
    return y
