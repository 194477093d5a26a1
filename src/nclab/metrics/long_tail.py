"""Columns of long-tailed training, as pure functions: accuracy by class, collapse under both weightings, alignment.

Notation as in `nclab.metrics.collapse`, p_c = n_c / N the share of class c in the train split. Balanced: every class
weighs 1/C. Unbalanced: class c weighs p_c, as its samples do.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from nclab.metrics.collapse import nc3_of_centred
from nclab.metrics.geometry import NAN, ClassMeans, power_of_two
from nclab.metrics.passes import unit_rows


def frequency_groups(counts: Tensor) -> dict[str, Tensor]:
    """head, middle and tail -> their classes, by the train samples of every class (C,), the most first: a third of the
    classes each, rounded down for head and tail, one at least. Of equal classes the smaller number comes first.

    >>> {name: of.tolist() for name, of in frequency_groups(torch.tensor([2, 9, 5, 7])).items()}
    {'head': [1], 'middle': [3, 2], 'tail': [0]}
    """
    order = counts.argsort(descending=True, stable=True)
    third = max(1, len(counts) // 3)
    return {"head": order[:third], "middle": order[third:-third], "tail": order[-third:]}


def balanced_accuracies(hits: Tensor, seen: Tensor, groups: Mapping[str, Tensor]) -> dict[str, float]:
    """class_accuracy_c of every class, balanced_accuracy, their mean (Brodersen et al. 2010), and head_accuracy,
    middle_accuracy and tail_accuracy, the mean over the classes of a group.

    hits, seen (C,): samples of a class that are predicted right, and all. Means run over classes with a sample in the
    split; nan where there are none. 1 where all are right.
    """
    shares = hits / seen  # nan of a class without a sample
    means = {"balanced_accuracy": shares} | {f"{name}_accuracy": shares[of] for name, of in groups.items()}
    by_class = {f"class_accuracy_{c}": share for c, share in enumerate(shares.tolist())}
    return {name: float(own.nanmean()) for name, own in means.items()} | by_class


def weighted_nc1(m: ClassMeans, spread: Tensor, weights: Tensor) -> float:
    """tr(Sigma_W Sigma_B^+) / C with Sigma_B = sum_c p_c (mu_c - mu)(mu_c - mu)^T, mu = sum_c p_c mu_c. 0 at collapse.

    nc1_balanced: p_c = 1/C in both matrices; nc1_unbalanced: p_c = n_c / N in both, as Papyan 2020 has it for balanced
    data. `nc1` of suite collapse has sample-weighted Sigma_W and class-weighted Sigma_B.

    spread (rank, rank): Sigma_W in the basis of `m`, of m.scale times the features. weights (C,): p_c.
    """
    if m.rank == 0 or not torch.isfinite(spread).all():
        return NAN
    centred = _about(m, weights) @ m.basis  # (C, rank): mu lies in the span that the class means have
    between = centred.T @ (weights[:, None] * centred)
    return float(torch.linalg.solve(between, spread).trace() / len(m.means))


def unbalanced_collapse(m: ClassMeans, weights: Tensor, weight: Tensor) -> dict[str, float]:
    """nc2_equinorm, nc2_equiangular and nc3 of `nclab.metrics.collapse` with class means that are centred at
    sum_c p_c mu_c in the place of mu_G, under the same names with `_unbalanced`. With p_c = 1/C they are the same.

    weights (C,): p_c = n_c / N. weight (C, d): W.
    """
    centred = _about(m, weights)
    norms = torch.linalg.vector_norm(centred, dim=1)
    lengths = float(norms.std(correction=0) / norms.mean()) if m.rank else NAN
    angles = NAN
    if m.rank and (norms.square() > m.cut).all():
        i, j = torch.triu_indices(len(norms), len(norms), offset=1)
        unit = centred / norms[:, None]
        angles = float(((unit[i] * unit[j]).sum(1) + 1 / (len(norms) - 1)).abs().mean())
    weight = weight * power_of_two(weight)
    return {
        "nc2_equinorm_unbalanced": lengths,
        "nc2_equiangular_unbalanced": angles,
        "nc3_unbalanced": nc3_of_centred(centred, weight) if m.rank else NAN,
    }


def row_cosines(m: ClassMeans, weight: Tensor) -> Tensor:
    """cos(m_c, w_c - w) of every class (C,), w the mean of the rows of W (C, d). 1 at collapse (self-duality), the
    alignment of Wang, Gao, Xie 2025 (arXiv 2512.07844). nan where class means coincide or a row is the mean row."""
    centred = weight - weight.mean(0)
    if m.rank == 0:
        return weight.new_full((len(weight),), NAN)
    return (unit_rows(m.centred) * unit_rows(centred)).sum(1)


def largest_cosine(rows: Tensor) -> float:
    """The largest cosine between two rows (n, d), that of the smallest angle. At collapse of C classes -1/(C-1);
    1 where two rows have the same direction: the minority collapse of Fang et al. 2021, of the rows of tail classes.
    nan of fewer than two rows, and of a row of zeros.

    >>> round(largest_cosine(torch.tensor([[1.0, 0.0], [1.0, 1.0]])), 6)
    0.707107
    """
    if len(rows) < 2:
        return NAN
    unit = unit_rows(rows)
    i, j = torch.triu_indices(len(rows), len(rows), offset=1)
    return float((unit[i] * unit[j]).sum(1).max())


def _about(m: ClassMeans, weights: Tensor) -> Tensor:
    """m.scale (mu_c - sum_c p_c mu_c), (C, d)."""
    return m.centred - weights @ m.centred
