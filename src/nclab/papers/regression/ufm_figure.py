"""Unconstrained features of a regression against their closed form."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nclab.analysis.drawing import THICK, WIDTH, caption, key, legend, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.last_layer import objective
from nclab.analysis.log_axis import log_ticks
from nclab.analysis.needs import Needs
from nclab.analysis.runs import Run
from nclab.papers.regression.g_figure import g_rows
from nclab.papers.regression.numbers import ROUNDING, curve, lambdas, matrices
from nclab.papers.regression.panels import band, band_note, epochs, keys
from nclab.papers.regression.variants import Variant, variants_of
from nclab.theory.regression import ufm_gram

TITLES = {
    "nrc1": "NRC1",
    "nrc2": "NRC2",
    "nrc3": "NRC3",
    "gap": "Objective − closed form",
}
FEATURES = Needs(
    "unconstrained features that measure the suite regression_collapse",
    models=frozenset({"unconstrained"}),
    accuracy=False,
    suites=frozenset({"regression_collapse"}),
)


@DRAWINGS.figure(
    "regression_ufm",
    of="unconstrained features with values as targets: descent against the closed form",
    caption="Unconstrained features of a regression, gradient descent from random starts in float64, one colour a "
    "penalty: NRC1 to NRC3 (floor: 1e-16, rounding), the objective minus its closed-form minimum, and the eigenvalues "
    "of W Wᵀ after training (markers) against sqrt(λ_k) − sqrt(c), the closed form (lines), where c is the product of "
    "the penalties and λ_k are the eigenvalues of the targets' covariance: beyond sqrt(λ_k) a direction is given up. "
    "Last panel: NRC3 of the last W against g, where c (dotted) is below all λ_k.",
    needs=FEATURES,
)
def ufm_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Five panels; the table has variant, metric (nrc1, nrc2, nrc3, gap, eigenvalue_k, closed_form_k), epoch, mean,
    low, high, n, and root_c."""
    variants = variants_of(runs)
    table = pd.concat([_rows(variant) for variant in variants], ignore_index=True)
    with style():
        return _draw(table, variants), table


def _rows(variant: Variant) -> pd.DataFrame:
    run = variant.runs[0]
    l_h, l_w = lambdas(run)
    found = [variant.over_seeds(lambda r, n=name: curve(r, n)).assign(metric=name) for name in ("nrc1", "nrc2", "nrc3")]
    s = matrices(run, "target_covariance")[run.end]
    if variant.decay:
        _, least, _ = ufm_gram(s, l_h, l_w)
        gap = variant.over_seeds(lambda r: (objective(r) - least).abs().clip(lower=ROUNDING))
        found.append(gap.assign(metric="gap"))
        for k, root in enumerate(np.sqrt(np.linalg.eigvalsh(s)[::-1])):
            values = variant.over_seeds(lambda r, i=k: _eigenvalue(r, i, (l_w / l_h) ** 0.5))
            found.append(values.tail(1).assign(metric=f"eigenvalue_{k + 1}"))
            form = max(root - (l_h * l_w) ** 0.5, 0.0)
            closed = {"epoch": run.end, "mean": form, "metric": f"closed_form_{k + 1}"}
            found.append(pd.DataFrame([closed | {"variant": variant.label}]))
    columns = ["variant", "metric", "epoch", "mean", "low", "high", "n", "root_c"]
    return pd.concat(found, ignore_index=True).assign(root_c=(l_h * l_w) ** 0.5)[columns]


def _eigenvalue(run: Run, k: int, scale: float) -> pd.Series:
    grams = matrices(run, "weight_gram")
    return pd.Series({epoch: scale * np.linalg.eigvalsh(gram)[::-1][k] for epoch, gram in grams.items()})


def _draw(table: pd.DataFrame, variants: list[Variant]) -> Figure:
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    grid = figure.subplots(2, 3)
    for axes, (metric, title) in zip(grid.flat, TITLES.items(), strict=False):
        axes.set_title(title)
        axes.set_yscale("log")
        for variant in variants:
            band(axes, table[(table.variant == variant.label) & (table.metric == metric)], variant.look)
        epochs(axes, int(table.epoch.max()), "step")
        log_ticks(axes.yaxis)
    _eigenvalues(grid.flat[4], table, variants)
    _against_g(grid.flat[5], variants)
    run = variants[0].runs[0]
    sizes = f"{run.settings['dataset.samples']} samples, features of {run.settings['model.dim']}"
    n = len(run.settings["dataset.spectrum"])
    caption(figure, f"Unconstrained features, {n} targets, {sizes}; {band_note(variants)}")
    kinds = [key("trained", ls="", marker="o", ms=4, mfc="white"), key("closed form", color="0.35", lw=0.9)]
    roots = {v.label: table[table.variant == v.label].root_c.iloc[0] for v in variants}
    named = keys(variants)
    for entry in named:
        entry.set_label(f"sqrt(c) = {roots[entry.get_label()]:g}")
    legend(figure, [*named, *kinds], most=4)
    return figure


def _eigenvalues(axes: Axes, table: pd.DataFrame, variants: list[Variant]) -> None:
    s = matrices(variants[0].runs[0], "target_covariance")[0]
    most = 1.15 * max(table.root_c.max(), 1e-3)
    for k, root in enumerate(np.sqrt(np.linalg.eigvalsh(s)[::-1])):
        axes.plot([0, root, most], [root, 0, 0], color="0.35", lw=0.9, zorder=2)
        for variant in variants:
            rows = table[(table.variant == variant.label) & (table.metric == f"eigenvalue_{k + 1}")]
            axes.plot(
                rows.root_c, rows["mean"], ls="", marker="o", ms=4, mfc="white", color=variant.look["color"], zorder=3
            )
    axes.set_title("Eigenvalues of W Wᵀ, scaled")
    axes.set_xlim(0, most)
    axes.set_ylim(bottom=-0.03)
    axes.set_xlabel("sqrt(c)")


def _against_g(axes: Axes, variants: list[Variant]) -> None:
    """NRC3 of the last W against g, of the penalties whose c is below all eigenvalues of S."""
    for variant in variants:
        rows, c = g_rows(variant), math.prod(lambdas(variant.runs[0]))
        if 0 < c < rows.g.max():
            look = variant.look
            axes.plot(rows.g, rows["mean"].clip(lower=ROUNDING), color=look["color"], ls=look["ls"], lw=THICK)
            axes.axvline(c, color=look["color"], lw=0.7, ls=":")
    axes.set_title("NRC3 of the last W")
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    log_ticks(axes.yaxis)
    axes.set_xlabel("g (dotted: c)")
