"""The numbers that claims are about: each a function of one finished run, with its unit.

A statistic is called as value(run, treated). `treated` is the run of the same pair whose layers were fixed (the run
itself where nothing is paired): 'the layers before the ETFs' are those of the treated run, also in its baseline.
It returns nan where the run has no such number; the seed then does not count and the verdict says so.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd

from nclab.analysis.last_layer import at_end, before_end, classifier_input, objective
from nclab.analysis.runs import AnalysisError, Run, flatten

Value = Callable[[Run, Run], float]


@dataclass(frozen=True)
class Statistic:
    """A named number of a run. `unit` is that of differences, margins and thresholds.

    `split` is given where the number is an accuracy on that split in percent, hence a count of its images. `by_errors`
    says that a claim without a margin takes that of `margins`, a share of the baseline's errors. `measured` says that
    it comes from the measurements while training, so that `metrics.*` belongs to its setting; `positive`, that it is a
    positive number, of which there is a logarithm to draw a slope through. `full` tells whether a run without this
    number lacks it because there is no room left.
    """

    name: str
    unit: str
    value: Value
    split: str | None = None
    by_errors: bool = False
    measured: bool = False
    positive: bool = False
    full: Callable[[Run], bool] | None = None

    @property
    def description(self) -> str:
        """First paragraph of the function's docstring, on one line."""
        return " ".join((self.value.__doc__ or "").split("\n\n")[0].split())


STATISTICS: dict[str, Statistic] = {}
ROOM = 1.0  # points below 100 from which on there is room to rise
MOST_IMAGES = 10**6


def statistic(unit: str, **more) -> Callable[[Value], Value]:
    """Register a function as a statistic under its own name; `more` are further fields of Statistic.

    A wing's or a package's own are found like its drawings (`nclab.analysis.found`). Raises ValueError for a name taken
    twice.
    """

    def add(value: Value) -> Value:
        if value.__name__ in STATISTICS:
            raise ValueError(f"statistic '{value.__name__}' is registered twice")
        STATISTICS[value.__name__] = Statistic(value.__name__, unit, value, **more)
        return value

    return add


def images(runs: Iterable[Run], split: str) -> int | None:
    """Least number of images on which every accuracy of the split in summary.json can have arisen; None if unknown.

    A run folder says how many images a split has only where the configuration cut it (dataset.test_size). Else the
    accuracies, which are fractions k / N in full precision, are asked for their least common denominator. It divides
    N, so that resolution is never overrated. Accuracy 1.0 reveals no denominator.
    """
    common = 1
    for run in runs:
        if isinstance(size := run.settings.get(f"dataset.{split}_size"), int):
            return size
        for key, value in _summary(run).items():
            if key.startswith(f"final.{split}.") and "accuracy" in key and isinstance(value, float):
                if not math.isfinite(value):
                    continue
                share = Fraction(value).limit_denominator(MOST_IMAGES)
                if abs(share - Fraction(value)) > 1e-14:
                    return None  # no count of so few images
                common = math.lcm(common, share.denominator)
    return common if 1 < common <= MOST_IMAGES else None


@statistic("points", split="test", by_errors=True)
def test_accuracy(run: Run, treated: Run) -> float:
    """Accuracy on the test split after the last epoch, in percent."""
    return _percent(run.result("final.test.accuracy"))


@statistic("points", split="train", by_errors=True)
def train_accuracy(run: Run, treated: Run) -> float:
    """Accuracy on the train split after the last epoch, in percent, in evaluation mode."""
    return _percent(run.result("final.train.accuracy"))


@statistic("%")
def saved_share(run: Run, treated: Run) -> float:
    """Share of all parameters that are not learnable at the end, 100 (1 - learnable / total), in percent.

    total counts the parameters of the same network before any layer was fixed, as in the summary tables.
    """
    return 100.0 * (1.0 - run.result("parameters_learnable") / run.result("parameters_total"))


