"""Collapse of the last layer against the number of blocks: NC1 to NC3 on log axes, fitted slopes, train accuracy.

As Figures 1 and 2 of arXiv 2505.15239, with slopes seed by seed and their interval (`trend`), and with the
accuracy that the paper's figures do not show: a collapsed network that does not classify proves nothing.
"""

import math
import textwrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from nclab.analysis.curves import NETWORK
from nclab.analysis.drawing import WIDTH, key, legend, seeds_note, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.last_layer import at_end, before_end, classifier_input, needed
from nclab.analysis.log_axis import log_axis
from nclab.analysis.rank import hollow, is_low, low_ranks, lowest_rank
from nclab.analysis.runs import Run
from nclab.analysis.statistics import objective_change
from nclab.analysis.trend import trend
from nclab.analysis.verdict import number
from nclab.papers.depth.variants import DEEP, L2, Variant, about, colours_and_marks, depth_variants, seeds_of, spread

NC1, NC2, NC2_ORTHOGONAL, NC3 = "nc1_trace_ratio", "nc2_weight_gram", "nc2_weight_orthogonal", "nc3_cosine"
LAST = "last"  # the layer of the table that stands for the classifier's input
# (split, layer, metric) of the table, and whether a run must have it; the rest is there for readers of the CSV.
COLLAPSE = [("train", LAST, metric) for metric in (NC1, NC2, NC2_ORTHOGONAL, NC3, "nc1")]
WHOLE = [("train", NETWORK, "accuracy"), ("test", NETWORK, "accuracy"), ("train", NETWORK, "l2_penalty")]
CHANGE = objective_change.__name__
NO_SLOPE = ("accuracy", CHANGE)
LINE = 0.068  # height of a line of a panel's own legend, as a share of the panel
FEWER = "*"  # marks a slope that some seeds lack; the caption says which
RANKED = (NC1, "nc1")  # metrics that are not comparable across ranks
DAGGER = "†"  # marks a variant whose NC2 is the distance to the orthogonal frame


