"""Where along the depth collapse happens: NC1 and NCC accuracy behind every block, for networks of every depth."""

import math
import textwrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nclab.analysis.columns import log_limits
from nclab.analysis.drawing import WIDTH, depth_colours, key, legend, seeds_note, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.labels import count_of_blocks
from nclab.analysis.last_layer import at_end, needed
from nclab.analysis.log_axis import log_axis
from nclab.analysis.rank import hollow, is_low, low_ranks, lowest_rank
from nclab.analysis.runs import AnalysisError, Run
from nclab.papers.depth.variants import DEEP, Variant, about, depth_variants, seeds_of, spread

NC1, NCC = "nc1_trace_ratio", "ncc_accuracy"
COLUMNS = 4  # variants beside one another; more go below


@DRAWINGS.figure(
    "depth_blocks",
    of="networks of several numbers of blocks: collapse behind every block",
    caption="NC1 (nc1_trace_ratio) and NCC accuracy behind every block of networks of several depths: where along the "
    "depth collapse happens.",
    says=lambda table: ends(table),
    needs=DEEP,
)
def depth_blocks(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """One column a variant, NC1 above NCC accuracy, one curve a depth, on the train split; returns the picture and its
    table.

    x is block / blocks, so that networks of all depths end at 1 and can be compared; 0 is what the first block reads,
    where it was measured. The table: variant, blocks, block, position, layer, metric, and mean, std, log10_mean,
    log10_std and n over seeds, and rank, the lowest of the class means; NC1 where it is low has a hollow mark.
    """
    variants = depth_variants(runs, policies)
    table = pd.DataFrame([row for variant in variants for row in _rows(variant)])
    with style():
        return _draw(table, variants), table


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """For a terminal: NC1 and NCC accuracy behind the first, the middle and the last block of every depth."""
    rows = []
    for (variant, blocks), part in table.groupby(["variant", "blocks"], sort=False):
        cells = {"variant": variant, "blocks": str(blocks)}
        for metric in (NC1, NCC):
            means = part[part.metric == metric].set_index("block")["mean"]
            at = (1, math.ceil(blocks / 2), blocks)
            cells[f"{metric} of first, middle, last block"] = ", ".join(f"{means[b]:.3g}" for b in dict.fromkeys(at))
        rows.append(cells)
    return pd.DataFrame(rows)


def _rows(variant: Variant) -> list[dict]:
    rows = []
    for blocks, runs in variant.by_blocks.items():
        measured = {run.seed: (run, at_end(run)) for run in runs}
        for block, layer in _layers(runs[0], blocks).items():
            for metric in (NC1, NCC):
                values = {seed: float(needed(run, at, layer, metric)) for seed, (run, at) in measured.items()}
                place = {"variant": variant.label, "blocks": blocks, "block": block, "position": block / blocks}
                rank = {"rank": lowest_rank((at for _, at in measured.values()), layer)}
                rows.append(place | {"layer": layer, "metric": metric} | spread(values) | rank)
    return rows


def _layers(run: Run, blocks: int) -> dict[int, str]:
    """Block -> the layer that ends it, counted from 1; 0 is the embedding, where it is measured."""
    found = [layer["layer"] for layer in run.layers if layer["role"] == "block"]
    if len(found) != blocks:
        raise AnalysisError(
            f"{run.path / 'events.jsonl'}: expected {blocks} layers of role block, the model's blocks, got {len(found)}"
        )
    start = [layer["layer"] for layer in run.layers if layer["role"] == "embedding"]
    return dict(zip(range(len(found) + 1), [*start, *found], strict=True)) if start else dict(enumerate(found, 1))


def _draw(table: pd.DataFrame, variants: list[Variant]) -> Figure:
    columns = min(COLUMNS, len(variants))
    rows = 2 * math.ceil(len(variants) / columns)
    figure = Figure(figsize=(WIDTH, 0.9 + 1.75 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=False, squeeze=False)
    colours = depth_colours(sorted(table.blocks.unique()))
    logs = table.log10_mean[table.metric == NC1].dropna()
    accuracies = table["mean"][table.metric == NCC].dropna()
    low = max(0.0, math.floor(10 * accuracies.min() - 0.1) / 10) if len(accuracies) else 0.0
    for i, variant in enumerate(variants):
        top, below = grid[2 * (i // columns), i % columns], grid[2 * (i // columns) + 1, i % columns]
        # Long labels are broken, but not at 'λ = 0.005': columns of four stand an inch and a half apart.
        top.set_title(textwrap.fill(variant.label.replace(" = ", "\u00a0=\u00a0"), 88 // columns))
        part = table[table.variant == variant.label]
        for blocks, curve in part[part.metric == NC1].groupby("blocks"):
            spread = curve.log10_std.fillna(0)
            mean, least, most = (10 ** (curve.log10_mean + sign * spread) for sign in (0, -1, 1))
            _curve(top, curve.position, mean, least, most, colours[blocks])
            hollow(top, curve.position, mean, is_low(part)[curve.index], color=colours[blocks], ms=2.6)
        for blocks, curve in part[part.metric == NCC].groupby("blocks"):
            mean, spread = curve["mean"], curve["std"].fillna(0)
            _curve(below, curve.position, mean, mean - spread, (mean + spread).clip(upper=1.0), colours[blocks])
        log_axis(top, *log_limits(10**logs))
        below.set_ylim(low, 1 + 0.03 * (1 - low))
        below.yaxis.set_major_locator(MaxNLocator(5))
        below.set_xlabel("block / number of blocks")
        for axes in (top, below):
            axes.set_xlim(0, 1.02)
            axes.tick_params(labelbottom=axes is below, labelleft=i % columns == 0)
        if i % columns == 0:
            top.set_ylabel(f"train {NC1}")
            below.set_ylabel("train NCC accuracy")
    for j in range(len(variants), rows // 2 * columns):
        for k in (0, 1):
            grid[2 * (j // columns) + k, j % columns].remove()
    caption = ", ".join(filter(None, [about(variants), "train split after the last epoch"]))
    lines = [f"{caption}; {seeds_note(seeds_of(variants))}", *low_ranks(table[table.metric == NC1], NC1)]
    figure.suptitle("\n".join(lines), fontsize=7.5, color="0.35")
    legend(
        figure, [key(count_of_blocks(blocks), color=colour, marker="o", ms=2.5) for blocks, colour in colours.items()]
    )
    return figure


def _curve(axes: Axes, position: pd.Series, mean: pd.Series, low: pd.Series, high: pd.Series, colour) -> None:
    """A dot a block: few blocks are seen to be few; with the band from low to high, where seeds differ."""
    axes.plot(position, mean, color=colour, lw=1.0, marker="o", ms=1.8, zorder=3, clip_on=False)
    if (high > low).any():
        axes.fill_between(position, low, high, color=colour, alpha=0.18, lw=0, zorder=2)
