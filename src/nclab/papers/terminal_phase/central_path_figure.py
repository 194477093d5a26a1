"""The squared error in its parts against the epoch (Han, Papyan, Donoho 2022)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nclab.analysis.drawing import THICK, WIDTH, caption, key, legend, seeds_note, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.log_axis import log_ticks
from nclab.analysis.needs import Needs
from nclab.analysis.runs import AnalysisError, Run
from nclab.papers.terminal_phase.variants import DASHED, about, over_seeds, variants_of

CURVES = {  # metric -> label, colour, dash
    "least_squares_nc1": ("L_NC1 (least_squares_nc1)", "#009E73", "-"),
    "least_squares_nc23": ("L_NC2/3 (least_squares_nc23)", "#D55E00", DASHED),
    "central_path_distance": ("L⊥ (central_path_distance)", "#0072B2", "-"),
    "least_squares_loss": ("L_LS (least_squares_loss)", "black", (0, (1, 1))),
}
BOUND = 0.1  # of the claim: L_perp below this share of L_LS


@DRAWINGS.figure(
    "central_path",
    of="trainings with the squared error: least-squares part and deviation from the central path",
    caption="The regularised squared error of the last layer in its parts, L = L_LS + L⊥ and L_LS = L_NC1 + L_NC2/3: "
    "L_LS is the loss of the least-squares classifier of the features of that epoch, L⊥ what the trained classifier "
    "adds. Right: L⊥ / L_LS, with the tenth that the claim allows. The dotted line is the start of the terminal phase.",
    needs=Needs("classifiers that measure the suite central_path", suites=frozenset({"central_path"})),
)
def central_path_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Two panels; the table has variant, metric, epoch, mean, std, low, high, n; the metric `ratio` is L_perp / L_LS of
    each run, over seeds."""
    variants = variants_of(runs)
    if len(variants) > 1:
        raise AnalysisError(f"central_path draws one kind of training, got {', '.join(v.label for v in variants)}")
    (variant,) = variants
    found = [variant.over_seeds(metric).assign(metric=metric) for metric in CURVES]
    own = [run.metrics.query("split == 'train'").pivot_table(index="epoch", columns="metric", values="value",
           observed=True) for run in variant.runs]  # fmt: skip
    ratios = [t.central_path_distance / t.least_squares_loss for t in own]
    found.append(over_seeds(ratios).assign(metric="ratio"))
    table = pd.concat(found, ignore_index=True).assign(variant=variant.label)
    with style():
        return _draw(table, variant), table


def _draw(table: pd.DataFrame, variant) -> Figure:
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    for metric, (_, colour, dash) in CURVES.items():
        _curve(left, table[table.metric == metric], colour, dash)
    _curve(right, table[table.metric == "ratio"], "#0072B2", "-")
    right.axhline(BOUND, color="0.35", lw=0.9, ls=DASHED)
    right.annotate("1/10", (0.99, BOUND), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7)
    left.set_title("Parts of the regularised squared error")
    right.set_title("Deviation from the central path, L⊥ / L_LS")
    for axes in (left, right):
        axes.set_yscale("log")
        log_ticks(axes.yaxis)
        axes.set_xlim(0, table.epoch.max())
        axes.set_xlabel("epoch")
        axes.set_xticks(np.linspace(0, table.epoch.max(), 4).round())  # the axis ends at a tick
        for epoch in {pick(p.start for p in variant.phases) for pick in (min, max) if variant.phases}:
            axes.axvline(epoch, color="0.35", lw=0.7, ls=":", zorder=1)
    seeds = seeds_note([len(variant.runs)])
    caption(figure, f"{about([variant])}; {variant.label}; {seeds}", variant.start)
    legend(figure, [key(label, color=colour, ls=dash) for label, colour, dash in CURVES.values()], most=2)
    return figure


def _curve(axes, rows: pd.DataFrame, colour: str, dash) -> None:
    rows = rows[rows.epoch > 0]
    axes.plot(rows.epoch, rows["mean"], color=colour, ls=dash, lw=THICK, zorder=3)
    axes.fill_between(rows.epoch, np.maximum(rows.low, 0), rows.high, color=colour, alpha=0.16, lw=0, zorder=2)
