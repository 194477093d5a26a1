"""The numbers that this paper's claims are about, from the entries of W W^T and S that a run logs. Torch-free."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from nclab.analysis.curves import NETWORK
from nclab.analysis.last_layer import objective, series
from nclab.analysis.runs import AnalysisError, Run
from nclab.analysis.statistics import statistic
from nclab.theory.regression import best_g, nrc3, ufm_gram

RANK_CUT = 1e-6  # of sqrt(lambda_H/lambda_W) sqrt(lambda_1): eigenvalues of W W^T above it count for the rank
ROUNDING = 1e-16  # below which a number is drawn as this: the rounding of float64
LEAST = 1e-12  # below which a number counts as this in a claim: what is smaller depends on the order of summation


def matrices(run: Run, name: str) -> dict[int, np.ndarray]:
    """Epoch -> the symmetric matrix (n, n) whose entries are logged as `name`_i_j: weight_gram, target_covariance."""
    rows = run.metrics
    rows = rows[(rows.split == "train") & rows.metric.astype(str).str.startswith(f"{name}_")]
    if rows.empty:
        raise AnalysisError(f"{run.path / 'metrics.csv'}: no {name}_i_j; expected the suite regression_collapse")
    table = rows.astype({"metric": str}).pivot(index="epoch", columns="metric", values="value")
    n = max(int(metric.rpartition("_")[2]) for metric in table)
    found = {}
    for epoch, row in table.iterrows():
        found[int(epoch)] = np.array(
            [[row[f"{name}_{min(i, j)}_{max(i, j)}"] for j in range(1, n + 1)] for i in range(1, n + 1)]
        )
    return found


def last_g(run: Run) -> float:
    """The g at which NRC3 is least for the last W: the paper's, for the whole curve."""
    return best_g(matrices(run, "weight_gram")[run.end], matrices(run, "target_covariance")[run.end])


def nrc3_series(run: Run) -> pd.Series:
    """NRC3 by measured epoch at `last_g`; nan of one target."""
    grams, s, g = matrices(run, "weight_gram"), matrices(run, "target_covariance")[run.end], last_g(run)
    return pd.Series({epoch: nrc3(gram, s, g) for epoch, gram in grams.items()}, dtype=float).rename_axis("epoch")


def unexplained_series(run: Run) -> pd.Series:
    """Share of the variance of the features outside their first n principal components, by measured epoch."""
    n = len(matrices(run, "target_covariance")[run.end])
    return 1 - sum(series(run, f"explained_variance_{i}") for i in range(1, n + 1))


CURVES: dict[str, Callable[[Run], pd.Series]] = {
    "nrc1": lambda run: series(run, "nrc1"),
    "nrc2": lambda run: series(run, "nrc2"),
    "nrc3": nrc3_series,
    "unexplained_variance": unexplained_series,
}


def curve(run: Run, name: str) -> pd.Series:
    """A curve of CURVES, no lower than the rounding."""
    return CURVES[name](run).clip(lower=ROUNDING)


def _register(name: str, of: str) -> None:
    """The statistics <name>_last and <name>_fall."""

    def last(run: Run, treated: Run) -> float:
        return float(curve(run, name).clip(lower=LEAST).get(run.end, math.nan))

    def fall(run: Run, treated: Run) -> float:
        values = curve(run, name).clip(lower=LEAST)
        return float(np.log10(values.get(0, math.nan) / values.get(run.end, math.nan)))

    for value, how in ((last, "after the last epoch"), (fall, "log10 of its value before training over the last one")):
        value.__name__ = f"{name}_{value.__name__}"
        value.__doc__ = f"{of}, train split, {how}; numbers below {LEAST:g} count as that."
    statistic("share", measured=True, positive=True)(last)
    statistic("decades", measured=True)(fall)


for _name, _of in {
    "nrc1": "NRC1 (nrc1), distance of the features from their first n principal components",
    "nrc2": "NRC2 (nrc2), distance of the features from the row space of W",
    "nrc3": "NRC3 (nrc3), distance of W W^T from S^(1/2) - sqrt(g) I, g the best for the last W",
    "unexplained_variance": "Share of the variance of the features outside their first n principal components",
}.items():
    _register(_name, _of)


