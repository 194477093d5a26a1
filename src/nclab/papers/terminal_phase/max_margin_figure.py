"""The last layer alone: how its direction goes to the max-margin solution (Soudry et al. 2018)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nclab.analysis.drawing import THICK, WIDTH, caption, key, legend, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.log_axis import log_ticks
from nclab.analysis.needs import Needs
from nclab.analysis.runs import AnalysisError, Run
from nclab.papers.terminal_phase.numbers import EARLY
from nclab.papers.terminal_phase.variants import DASHED, about, variants_of

PANELS = {
    "max_margin_distance": "Distance to the max-margin direction\n(max_margin_distance)",
    "margin_gap": "Margin that is lacking\n(1 − margin_share)",
    "nc3": "NC3: self-duality\n(nc3)",
}


@DRAWINGS.figure(
    "max_margin",
    of="a linear classifier on fixed features: its direction against the max-margin solution",
    caption="A classifier trained by gradient descent on cross-entropy, on fixed features. Left: distance of its "
    "direction to that of the multi-class max-margin solution V, and the dashed line c / log t through the last point. "
    "Middle: how much of the largest possible margin is lacking. Right: self-duality (nc3), which goes to 0 where the "
    "features are a simplex ETF, whose max-margin classifier is the ETF itself.",
    needs=Needs("linear classifiers that measure the suite max_margin", suites=frozenset({"max_margin"})),
)
def max_margin_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Three panels against the step t, both axes logarithmic; the table has metric, epoch, mean, std, low, high, n."""
    variants = variants_of(runs)
    if len(variants) > 1:
        raise AnalysisError(f"max_margin draws one kind of training, got {', '.join(v.label for v in variants)}")
    (variant,) = variants
    found = [variant.over_seeds(metric).assign(metric=metric) for metric in ("max_margin_distance", "nc3")]
    gap = variant.over_seeds("margin_share")
    gap = gap.assign(mean=1 - gap["mean"], low=1 - gap.high, high=1 - gap.low, metric="margin_gap")
    table = pd.concat([*found, gap], ignore_index=True)
    with style():
        return _draw(table, variant), table


def _draw(table: pd.DataFrame, variant) -> Figure:
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    for axes, (metric, title) in zip(figure.subplots(1, 3), PANELS.items(), strict=True):
        rows = table[(table.metric == metric) & (table.epoch > 0)]
        axes.plot(rows.epoch, rows["mean"], color="#0072B2", lw=THICK, zorder=3)
        axes.fill_between(rows.epoch, np.maximum(rows.low, 1e-12), rows.high, color="#0072B2", alpha=0.16, lw=0)
        if metric == "max_margin_distance":
            last = rows.iloc[-1]
            t = rows.epoch[rows.epoch >= EARLY * last.epoch]
            axes.plot(t, last["mean"] * np.log(last.epoch) / np.log(t), color="0.35", ls=DASHED, lw=0.9, zorder=2)
        axes.set_title(title, fontsize=7.5)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("step t of gradient descent")
        log_ticks(axes.yaxis)
    seeds = f"mean of {len(variant.runs)} initial weights, band from least to greatest"
    caption(figure, f"{about([variant])}; features fixed, full-batch gradient descent", seeds)
    legend(figure, [key("gradient descent", color="#0072B2"), key("c / log t", ls=DASHED, lw=0.9)])
    return figure
