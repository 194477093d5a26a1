"""NRC3 of the last W against the constant g."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nclab.analysis.drawing import THICK, WIDTH, caption, legend, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.log_axis import log_ticks
from nclab.analysis.runs import AnalysisError, Run
from nclab.papers.regression.numbers import last_g, matrices
from nclab.papers.regression.panels import MEASURED, band_note, keys
from nclab.papers.regression.variants import Variant, about, variants_of
from nclab.theory.regression import nrc3

POINTS = 200  # values of g; the paper's grid has 1,000


@DRAWINGS.figure(
    "regression_g",
    of="networks trained on values: NRC3 of the last W against the constant g",
    caption="NRC3 of the last W against the constant g in (0, λ_min), λ_min the least eigenvalue of the covariance S "
    "of the targets; one colour a weight decay. The marker is the best g in closed form. With unconstrained features g "
    "is the product of the two penalties.",
    needs=MEASURED,
)
def g_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """The table has variant, g, mean, low, high over seeds, and best_g, the mean of the best g."""
    variants = variants_of(runs)
    table = pd.concat([g_rows(variant) for variant in variants], ignore_index=True)
    with style():
        return _draw(table, variants), table


def g_rows(variant: Variant) -> pd.DataFrame:
    """variant, g, mean, low, high, best_g of the last W of these runs. Raises AnalysisError of one target."""
    curves, best = [], []
    for run in variant.runs:
        gram, s = (matrices(run, name)[run.end] for name in ("weight_gram", "target_covariance"))
        if len(s) == 1:
            raise AnalysisError("NRC3 is not defined of one target: expected runs of two or more")
        grid = np.linspace(0, np.linalg.eigvalsh(s)[0], POINTS, endpoint=False)
        curves.append([nrc3(gram, s, g) for g in grid])
        best.append(last_g(run))
    values = np.array(curves)
    numbers = {"g": grid, "mean": values.mean(0), "low": values.min(0), "high": values.max(0)}
    return pd.DataFrame(numbers).assign(variant=variant.label, best_g=np.mean(best))


def _draw(table: pd.DataFrame, variants: list[Variant]) -> Figure:
    figure = Figure(figsize=(0.62 * WIDTH, 2.9), layout="constrained")
    axes = figure.subplots()
    for variant in variants:
        rows, look = table[table.variant == variant.label], variant.look
        axes.plot(rows.g, rows["mean"], color=look["color"], ls=look["ls"], lw=THICK, zorder=3)
        axes.fill_between(rows.g, rows.low, rows.high, color=look["color"], alpha=0.16, lw=0)
        best = rows.best_g.iloc[0]
        at = np.interp(best, rows.g, rows["mean"])
        axes.plot(best, at, color=look["color"], marker=look["marker"], ms=5, mfc="white", zorder=4, clip_on=False)
    axes.set_yscale("log")
    axes.set_xlim(0, float(table.g.max()) * POINTS / (POINTS - 1))
    log_ticks(axes.yaxis)
    axes.set_xlabel("g, up to λ_min of the targets' covariance")
    axes.set_ylabel("NRC3 of the last W")
    caption(figure, about(variants), f"{band_note(variants)}; marker: best g")
    legend(figure, keys(variants, marker=True), most=3)
    return figure