@statistic("points", measured=True)
def train_r2(run: Run, treated: Run) -> float:
    """R^2 on the train split after the last epoch, mean over targets, in percent."""
    return float(100 * series(run, "r2", layer=NETWORK).get(run.end, math.nan))


@statistic("points", measured=True)
def test_r2(run: Run, treated: Run) -> float:
    """R^2 on the test split after the last epoch, mean over targets, in percent."""
    return float(100 * series(run, "r2", "test", NETWORK).get(run.end, math.nan))


def lambdas(run: Run) -> tuple[float, float]:
    """lambda_H and lambda_W of the closed form: the penalty of the features times the number of rows, and that of W."""
    settings = run.settings
    weight = settings["loss.l2"]
    features = settings.get("loss.l2_features")
    return settings["dataset.samples"] * (weight if features is None else features), weight


def digits(gap: float) -> float:
    """-log10 of a relative gap, at most 12: how many digits agree."""
    return float(-np.log10(max(gap, LEAST))) if math.isfinite(gap) else math.nan


@statistic("digits", measured=True)
def ufm_loss_digits(run: Run, treated: Run) -> float:
    """Digits in which the objective (loss + penalty) after the last epoch agrees with the global minimum in closed
    form, -log10 of their relative difference."""
    _, least, _ = ufm_gram(_covariance(run), *lambdas(run))
    return digits(float(abs(objective(run).get(run.end, math.nan) - least) / least))


@statistic("digits", measured=True)
def ufm_gram_digits(run: Run, treated: Run) -> float:
    """Digits in which W W^T after the last epoch agrees with the closed form, -log10 of |difference|_F over
    sqrt(lambda_H / lambda_W) |S^(1/2)|_F, which W W^T would have without a penalty."""
    s, (l_h, l_w) = _covariance(run), lambdas(run)
    gram, *_ = ufm_gram(s, l_h, l_w)
    gap = np.linalg.norm(matrices(run, "weight_gram")[run.end] - gram) / np.sqrt(l_h / l_w * np.trace(s))
    return digits(float(gap))


@statistic("dimensions", measured=True)
def ufm_rank_gap(run: Run, treated: Run) -> float:
    """Rank of W after the last epoch minus the number of eigenvalues of S above c, without its sign; the rank is the
    number of eigenvalues of W W^T above a millionth of sqrt(lambda_H lambda_1 / lambda_W)."""
    *_, rank = ufm_gram(_covariance(run), *lambdas(run))
    return float(abs(weight_rank(run) - rank))


@statistic("dimensions", measured=True)
def ufm_rank(run: Run, treated: Run) -> float:
    """Rank of W after the last epoch: eigenvalues of W W^T above a millionth of sqrt(lambda_H lambda_1 / lambda_W)."""
    return float(weight_rank(run))


@statistic("digits", measured=True)
def ufm_g_digits(run: Run, treated: Run) -> float:
    """Digits in which the g at which NRC3 is least after the last epoch agrees with c = lambda_H lambda_W, -log10 of
    their relative difference; nan where c is above the least eigenvalue of S."""
    c = math.prod(lambdas(run))
    below = c < np.linalg.eigvalsh(_covariance(run))[0]
    return digits(abs(last_g(run) - c) / c) if below else math.nan


def weight_rank(run: Run, epoch: int | None = None) -> int:
    """See `ufm_rank`; of another epoch than the last, if one is named."""
    l_h, l_w = lambdas(run)
    gram = matrices(run, "weight_gram")[run.end if epoch is None else epoch]
    ratio = l_h / l_w if l_w else run.settings["dataset.samples"]
    cut = RANK_CUT * np.sqrt(ratio * np.linalg.eigvalsh(_covariance(run))[-1])
    return int((np.linalg.eigvalsh(gram) > cut).sum())


def _covariance(run: Run) -> np.ndarray:
    return matrices(run, "target_covariance")[run.end]