@DRAWINGS.figure(
    "depth",
    of="networks of several numbers of blocks: collapse of the last layer against depth",
    caption="NC1 (nc1_trace_ratio), NC2 (nc2_weight_gram, or † nc2_weight_orthogonal) and NC3 (nc3_cosine) of the last "
    "layer against the number of blocks, with the slope of each line and its 95 % interval; the train accuracy "
    "beside them says which networks classify.",
    says=lambda table: slopes(table),
    needs=DEEP,
)
def depth(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """The four panels, all variants in each; returns the picture and the table behind it.

    The table has a row a variant, metric and number of blocks: n, mean and std over seeds, log10_mean and log10_std of
    the logarithms (nonpositive values have none), l2 (lambda), of NC1 the lowest rank of the class means; and on each
    of these rows the line through them: slope (mean over seeds) with slope_std, slope_low and slope_high (95 %),
    intercept (log10 at one block), slope_seeds, and no_slope, which says what seeds have none and why.
    """
    variants = depth_variants(runs, policies)
    table = pd.concat([_rows(variant) for variant in variants], ignore_index=True)
    with style():
        return _draw(table, variants), table


def slopes(table: pd.DataFrame) -> pd.DataFrame:
    """What `depth` writes into its panels, for a terminal: a row a variant, slopes and the ranges of train
    accuracy and of the change of the objective."""
    rows = []
    for variant, part in table.groupby("variant", sort=False):
        cells = {"variant": variant, "blocks": "|".join(map(str, sorted(part.blocks.unique())))}
        for metric in (NC1, NC2, NC2_ORTHOGONAL, NC3):
            fitted = part[part.metric == metric]
            cells[f"slope of {metric}"] = "-" if fitted.empty else _slope(fitted.iloc[0])
        means = part["mean"][(part.metric == "accuracy") & (part.split == "train")]
        cells["train accuracy"] = f"{means.min():.3f} to {means.max():.3f}"
        cells["objective changed by"] = _change(part) or "-"
        rows.append(cells)
    return pd.DataFrame(rows)


def _rows(variant: Variant) -> pd.DataFrame:
    shown = (NC1, NC2_ORTHOGONAL if variant.orthogonal else NC2, NC3)
    values: dict[tuple, dict[int, dict[int, float]]] = {}  # (split, layer, metric) -> seed -> blocks -> value
    ranks: dict[int, float] = {}  # blocks -> the lowest at the classifier's input
    for blocks, runs in variant.by_blocks.items():
        ranks[blocks] = min(lowest_rank([at_end(run)], classifier_input(run)) for run in runs)
        for run in runs:
            ends = {split: at_end(run, split) for split in ("train", "test")}
            for split, layer, metric in (*COLLAPSE, *WHOLE):
                name = classifier_input(run) if layer == LAST else layer
                must = metric in shown or (split, metric) == ("train", "accuracy")
                if must or (name, metric) in ends[split]:
                    value = needed(run, ends[split], name, metric, split)
                    values.setdefault((split, layer, metric), {}).setdefault(run.seed, {})[blocks] = float(value)
            if math.isfinite(change := objective_change(run, run)):
                values.setdefault(("train", NETWORK, CHANGE), {}).setdefault(run.seed, {})[blocks] = change
    rows = []
    for (split, layer, metric), by_seed in values.items():
        fitted = _fit(by_seed) if metric not in NO_SLOPE else {}
        for blocks, runs in variant.by_blocks.items():
            here = {seed: points[blocks] for seed, points in by_seed.items() if blocks in points}
            place = {"variant": variant.label, "split": split, "layer": layer, "metric": metric, "blocks": blocks}
            rank = {"rank": ranks[blocks] if metric in RANKED else math.nan}
            rows.append(place | {"l2": runs[0].settings[L2]} | spread(here) | rank | fitted)
    return pd.DataFrame(rows)


def _fit(by_seed: dict[int, dict[int, float]]) -> dict[str, float | str]:
    line = trend(by_seed)
    e = line.estimate
    reasons = (f"{reason} with seed {', '.join(map(str, seeds))}" for reason, seeds in line.undefined.items())
    return {
        "slope": e.mean if e else math.nan,
        "slope_std": e.sd if e else math.nan,
        "slope_low": e.low if e else math.nan,
        "slope_high": e.high if e else math.nan,
        "slope_seeds": len(line.slopes),
        "intercept": line.intercept,
        "no_slope": "; ".join(reasons),
    }


def _draw(table: pd.DataFrame, variants: list[Variant]) -> Figure:
    figure = Figure(figsize=(WIDTH, 5.0 + 0.1 * math.ceil(len(variants) / 2)), layout="constrained")
    grid = figure.subplots(2, 2)
    looks = colours_and_marks(variants)
    orthogonal = any(variant.orthogonal for variant in variants)
    frame = f"\n{DAGGER} an orthogonal frame: {NC2_ORTHOGONAL}" if orthogonal else ""
    titles = [
        ("Within / between class variability", f"NC1 ({NC1})"),
        (f"Classifier to an ETF{frame}", f"NC2 ({NC2})"),
        ("1 − cosine of feature and classifier row", f"NC3 ({NC3})"),
    ]
    train = table[table.split == "train"]
    for axes, metrics, (title, label) in zip(grid.flat, ((NC1,), (NC2, NC2_ORTHOGONAL), (NC3,)), titles, strict=False):
        axes.set_title(title)
        axes.set_ylabel(label)
        shown = {}
        for variant in variants:
            metric = metrics[-1] if variant.orthogonal else metrics[0]
            shown[variant.label] = train[(train.variant == variant.label) & (train.metric == metric)]
        _collapse(axes, shown, looks, {v.label for v in variants if v.orthogonal and len(metrics) > 1})
    _accuracy(grid[1, 1], train[train.metric == "accuracy"], looks)
    for axes in grid.flat:
        _depths(axes, sorted(table.blocks.unique()))
    figure.suptitle(_caption(table, variants), fontsize=7.5, color="0.35")
    legend(figure, [key(label, ms=3.5, **look) for label, look in looks.items()], most=3)
    return figure


def _collapse(axes: Axes, shown: dict[str, pd.DataFrame], looks: dict[str, dict], marked: set[str]) -> None:
    """Means with their spread, the fitted lines, and in a strip below all of them the slopes."""
    keys = []
    axes.set_yscale("log")
    for i, (label, rows) in enumerate(shown.items()):
        look = looks[label]
        x = _aside(rows.blocks, i, len(shown))
        points = {"color": look["color"], "marker": look["marker"], "ms": 3.5, "ls": "", "zorder": 3}
        spread = rows.log10_std.fillna(0)
        mean, low, high = (10 ** (rows.log10_mean + sign * spread) for sign in (0, -1, 1))
        axes.errorbar(x, mean, [mean - low, high - mean], lw=0.8, capsize=1.6, **points)
        hollow(axes, x, mean, is_low(rows), **points)
        line = rows.iloc[0]
        if math.isfinite(line.slope):
            ends = pd.Series([rows.blocks.min(), rows.blocks.max()])
            height = 10 ** (line.intercept + line.slope * ends.map(math.log10))
            axes.plot(ends, height, color=look["color"], ls=look["ls"], lw=1.0, zorder=2)
        keys.append(key(_slope(line) + (f" {DAGGER}" if label in marked else ""), ms=3.5, lw=1.0, **look))
    columns = min(2, len(keys))
    strip = LINE * (math.ceil(len(keys) / columns) + 1.6)
    low, high = axes.get_ylim()
    log_axis(axes, low * (low / high) ** (strip / (1 - strip)), high)
    box = axes.legend(
        handles=keys,
        loc="lower left",
        ncols=columns,
        fontsize=6.5,
        title="slope [95 % interval]",
        title_fontsize=6.5,
        alignment="left",
        handlelength=2.4,
        labelspacing=0.3,
        columnspacing=1.0,
        borderaxespad=0.2,
        frameon=True,  # white, for the grid to stop at the words
        edgecolor="none",
        framealpha=1.0,
    )
    box.set_in_layout(False)  # else a wide box makes the panel narrow


def _accuracy(axes: Axes, rows: pd.DataFrame, looks: dict[str, dict]) -> None:
    axes.set_title("Do these networks classify?")
    axes.set_ylabel("train accuracy")
    for i, (label, look) in enumerate(looks.items()):
        part = rows[rows.variant == label]
        axes.errorbar(
            _aside(part.blocks, i, len(looks)),
            part["mean"],
            part["std"].fillna(0),
            lw=1.0,
            capsize=1.6,
            ms=3.5,
            zorder=3,
            **look,
        )
    least = (rows["mean"] - rows["std"].fillna(0)).min()
    low = max(0.0, math.floor(10 * min(least, 0.85)) / 10) if math.isfinite(least) else 0.0
    axes.set_ylim(low - 0.02 * (1 - low), 1 + 0.04 * (1 - low))


def _aside(blocks: pd.Series, i: int, count: int) -> pd.Series:
    """A step to the side, so that the spreads of two variants at one depth are both seen."""
    return blocks * 10 ** (0.012 * (i - (count - 1) / 2))


def _depths(axes: Axes, depths: list[int]) -> None:
    """A logarithmic axis with ticks where there are networks."""
    axes.set_xscale("log")
    axes.set_xlim(depths[0] * 0.88, depths[-1] * 1.14)
    axes.xaxis.set_major_locator(FixedLocator(depths))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([str(number) for number in depths])
    axes.set_xlabel("blocks")


def _slope(line: pd.Series) -> str:
    """'−0.33 [−0.36, −0.30]', with FEWER where some seeds have none."""
    if not math.isfinite(line.slope):
        return "no slope"
    ends = f"[{number(line.slope_low, True)}, {number(line.slope_high, True)}]" if line.slope_seeds > 1 else "one seed"
    return f"{number(line.slope, True)} {ends}{FEWER if line.no_slope else ''}".replace("-", "−")


def _caption(table: pd.DataFrame, variants: list[Variant]) -> str:
    head = ", ".join(filter(None, [about(variants), "classifier's input and weights after the last epoch"]))
    lines = [f"{head}; {seeds_note(seeds_of(variants))}"]
    if change := _change(table):
        lines.append(f"objective changed by {change} over the last {_stretch(variants)} of training")
    lines += textwrap.wrap("; ".join(_lacking(variants)), 130)
    lines += low_ranks(table[table.metric == NC1], NC1)
    missing: dict[tuple[str, str], list[str]] = {}
    for variant in variants:
        for metric in (NC1, NC2_ORTHOGONAL if variant.orthogonal else NC2, NC3):
            line = table[(table.variant == variant.label) & (table.metric == metric)].iloc[0]
            if line.no_slope:
                missing.setdefault((variant.label, line.no_slope), []).append(metric)
    told = [f"{FEWER} {label}: no slope of {', '.join(names)}: {why}" for (label, why), names in missing.items()]
    told[3:] = [f"and {len(told) - 3} more, see the CSV"] if len(told) > 3 else []
    return "\n".join([*lines, *(line for text in told for line in textwrap.wrap(text, 130))])


def _change(table: pd.DataFrame) -> str:
    """'3 to 21 %', the least and the greatest mean; '' where it was not measured."""
    means = table["mean"][table.metric == CHANGE].dropna()
    if means.empty:
        return ""
    ends = dict.fromkeys(f"{mean:.2g}" if mean < 100 else f"{mean:.0f}" for mean in (means.min(), means.max()))
    return f"{' to '.join(ends)} %"


def _stretch(variants: list[Variant]) -> str:
    """'tenth', or '10 to 50 %' where runs were not measured at nine tenths of training."""
    pairs = {(before_end(run), run.end) for variant in variants for run in variant.runs}
    shares = sorted({round(100 * (1 - a / end)) for a, end in pairs if a is not None})
    return "tenth" if shares == [10] else f"{' to '.join(map(str, dict.fromkeys((shares[0], shares[-1]))))} %"


def _lacking(variants: list[Variant]) -> list[str]:
    """'RN1, λ = 0.005: no run of 34 blocks': depths that another variant has."""
    depths = sorted({blocks for variant in variants for blocks in variant.by_blocks})
    lacking = {v.label: ", ".join(str(blocks) for blocks in depths if blocks not in v.by_blocks) for v in variants}
    return [f"{label}: no run of {absent} blocks" for label, absent in lacking.items() if absent]
