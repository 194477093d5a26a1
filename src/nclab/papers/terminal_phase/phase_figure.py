"""NC1 to NC4, loss and accuracy against the epoch, with the start of the terminal phase (Papyan, Han, Donoho 2020)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nclab.analysis.curves import NETWORK
from nclab.analysis.drawing import THICK, WIDTH, caption, key, legend, seeds_note, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.log_axis import log_ticks
from nclab.analysis.needs import Needs
from nclab.analysis.runs import Run
from nclab.papers.terminal_phase.variants import DASHED, LOOKS, Variant, about, variants_of

TRAINED = Needs("classifiers that measure the suites collapse and angles", suites=frozenset({"collapse", "angles"}))
# Title, and (metric, split, layer) of its curves: solid, then dashed.
PANELS = [
    ("NC1: variability within classes\n(nc1)", [("nc1", "train", None)]),
    ("NC2: equinorm\nstd / mean of norms", [("nc2_equinorm", "train", None), ("nc2_weight_equinorm", "train", None)]),
    ("NC2: equiangular\nstd of cosines", [("nc2_cosine_std", "train", None), ("nc2_weight_cosine_std", "train", None)]),
    (
        "NC2: maximal angle\nmean |cos + 1/(C−1)|",
        [("nc2_equiangular", "train", None), ("nc2_weight_equiangular", "train", None)],
    ),
    ("NC3: self-duality\n(nc3)", [("nc3", "train", None)]),
    ("NC4: decisions differ\n(nc4_mismatch)", [("nc4_mismatch", "train", None)]),
    ("Loss\ntrain", [("loss", "train", NETWORK)]),
    ("Error, 1 − accuracy\ntrain, test", [("accuracy", "train", NETWORK), ("accuracy", "test", NETWORK)]),
]
ERROR = len(PANELS) - 1
LEAST_ERROR = 1e-4  # where a share that may be 0 ends on its log axis
SHARES = ("nc4_mismatch", "accuracy")


@DRAWINGS.figure(
    "terminal_phase",
    of="trainings past zero train error: collapse against the epoch",
    caption="Collapse of the last layer against the epoch: NC1 (nc1), NC2 (nc2_equinorm, nc2_cosine_std, "
    "nc2_equiangular of the class means, and with nc2_weight_ of the classifier's rows), NC3 (nc3), NC4 "
    "(nc4_mismatch), train loss and error. The vertical line is the first measured epoch of 100 % train accuracy, the "
    "start of the terminal phase of training (TPT); bands are one standard deviation over seeds.",
    says=lambda table: ends(table),
    needs=TRAINED,
)
def phase_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Eight panels; returns the picture and its table: variant, metric, split, epoch, mean, std, low, high, n, and
    tpt_first, tpt_last, the epochs at which the terminal phase begins over seeds."""
    variants = variants_of(runs)
    table = pd.concat([_rows(variant) for variant in variants], ignore_index=True)
    with style():
        return _draw(table, variants), table


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """For a terminal: every metric of the train split at the start of the phase and at the end."""
    rows = []
    for variant, part in table.groupby("variant", sort=False):
        first = part.tpt_first.iloc[0]
        cells = {"variant": variant, "TPT from": "-" if pd.isna(first) else f"{first:.0f}"}
        for (metric, split), curve in part.groupby(["metric", "split"], sort=False):
            values = curve.set_index("epoch")["mean"]
            start = values.get(first, np.nan)
            cells[f"{split} {metric}" if metric == "accuracy" else metric] = f"{start:.3g} to {values.iloc[-1]:.3g}"
        rows.append(cells)
    return pd.DataFrame(rows)


def _rows(variant: Variant) -> pd.DataFrame:
    starts = [phase.start for phase in variant.phases] or [np.nan]
    found = []
    for _, curves in PANELS:
        for metric, split, layer in curves:
            rows = variant.over_seeds(metric, split, layer)
            place = {"variant": variant.label, "metric": metric, "split": split}
            found.append(rows.assign(**place, tpt_first=min(starts), tpt_last=max(starts)))
    table = pd.concat(found, ignore_index=True)
    return table[["variant", "metric", "split", "epoch", "mean", "std", "low", "high", "n", "tpt_first", "tpt_last"]]


def _draw(table: pd.DataFrame, variants: list[Variant]) -> Figure:
    figure = Figure(figsize=(WIDTH, 4.3 + 0.13 * len(variants)), layout="constrained")
    grid = figure.subplots(2, 4, sharex=True)
    for i, (axes, (title, curves)) in enumerate(zip(grid.flat, PANELS, strict=True)):
        axes.set_title(title, fontsize=7.5)
        axes.set_yscale("log")
        for variant, look in zip(variants, LOOKS, strict=False):
            for j, (metric, split, _) in enumerate(curves):
                part = table[(table.variant == variant.label) & (table.metric == metric) & (table.split == split)]
                _curve(axes, part, look["color"], "-" if j == 0 else DASHED, metric in SHARES, metric == "accuracy")
            for epoch in {part.tpt_first.iloc[0], part.tpt_last.iloc[0]}:
                axes.axvline(epoch, color=look["color"] if len(variants) > 1 else "0.35", lw=0.7, ls=":", zorder=1)
        _axes(axes, table.epoch.max())
        if i >= 4:
            axes.set_xlabel("epoch")
        if any(metric in SHARES for metric, _, _ in curves):
            axes.set_ylim(bottom=0.7 * LEAST_ERROR)
    first, *rest = [f"{v.label}: {v.start}" if len(variants) > 1 else v.start for v in variants]
    seeds = pd.Series([len(variant.runs) for variant in variants])
    zeros = f"a share of 0 is drawn at {LEAST_ERROR:g}; {first}"
    caption(figure, f"{about(variants)}; {seeds_note(seeds)}", zeros, *rest)
    keys = [key(variant.label, color=look["color"]) for variant, look in zip(variants, LOOKS, strict=False)]
    keys = keys if len(variants) > 1 else []
    keys += [key("class means; train"), key("rows of W; test", ls=DASHED), key("start of the TPT", ls=":", lw=0.9)]
    legend(figure, keys, most=4)
    return figure


def _curve(axes: Axes, rows: pd.DataFrame, colour: str, dash, share: bool, accuracy: bool) -> None:
    """Mean and one standard deviation; an accuracy as its error; shares of 0 lie on the lower edge."""
    rows = rows[rows.epoch > 0]
    mean, std = (1 - rows["mean"] if accuracy else rows["mean"]).to_numpy(), rows["std"].fillna(0).to_numpy()
    least = LEAST_ERROR if share else 0.0
    mean, low, high = (np.maximum(values, least) for values in (mean, mean - std, mean + std))
    low = np.where(low > 0, low, mean / 3)  # a log axis has no room for a spread down to 0
    axes.plot(rows.epoch, mean, color=colour, ls=dash, lw=0.8 * THICK, zorder=3)
    axes.fill_between(rows.epoch, low, high, color=colour, alpha=0.16, lw=0, zorder=2)


def _axes(axes: Axes, last: int) -> None:
    axes.set_xlim(0, last)
    axes.set_xticks(np.linspace(0, last, 4).round())  # the axis ends at a tick
    log_ticks(axes.yaxis)