@statistic("points", measured=True)
def ncc_drop(run: Run, treated: Run) -> float:
    """Largest fall of the train NCC accuracy after the last epoch, from any stage to any later one; 0 where it never
    falls. Stages are all layers of an MLP and the blocks of a transformer, without its head.

    A fall in points and no rank correlation: near the ceiling ranks are chance (97, 100, 100, 100, 100 does not fall,
    its rho is 0.71), and of two or three blocks a correlation takes only two or four values.
    """
    ncc = _final_ncc(run)
    return float(np.max(np.maximum.accumulate(ncc) - ncc, initial=0.0)) if np.isfinite(ncc).all() else math.nan


def starts_at_the_top(run: Run) -> bool:
    """Whether the train NCC accuracy of the first stage is within ROOM of 100 after the last epoch."""
    first = _final_ncc(run)[:1]
    return bool(len(first) and first[0] >= 100.0 - ROOM)


@statistic("points", measured=True, full=starts_at_the_top)
def ncc_rise(run: Run, treated: Run) -> float:
    """Train NCC accuracy after the last epoch of the last stage minus that of the first; left out where the first is
    within 1 point of 100, which leaves no room to rise. Stages as for ncc_drop.
    """
    ncc = _final_ncc(run)
    known = len(ncc) and np.isfinite(ncc).all() and not starts_at_the_top(run)
    return float(ncc[-1] - ncc[0]) if known else math.nan


@statistic("layers", measured=True)
def layers_beyond_effective_depth(run: Run, treated: Run) -> float:
    """Stages after the effective depth: depth - effective depth, and 0 where there is no effective depth.

    A network no stage of which separates its train split has no effective depth, hence no layer beyond it; nan would
    leave exactly the runs out that speak against the claim. A run with metrics.every=0 was not measured: nan.
    """
    if run.settings.get("metrics.every") == 0:
        return math.nan
    depth = run.result("final.effective_depth")
    return 0.0 if depth is None else float(len(run.stages) - depth)


@statistic("points", split="train", measured=True)
def ncc_before_etf(run: Run, treated: Run) -> float:
    """Train NCC accuracy, in percent after the last epoch, of the last learnable stage before the ETFs."""
    layers = layers_before_etf(treated)[-1:]
    return _mean(train_ncc(run, layers).reindex([run.end]))


@statistic("points", split="train", measured=True)
def early_ncc(run: Run, treated: Run) -> float:
    """Train NCC accuracy in percent, mean over the first quarter of training and the stages before the ETFs.

    The mean over the measured epochs e with 1 <= e <= epochs / 4 is the area under the curve by unit of time. Epoch 0
    is left out: what an untrained network separates says nothing about the speed of training.
    """
    ncc = train_ncc(run, layers_before_etf(treated))
    return _mean(ncc[(ncc.index >= 1) & (ncc.index <= run.end / 4)])


@statistic("ratio", measured=True, positive=True)
def nc1_trace_ratio_last(run: Run, treated: Run) -> float:
    """NC1 (nc1_trace_ratio) of the classifier's input, tr(within-class covariance) / tr(between-class covariance), on
    the train split after the last epoch.

    The trace ratio, and not the pseudo-inverse form: it has no cut and is finite for every network of rank 1 or more.
    """
    return _last(run, "nc1_trace_ratio")


@statistic("distance", measured=True, positive=True)
def nc2_weight_gram_last(run: Run, treated: Run) -> float:
    """NC2 (nc2_weight_gram) of the classifier's weights W after the last epoch, their distance to a simplex ETF,
    || WW^T / ||WW^T|| - (I - 11^T/C) / sqrt(C-1) ||.
    """
    return _last(run, "nc2_weight_gram")


@statistic("distance", measured=True, positive=True)
def nc2_weight_orthogonal_last(run: Run, treated: Run) -> float:
    """NC2 (nc2_weight_orthogonal) of the classifier's weights W after the last epoch, their distance to an orthogonal
    frame, || WW^T / ||WW^T|| - I / sqrt(C) ||.
    """
    return _last(run, "nc2_weight_orthogonal")


