"""The numbers that the claims on Hadamard initialisation are about: each of a whole run of model=hadamard."""

import numpy as np

from nclab.analysis.runs import Run
from nclab.analysis.statistics import statistic
from nclab.papers.unconstrained.hadamard_runs import classes, face, flow_beside, numbers, singular


@statistic("share", measured=True)
def hadamard_leakage(run: Run, treated: Run) -> float:
    """Largest share of the logits off the diagonal of the starting frames (leakage), over the measured epochs."""
    return float(numbers(run).leakage.max())


@statistic("share", measured=True)
def hadamard_off_flow(run: Run, treated: Run) -> float:
    """Largest relative distance between a singular value s_i of gradient descent and of the flow from the same start,
    over the measured epochs and those i that do not start on a face."""
    table = numbers(run)
    exact, found = flow_beside(run, table), singular(table).to_numpy()
    there = exact[0] > 0
    return float(np.abs(found[:, there] / exact[:, there] - 1).max())


@statistic("share", measured=True)
def hadamard_lyapunov_rise(run: Run, treated: Run) -> float:
    """Least change of the Lyapunov function (lyapunov) from one measured epoch to the next, in units of its bound
    1/(K-1); below 0 where it ever falls."""
    return float((classes(run) - 1) * numbers(run).lyapunov.diff().min())


@statistic("share", measured=True)
def hadamard_lyapunov_last(run: Run, treated: Run) -> float:
    """Lyapunov function (lyapunov) after the last epoch in units of its bound 1/(K-1), which is collapse."""
    return float((classes(run) - 1) * numbers(run).lyapunov.iloc[-1])


@statistic("cosine", measured=True)
def hadamard_cosine_fall(run: Run, treated: Run) -> float:
    """Largest fall of the cosine of the logits to the simplex ETF (etf_cosine) from a measured epoch to a later one."""
    values = numbers(run).etf_cosine
    return float((values.cummax() - values).max())


@statistic("share", measured=True)
def hadamard_inequality(run: Run, treated: Run) -> float:
    """Largest over smallest of the singular values s_1 ... s_{K-1} after the last epoch, minus 1; 0 at collapse."""
    last = singular(numbers(run)).iloc[-1, 1:]
    return float(last.max() / last.min() - 1)


@statistic("share", measured=True)
def hadamard_on_face(run: Run, treated: Run) -> float:
    """Largest of the singular values s_i that start on or beside a face over the mean of the others, over the measured
    epochs."""
    return float(_face_share(run).max(axis=1).max())


@statistic("times", measured=True)
def hadamard_off_face(run: Run, treated: Run) -> float:
    """Factor by which the singular values s_i that start beside a face grow relative to the mean of the others from the
    start to the last epoch; the smallest of them."""
    share = _face_share(run)
    return float((share.iloc[-1] / share.iloc[0]).min())


def _face_share(run: Run):
    s = singular(numbers(run))
    own = face(run)
    others = s.drop(columns=[0, *own]).mean(axis=1)
    return s[own].abs().div(others, axis=0)
