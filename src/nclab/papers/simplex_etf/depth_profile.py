"""The depth profile: effective depth, and the layers beyond it, as a function of the tolerance.

One tolerance decides too much: with metrics.eps at 0.010 or at 0.012 the same networks have no layer beyond their
effective depth, or one. So claims are about the whole range of tolerances, or about its ends.
"""

import math

import numpy as np

from nclab.analysis.last_layer import at_end
from nclab.analysis.runs import Run
from nclab.analysis.statistics import statistic
from nclab.interfaces.effective_depth import effective_depth

STRICT, LOOSE = 0.005, 0.1  # NCC errors; 0.1 is what the rule of the author's earlier code tolerates
GRID = np.geomspace(STRICT, LOOSE, 201)


def train_ncc(run: Run) -> list[float] | None:
    """Train NCC accuracy of every stage after the last epoch, input to output; None where it was not measured."""
    measured = at_end(run)
    ncc = [measured.get((stage, "ncc_accuracy"), math.nan) for stage in run.stages]
    return None if all(map(math.isnan, ncc)) else ncc


def layers_beyond(ncc: list[float] | None, eps: float) -> float:
    """Stages after the effective depth at tolerance eps; 0 where there is no effective depth, nan of no measures.

    >>> [layers_beyond([0.7, 0.95, 0.97, 0.99], eps) for eps in (0.005, 0.02, 0.04, 0.1)]
    [0.0, 0.0, 1.0, 2.0]
    """
    if ncc is None:
        return math.nan
    depth = effective_depth(ncc, eps)
    return 0.0 if math.isnan(depth) else float(len(ncc) - depth)


@statistic("layers", measured=True)
def layers_beyond_strict(run: Run, treated: Run) -> float:
    """Stages after the effective depth at the strictest tolerance, a train NCC error of 0.005; 0 where there is no
    effective depth. With more tolerance there are never fewer.
    """
    return layers_beyond(train_ncc(run), STRICT)


@statistic("layers", measured=True)
def layers_beyond_loose(run: Run, treated: Run) -> float:
    """Stages after the effective depth at the loosest tolerance, a train NCC error of 0.1, that of the rule in the
    author's earlier code; 0 where there is no effective depth. With less tolerance there are never more.
    """
    return layers_beyond(train_ncc(run), LOOSE)


@statistic("layers", measured=True)
def layers_beyond_mean(run: Run, treated: Run) -> float:
    """Stages after the effective depth, mean over the tolerances from 0.005 to 0.1 on a log axis; 0 at those without an
    effective depth.

    The area under the depth profile: it has no tolerance at which it jumps by a whole layer.
    """
    ncc = train_ncc(run)
    return float(np.mean([layers_beyond(ncc, eps) for eps in GRID]))


@statistic("points", measured=True)
def tolerance_for_one_layer(run: Run, treated: Run) -> float:
    """Least tolerance at which a stage lies beyond the effective depth, in points of train NCC error: the greater of
    the errors of the last two stages.
    """
    ncc = train_ncc(run)
    return math.nan if ncc is None or len(ncc) < 2 else 100.0 * (1.0 - min(ncc[-2:]))