@statistic("cosine", measured=True, positive=True)
def nc3_cosine_last(run: Run, treated: Run) -> float:
    """NC3 (nc3_cosine) of the classifier's input after the last epoch, 1 minus the mean over train samples of the
    cosine between a feature and its class's row of W.
    """
    return _last(run, "nc3_cosine")


@statistic("distance", measured=True)
def nc2_weight_gram_minus_orthogonal(run: Run, treated: Run) -> float:
    """Distance of the classifier's weights to a simplex ETF minus their distance to an orthogonal frame after the last
    epoch; negative where the ETF is nearer.

    Both are distances of WW^T / ||WW^T|| (see nc2_weight_gram_last, nc2_weight_orthogonal_last) and hence between 0 and
    2. The two targets themselves are sqrt(2 - 2 sqrt((C-1)/C)) apart, 0.32 for 10 classes: that is the range of this
    number.
    """
    return _last(run, "nc2_weight_gram") - _last(run, "nc2_weight_orthogonal")


@statistic("%", measured=True)
def objective_change(run: Run, treated: Run) -> float:
    """Change of the objective J (loss on the train split + L2 penalty) over the last tenth of training, without its
    sign, 100 |J(a) - J(E)| / J(E), in percent; E is the last epoch, a the last measured one up to 9/10 of E.

    Without its sign: an objective that rises has not come to rest either. Where nothing was measured near 9/10 of E the
    stretch is longer than a tenth. nan where one of the two was not measured, and where J(E) is 0.
    """
    j, a, end = objective(run), before_end(run), run.end
    if a is None or not j.get(end, math.nan) > 0:
        return math.nan
    return float(100.0 * abs(j[a] - j[end]) / j[end])


def layers_before_etf(run: Run) -> list[str]:
    """Stages before the first one with a fixed layer, input to output; none where nothing was fixed."""
    fixed = {site for site, _ in run.switches}
    stages = [layer for layer in run.layers if layer["stage"] is not None]
    first = next((i for i, layer in enumerate(stages) if fixed & set(layer["stage"])), 0)
    return [layer["layer"] for layer in stages[:first]]


def _last(run: Run, metric: str) -> float:
    """A metric of the classifier's input, train split, last epoch; nan where it was not measured."""
    return float(at_end(run).get((classifier_input(run), metric), math.nan))


def _final_ncc(run: Run) -> np.ndarray:
    """Train NCC accuracy in percent after the last epoch: every layer of an MLP, every block of a transformer.

    The head of a transformer is left out: what it separates is the class token after all blocks, linearly mapped.
    """
    roles = {layer["layer"]: layer["role"] for layer in run.layers}
    blocks = [stage for stage in run.stages if roles[stage] != "classifier"]
    stages = blocks if "block" in roles.values() else run.stages
    return train_ncc(run, stages).reindex([run.end]).iloc[0].to_numpy()


def train_ncc(run: Run, layers: list[str]) -> pd.DataFrame:
    """Train NCC accuracy in percent: a row an epoch, a column a layer; nan where it was not measured."""
    rows = run.metrics
    rows = rows[(rows.split == "train") & (rows.metric == "ncc_accuracy") & rows.layer.isin(layers)]
    table = rows.astype({"layer": str}).pivot(index="epoch", columns="layer", values="value")
    return 100.0 * table.reindex(columns=layers)


def _summary(run: Run) -> dict:
    try:
        return flatten(run.summary)
    except AnalysisError:  # the number itself may come from another file
        return {}


def _mean(table: pd.DataFrame) -> float:
    return float(table.to_numpy().mean()) if table.size else math.nan


def _percent(share: float | None) -> float:
    if not isinstance(share, int | float | None):
        raise AnalysisError(f"expected an accuracy, got {share}")
    return math.nan if share is None else 100.0 * share
