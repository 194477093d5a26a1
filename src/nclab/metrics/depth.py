"""Effective depth: from which layer on the classes are separated by their nearest class means."""

from collections.abc import Sequence


def effective_depth(ncc_accuracies: Sequence[float], eps: float) -> float:
    """First probe point, counted from 1 at the input, from which on *every* train NCC error is <= eps; nan if none.

    An undefined accuracy (nan) is not separated. Source: Galanti 2022, whose own rule is `effective_depth_first`.
    """
    depth = float("nan")
    for i in range(len(ncc_accuracies), 0, -1):
        if not ncc_accuracies[i - 1] >= 1 - eps:
            break
        depth = float(i)
    return depth


def effective_depth_first(ncc_accuracies: Sequence[float], eps: float) -> float:
    """First probe point with train NCC error <= eps, whatever follows; nan if none (Galanti 2022)."""
    return next((float(i) for i, a in enumerate(ncc_accuracies, 1) if a >= 1 - eps), float("nan"))
