"""Features of the phases before beside those of the present one: what replay keeps of them, and where it lies."""

import torch
from torch import Tensor

from nclab.metrics.at_hand import measure
from nclab.metrics.geometry import NAN, geometry, power_of_two
from nclab.metrics.suite import Seen

OF_EACH = ("nc1", "nc2_equinorm", "nc2_equiangular", "nc2_gram", "nc3")
PARTS = ("", "_in_span", "_orthogonal")
COLUMNS = (
    "present_rank",
    "past_rank",
    "seen_rank",
    *(f"past_snr{part}" for part in PARTS),
    "past_mean_in_span",
    "past_spread_in_span",
    *(f"{rows}_{name}" for rows in ("past", "memory", "control") for name in OF_EACH),
    "memory_norm_ratio",
    "control_norm_ratio",
)


def past_geometry(features: Tensor, labels: Tensor, seen: Seen, weight: Tensor) -> dict[str, float]:
    """Where the features of earlier phases lie, and how those in the buffer differ from all of them.

    Few samples of a class look collapsed, since their own mean is taken off them, and their mean is longer, since it is
    noisy: NC1 is lower and |m_c| greater than of all samples, whatever was trained. So the buffer has a control.

    S is the span of the centred class means of the present phase, P the projection onto it. Past are all samples of the
    phases before, memory those of them that the sampler still draws, control as many of every class from the rest,
    always the same ones; mu_c, Sigma_c are the mean and covariance of class c over past samples, m_c = mu_c minus the
    unweighted mean of all of them. After Lanzillotta, Meier, Hofmann (arXiv 2512.07400), but for the control, which is
    ours; where the paper's code averages otherwise is not known to us.

    - present_rank, past_rank, seen_rank: of the centred means of the present phase (the dimension of S), of the past,
      of both together.
    - past_snr: mean over pairs of past classes of |mu_1 - mu_2|^2 / tr(Sigma_1 + Sigma_2); past_snr_in_span and
      past_snr_orthogonal of P h and of h - P h. Without bound at collapse.
    - past_mean_in_span: sum |P m_c|^2 / sum |m_c|^2; past_spread_in_span: tr(P Sigma_W) / tr(Sigma_W), past samples.
    - past_*, memory_*, control_*: nc1, nc2_equinorm, nc2_equiangular, nc2_gram, nc3 (`nclab.metrics.collapse`) of past
      samples, of those in the buffer and of the control; nc3 with the rows of the weight of these classes, minus the
      mean of these rows.
    - memory_norm_ratio, control_norm_ratio: mean of |m_c| over the buffer, or the control, by that over past samples. 1
      where the buffer holds all.

    Args:
        features: (N, d), labels (N,): of the whole train split; only rows in `seen` are read.
        seen: which rows are present, past and in the buffer.
        weight: (C, d), of the classifier.

    Returns: all of COLUMNS, nan where undefined: fewer than two classes, no sample, a buffer without some class, a
    feature that is not finite, a class with fewer samples outside the buffer than in it (control), or, of a ratio,
    nothing to divide by.
    """
    found = dict.fromkeys(COLUMNS, NAN)
    h, y = features.detach().cpu(), labels.cpu()
    if not torch.isfinite(h[seen.rows]).all():
        return found
    h = h * power_of_two(h[seen.rows])
    means = {name: _means(h, y, rows) for name, rows in vars(seen).items()}
    means["seen"] = _means(h, y, seen.rows)
    basis = None
    for name in ("present", "past", "seen"):
        if len(means[name][0]) >= 2:
            whole = geometry(means[name][1], features.dtype)
            found[f"{name}_rank"] = float(whole.rank)
            basis = whole.basis if name == "present" else basis
    if not len(seen.past):
        return found
    classes, mu = means["past"]
    own = torch.searchsorted(classes, y[seen.past])
    deviations = h[seen.past].double() - mu[own]
    if basis is not None:
        found["past_spread_in_span"] = _ratio((deviations @ basis).square().sum(), deviations.square().sum())
    if len(classes) < 2:
        return found
    centred = mu - mu.mean(0)
    inside = None if basis is None else ((centred @ basis) @ basis.T, (deviations @ basis) @ basis.T)
    parts = {"": (centred, deviations)}
    if inside is not None:
        parts |= {"_in_span": inside, "_orthogonal": (centred - inside[0], deviations - inside[1])}
        found["past_mean_in_span"] = _ratio(inside[0].square().sum(), centred.square().sum())
    found |= {f"past_snr{part}": _snr(*given, own) for part, given in parts.items()}
    found |= {f"past_{name}": value for name, value in _collapse(h, y, seen.past, classes, weight).items()}
    if torch.equal(means["memory"][0], classes):
        length = centred.norm(dim=1).mean()
        for name, rows in (("memory", seen.memory), ("control", _control(y, seen))):
            if rows is not None:
                own = {f"{name}_{key}": value for key, value in _collapse(h, y, rows, classes, weight).items()}
                _, mu = _means(h, y, rows)
                found |= own | {f"{name}_norm_ratio": _ratio((mu - mu.mean(0)).norm(dim=1).mean(), length)}
    return found


def _means(features: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The classes (K,) of these rows, rising, and their means (K, d), float64."""
    classes, own, counts = labels[rows].unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(classes), features.shape[1], dtype=torch.float64)
    return classes, sums.index_add_(0, own, features[rows].double()) / counts[:, None]


def _control(labels: Tensor, seen: Seen) -> Tensor | None:
    """Rows of the past outside the buffer, as many of every class as it has, rising; None where there are too few."""
    rest = seen.past[~torch.isin(seen.past, seen.memory)]
    rest = rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(0))]
    drawn = []
    for label, count in zip(*labels[seen.memory].unique(return_counts=True), strict=True):
        own = rest[labels[rest] == label]
        if len(own) < count:
            return None
        drawn.append(own[:count])
    return torch.cat(drawn).sort().values


def _snr(means: Tensor, deviations: Tensor, own: Tensor) -> float:
    """Mean over pairs of |mu_1 - mu_2|^2 / tr(Sigma_1 + Sigma_2): means (K, d), deviations (n, d) of samples of the
    classes `own` (n,)."""
    squares = torch.zeros(len(means), dtype=torch.float64).index_add_(0, own, deviations.square().sum(1))
    variances = squares / own.bincount(minlength=len(means))
    first, second = torch.triu_indices(len(means), len(means), 1)
    noise = variances[first] + variances[second]
    if not noise.all():
        return NAN
    return float(((means[first] - means[second]).square().sum(1) / noise).mean())


def _collapse(features: Tensor, labels: Tensor, rows: Tensor, classes: Tensor, weight: Tensor) -> dict[str, float]:
    """The columns OF_EACH of these rows, whose classes are `classes` (K,)."""
    w = weight.detach().double().cpu()[classes]
    w = w * power_of_two(w)
    values = measure(features[rows], torch.searchsorted(classes, labels[rows]), len(classes), w - w.mean(0))
    return {name: values[name] for name in OF_EACH}


def _ratio(part: Tensor, whole: Tensor) -> float:
    return float(part / whole) if whole else NAN
