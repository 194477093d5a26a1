"""Global minimum of one layer on free features: balanced classes, cross-entropy or squared error, with penalties.

    (1/N) sum_i loss(W h_i + b, y_i) + l_W/2 |W|^2 + l_H/2 |H|^2 + l_b/2 |b|^2,  N = C n, d >= C (d >= C - 1 suffices
    for the centred part)
With WH = Z the least l_W/2 |W|^2 + l_H/2 |H|^2 is sqrt(l_W l_H) |Z|_*, the nuclear norm, so that the
objective is convex in (Z, b). At its minimum Z = [a (I - J/C) + e J/C] (x) 1_n^T, J of ones, whose C - 1 and 1 singular
values are a sqrt(n) and |e| sqrt(n). Below, s = sqrt(n l_W l_H).

Zhu et al. 2021 (arXiv 2105.02375) for cross-entropy; Zhou et al. 2022 and Tirer and Bruna 2022 for the squared error.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Optimum:
    """A global minimum; all numbers without a unit.

    objective: loss and penalties. loss: the mean loss alone. scale: a, of the centred part of the logits
    Z = [a (I - J/C) + e J/C] (x) 1_n^T; 0 where the penalties are too large for collapse. mean: e. bias: every entry of
    b. weight_square, features_square: |W|_F^2 and |H|_F^2.
    """

    objective: float
    loss: float
    scale: float
    mean: float
    bias: float
    weight_square: float
    features_square: float


def cross_entropy_optimum(classes: int, per_class: int, weight: float, features: float) -> Optimum:
    """Global minimum under cross-entropy; the bias is 0 there, penalised or not (up to a constant, if not).

    min over a >= 0 of log(1 + (C-1) e^(-a)) + (C-1) s a:
        a = log((1 - (C-1) s) / s) and loss -log(1 - (C-1) s) where C s < 1, else a = 0.

    Args:
        classes: C, at least 2.
        per_class: n, samples of each class.
        weight: l_W.
        features: l_H.

    Raises:
        ValueError: C < 2, n < 1, or a penalty that is not above 0 and finite.

    >>> optimum = cross_entropy_optimum(2, 1, 0.1, 0.1)
    >>> round(optimum.scale, 6), round(optimum.objective, 6)  # log 9, -log 0.9 + 0.1 log 9
    (2.197225, 0.325083)
    """
    _check(classes, per_class, weight=weight, features=features)
    s = math.sqrt(per_class * weight * features)
    if classes * s >= 1:
        return Optimum(math.log(classes), math.log(classes), 0.0, 0.0, 0.0, 0.0, 0.0)
    scale = math.log((1 - (classes - 1) * s) / s)
    loss = -math.log1p(-(classes - 1) * s)
    penalty = (classes - 1) * s * scale
    return Optimum(loss + penalty, loss, scale, 0.0, 0.0, penalty / weight, penalty / features)


def squared_error_optimum(
    classes: int, per_class: int, weight: float, features: float, bias: float | None = None
) -> Optimum:
    """Global minimum under 1/2 |z - e_y|^2, the mean over samples.

    Each singular value of the targets is shortened by itself:
        a = max(0, 1 - C s)
        e = max(0, 1 - C s / k),  k = l_b / (1 + l_b); without a bias k = 1; e = 0 of an unpenalised one
        b = (1 - e) / (C (1 + l_b))
    Without a bias the classifier is an orthogonal frame, under an unpenalised one a simplex ETF.

    Args:
        classes: C, at least 2.
        per_class: n, samples of each class.
        weight: l_W.
        features: l_H.
        bias: l_b, 0 for a bias without a penalty; None: no bias.

    Raises:
        ValueError: C < 2, n < 1, a penalty of W or H that is not above 0 and finite, or of b that is below 0.

    >>> round(squared_error_optimum(4, 1, 0.1, 0.1).scale, 6)  # 1 - 4 * 0.1
    0.6
    """
    _check(classes, per_class, weight=weight, features=features)
    if bias is not None and not 0 <= bias < math.inf:
        raise ValueError(f"bias: expected at least 0 and finite, or None; got {bias:g}")
    s = math.sqrt(per_class * weight * features)
    scale = max(0.0, 1 - classes * s)
    if bias is None:
        mean, entry = scale, 0.0
    else:
        mean = max(0.0, 1 - classes * s * (1 + bias) / bias) if bias else 0.0
        entry = (1 - mean) / (classes * (1 + bias))
    rest = mean + classes * entry - 1
    loss = ((classes - 1) * (scale - 1) ** 2 + rest**2) / (2 * classes)
    nuclear = s * ((classes - 1) * scale + mean)
    objective = loss + nuclear + (bias or 0.0) / 2 * classes * entry**2
    return Optimum(objective, loss, scale, mean, entry, nuclear / weight, nuclear / features)


def soft_loss_optimum(
    classes: int, per_class: int, weight: float, features: float, smoothing: float = 0.0, gamma: float = 0.0
) -> float:
    """Least objective of label smoothing, or of the focal loss, over logits Z = a (I - J/C) (x) 1_n^T; the bias is 0.

    With p = e^a / (e^a + C - 1), min over a >= 0 of
        log(e^a + C - 1) - (1 - s + s/C) a + (C-1) sqrt(n l_W l_H) a    (smoothing s)
        -(1 - p)^gamma log p + (C-1) sqrt(n l_W l_H) a                  (focal)
    The first is the global minimum, as its loss is convex and blind to the order of classes. The focal loss is not
    convex: Zhou et al. 2022 (arXiv 2210.02192) prove that its global minima collapse where the penalties are small.

    Args:
        classes: C, at least 2.
        per_class: n, samples of each class.
        weight: l_W.
        features: l_H.
        smoothing: s in [0, 1).
        gamma: exponent of the focal loss, at least 0; one of both is 0.

    Raises:
        ValueError: C < 2, n < 1, a penalty that is not above 0 and finite, or smoothing and gamma outside their ranges.

    >>> round(soft_loss_optimum(2, 1, 0.1, 0.1) - cross_entropy_optimum(2, 1, 0.1, 0.1).objective, 12)
    0.0
    """
    _check(classes, per_class, weight=weight, features=features)
    if not (0 <= smoothing < 1 and 0 <= gamma < math.inf and not (smoothing and gamma)):
        raise ValueError(f"expected smoothing in [0, 1) or gamma of 0 or more, got {smoothing:g} and {gamma:g}")
    price = (classes - 1) * math.sqrt(per_class * weight * features)

    def objective(a: float) -> float:
        surprise = math.log1p((classes - 1) * math.exp(-a))  # -log p
        paid = smoothing * (1 - 1 / classes) * a + price * a
        return (-math.expm1(-surprise)) ** gamma * surprise + paid

    from scipy.optimize import minimize_scalar  # not above: every training would hold 100 MiB more

    most = min(700.0, math.log(classes) / price)  # beyond it the penalty alone is larger than the objective at 0
    found = [
        minimize_scalar(objective, bounds=(most * i / 20, most * (i + 1) / 20), method="bounded",
                        options={"xatol": 1e-12}).fun
        for i in range(20)
    ]  # fmt: skip
    return float(min(objective(0.0), *found))


def fixed_etf_optimum(classes: int, per_class: int, norm: float, features: float) -> float:
    """Least cross-entropy plus l_H/2 |H|^2 under a classifier that is a fixed simplex ETF with rows of length `norm`.

    W W^T = norm^2 C/(C-1) (I - J/C), Z = a (I - J/C) (x) 1_n^T costs |H|^2 = n (C-1)^2 a^2 / (C norm^2):
        min over a >= 0 of log(1 + (C-1) e^(-a)) + l_H n (C-1)^2 a^2 / (2 C norm^2).
    At the norm of `cross_entropy_optimum`, sqrt(weight_square / C), this plus l_W/2 C norm^2 is that optimum: fixing
    costs nothing.

    Args:
        classes: C, at least 2.
        per_class: n, samples of each class.
        norm: length of a row of W, above 0.
        features: l_H.

    Raises:
        ValueError: C < 2, n < 1, or a number that is not above 0 and finite.
    """
    _check(classes, per_class, norm=norm, features=features)
    price = features * per_class * (classes - 1) ** 2 / (classes * norm**2)

    def slope(a: float) -> float:
        return price * a - (classes - 1) / (math.exp(a) + classes - 1)

    from scipy.optimize import brentq  # not above: every training would hold 100 MiB more

    scale = brentq(slope, 0.0, min(700.0, 1 / price), xtol=1e-14)  # price a is at most 1 at the minimum
    return math.log1p((classes - 1) * math.exp(-scale)) + price / 2 * scale**2


def _check(classes: int, per_class: int, **above_zero: float) -> None:
    for key, value, least in (("classes", classes, 2), ("per_class", per_class, 1)):
        if value < least:
            raise ValueError(f"{key}: expected at least {least}, got {value}")
    for key, value in above_zero.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{key}: expected above 0 and finite, got {value:g}")
