"""Effective depth: from which layer on the classes are separated by their nearest class means.

The one definition of it: of the metrics, of the rule of etf=adaptive, and, without torch, of claims and figures.
"""

import sys
from collections.abc import Sequence

ROUNDING = 4 * sys.float_info.epsilon  # between ratios of counts and 1 - eps: 941 / 1000 < 1 - 0.059 in floats


def effective_depth(ncc_accuracies: Sequence[float], eps: float, accuracy: float = 1.0) -> float:
    """First probe point, counted from 1 at the input, from which on every point is separated; nan if none.

    A point is separated where its train NCC accuracy is at least (1 - eps) * accuracy: where its NCC error is at most
    eps, the tolerance, up to rounding (4 ulp of 1). An undefined accuracy (nan) is not separated. The depth depends on
    eps: see the figure depth_profile. Source: Galanti 2022, whose own rule is `effective_depth_first`.

    Args:
        ncc_accuracies: Train NCC accuracies of the probe points, from input to output.
        eps: Tolerance, an NCC error of 0 to 1.
        accuracy: The network's own train accuracy, where the tolerance is relative to it; 1: absolute.

    >>> effective_depth([0.5, 0.99, 0.8, 0.96, 0.99], eps=0.05), effective_depth([0.99, 0.5], eps=0.05)
    (4.0, nan)
    """
    least = (1 - eps) * accuracy - ROUNDING
    depth = float("nan")
    for i in range(len(ncc_accuracies), 0, -1):
        if not ncc_accuracies[i - 1] >= least:
            break
        depth = float(i)
    return depth


def effective_depth_first(ncc_accuracies: Sequence[float], eps: float) -> float:
    """First probe point with train NCC error <= eps, whatever follows; nan if none (Galanti 2022)."""
    return next((float(i) for i, a in enumerate(ncc_accuracies, 1) if a >= 1 - eps - ROUNDING), float("nan"))
