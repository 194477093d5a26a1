"""NRC1 to NRC3, R^2 and the squared error against the epoch or step, a curve a weight decay."""

import pandas as pd
from matplotlib.figure import Figure

from nclab.analysis.curves import NETWORK
from nclab.analysis.drawing import WIDTH, caption, key, legend, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.last_layer import series
from nclab.analysis.log_axis import log_ticks
from nclab.analysis.runs import Run
from nclab.papers.regression.numbers import CURVES, curve
from nclab.papers.regression.panels import MEASURED, band, band_note, epochs, keys
from nclab.papers.regression.variants import Variant, about, variants_of

TITLES = {
    "nrc1": "NRC1: features off their first\nn principal components",
    "nrc2": "NRC2: features off the\nrow space of W",
    "nrc3": "NRC3: W Wᵀ off\nS^(1/2) − g^(1/2) I",
    "unexplained_variance": "Share of the variance off the\nfirst n components",
    "mse": "Mean squared error\ntrain, test",
    "r2_error": "1 − R²\ntrain, test",
}
TEST = (0, (1.2, 1.2))


@DRAWINGS.figure(
    "regression_curves",
    of="networks trained on values: regression collapse against the epoch or step, by weight decay",
    caption="Regression collapse against the epoch, or the step of full batches, one colour a weight decay λ: NRC1 "
    "(nrc1) and NRC2 (nrc2) of the features h/|h| of the head's input, NRC3 at the g that is best for the last W, the "
    "share of the variance of the features outside their first n principal components, the mean squared error and "
    "1 − R² (dotted: test split). A curve ends where the first seed has no number: features that do not vary have "
    "none.",
    needs=MEASURED,
)
def curve_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Six panels; the table has variant, metric, split, epoch, step, mean, std, low, high, n. nrc3 is left out
    where it is not defined, of one target."""
    variants = variants_of(runs)
    table = pd.concat([_rows(variant) for variant in variants], ignore_index=True)
    with style():
        return _draw(table, variants), table


def _rows(variant: Variant) -> pd.DataFrame:
    found = [
        variant.over_seeds(lambda run, n=name: curve(run, n)).assign(metric=name, split="train") for name in CURVES
    ]
    for split in ("train", "test"):
        if not (variant.runs[0].metrics.split == split).any():
            continue
        of = {
            "mse": lambda run, s=split: series(run, "mse", s, NETWORK),
            "r2_error": lambda run, s=split: 1 - series(run, "r2", s, NETWORK),
        }
        found += [variant.over_seeds(values).assign(metric=name, split=split) for name, values in of.items()]
    table = pd.concat(found, ignore_index=True).dropna(subset="mean")
    table = table.assign(step=table.epoch * variant.steps)
    return table[["variant", "metric", "split", "epoch", "step", "mean", "std", "low", "high", "n"]]


def _draw(table: pd.DataFrame, variants: list[Variant]) -> Figure:
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    for axes, (metric, title) in zip(figure.subplots(2, 3).flat, TITLES.items(), strict=True):
        axes.set_title(title, fontsize=7.5)
        epochs(axes, int(table.step.max()), "step" if (table.step > table.epoch).any() else "epoch")
        rows = table[table.metric == metric]
        if rows.empty:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "not defined:\none target", ha="center", va="center", transform=axes.transAxes)
            continue
        axes.set_yscale("log")
        for variant in variants:
            own = rows[rows.variant == variant.label]
            band(axes, own[own.split == "train"], variant.look, "step")
            band(axes, own[own.split == "test"], variant.look, "step", ls=TEST, lw=0.9)
        if metric in ("mse", "r2_error"):
            later = rows[(rows.epoch > 0) & (rows["mean"] > 0)]
            axes.set_ylim(later["mean"].min() / 2, later["mean"].max() * 2)  # untrained networks are far above
        log_ticks(axes.yaxis)
    caption(figure, f"{about(variants)}; {band_note(variants)}")
    tested = [key("test split", ls=TEST, lw=0.9)] if (table.split == "test").any() else []
    legend(figure, keys(variants) + tested, most=5)
    return figure
