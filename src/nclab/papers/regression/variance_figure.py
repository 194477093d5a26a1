"""The variance of the features along their first principal components, after training."""

import pandas as pd
from matplotlib.figure import Figure

from nclab.analysis.drawing import WIDTH, caption, legend, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.last_layer import series
from nclab.analysis.log_axis import log_ticks
from nclab.analysis.runs import Run
from nclab.papers.regression.numbers import ROUNDING, matrices
from nclab.papers.regression.panels import MEASURED, keys
from nclab.papers.regression.variants import Variant, about, variants_of

COMPONENTS = 5


@DRAWINGS.figure(
    "regression_variance",
    of="networks trained on values: the variance of the features along their principal components",
    caption="Share of the variance of the head's input along its first five principal components, before and after "
    "training, by weight decay. At collapse the first n shares, n targets, add up to 1.",
    needs=MEASURED,
)
def variance_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Two panels; the table has variant, when (untrained, last), component, mean, low, high."""
    variants = variants_of(runs)
    table = pd.concat([_rows(variant) for variant in variants], ignore_index=True)
    with style():
        return _draw(table, variants), table


def _rows(variant: Variant) -> pd.DataFrame:
    found = []
    for i in range(1, COMPONENTS + 1):
        shares = [series(run, f"explained_variance_{i}").clip(lower=ROUNDING) for run in variant.runs]
        for when, at in (("untrained", 0), ("last", None)):
            epochs = [run.end if at is None else at for run in variant.runs]
            values = pd.Series([own.loc[epoch] for own, epoch in zip(shares, epochs, strict=True)])
            numbers = {"mean": values.mean(), "low": values.min(), "high": values.max()}
            found.append({"variant": variant.label, "when": when, "component": i} | numbers)
    return pd.DataFrame(found)


def _draw(table: pd.DataFrame, variants: list[Variant]) -> Figure:
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    n = len(matrices(variants[0].runs[0], "target_covariance")[0])
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (when, title) in zip(panels, (("untrained", "Before training"), ("last", "After training")), strict=True):
        for k, variant in enumerate(variants):
            rows = table[(table.variant == variant.label) & (table.when == when)]
            x = rows.component + 0.06 * (k - (len(variants) - 1) / 2)
            spread = [rows["mean"] - rows.low, rows.high - rows["mean"]]
            axes.errorbar(x, rows["mean"], yerr=spread, **variant.look, lw=1.0, ms=4, mfc="white", elinewidth=0.8)
        axes.axvline(n + 0.5, color="0.35", lw=0.7, ls=":")
        axes.set_title(title)
        axes.set_xticks(range(1, COMPONENTS + 1))
        axes.set_xlabel(f"principal component (dotted line: n = {n} targets)")
        axes.set_yscale("log")
    log_ticks(panels[0].yaxis)
    panels[0].set_ylabel("share of the variance")
    caption(figure, f"{about(variants)}; {_seeds(variants)}")
    legend(figure, keys(variants, marker=True), most=5)
    return figure


def _seeds(variants: list[Variant]) -> str:
    counts = sorted({len(v.runs) for v in variants})
    return "one seed" if counts == [1] else f"mean of {counts[-1]} seeds, bars from least to greatest"
