"""Collapse against the step for learnt, fixed and nearest classifiers on free features (arXiv 2411.01248)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from nclab.analysis.drawing import THICK, WIDTH, caption, key, legend, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.log_axis import log_ticks
from nclab.analysis.needs import Needs
from nclab.analysis.runs import AnalysisError, Run
from nclab.papers.unconstrained.nearest_numbers import at_input

ARMS = {  # Okabe and Ito's colours, and a dash each for readers of grey; in the order of the legend
    "learnt": {"color": "black", "ls": "-"},
    "learnt, penalised": {"color": "0.55", "ls": (0, (5, 1.2))},
    "fixed ETF": {"color": "#D55E00", "ls": (0, (3, 1, 1, 1))},
    "nearest ETF": {"color": "#0072B2", "ls": "-"},
    "nearest ETF, constant": {"color": "#009E73", "ls": (0, (1, 1))},
    "nearest ETF, no bias": {"color": "#CC79A7", "ls": (0, (4, 1.5))},
}
ERROR, MARGIN = "error", "cosine_margin_min"
SPREADS = {"spread_nc1": "nc1", "spread_trace_ratio": "nc1_trace_ratio"}  # of the log10 of a column
PANELS = [  # title, column of metrics.csv
    ("Cross-entropy\n(train loss)", "loss"),
    ("Error, 1 − train\naccuracy", ERROR),
    ("NC1 in the span of the\nmeans (nc1)", "nc1"),
    ("NC1 in all dimensions\n(nc1_trace_ratio)", "nc1_trace_ratio"),
    ("NC3: classifier and\nclass means (nc3)", "nc3"),
    ("Least cosine margin\n(cosine_margin_min)", MARGIN),
    ("Spread over seeds of log10\nof nc1, decades", "spread_nc1"),
    ("Spread over seeds of log10 of\nnc1_trace_ratio, decades", "spread_trace_ratio"),
]
NEEDED = Needs("free features that measure the suites collapse and margin", frozenset({"unconstrained"}),
               suites=frozenset({"collapse", "margin"}))  # fmt: skip


def arm(run: Run) -> str:
    """Which classifier a run has. Raises AnalysisError for one that is none of ARMS."""
    etf = run.config["etf"]
    if etf["name"] == "none":
        return "learnt, penalised" if run.config["loss"].get("l2") else "learnt"
    if etf["name"] == "nearest" and (etf["gradient"] or etf["bias"]):
        return "nearest ETF" + ", constant" * (not etf["gradient"]) + ", no bias" * (not etf["bias"])
    if etf["name"] == "last_k" and etf["kind"] == "etf":
        return "fixed ETF"
    if etf["name"] == "nearest":
        raise AnalysisError(f"{run.path}: no classifier of this figure has neither gradient nor bias")
    raise AnalysisError(f"{run.path}: expected etf none, last_k or nearest, got {etf['name']}")


@DRAWINGS.figure(
    "nearest_etf",
    of="free features below learnt, fixed and nearest classifiers: collapse against the step",
    caption="Free features below a classifier that is learnt, fixed to one simplex ETF, or set to the simplex ETF "
    "nearest to the class means at every step: as it is, without the gradient through it (constant), and without its "
    "bias, as the fixed one has none; each at its own best learning rate of the grid by nc1. Without a penalty the "
    "rows of the learnt classifier grow, and its loss runs out of the axis. Lines are means over seeds, geometric for "
    "loss, NC1 (nc1, nc1_trace_ratio) and NC3 (nc3); bands reach from the least seed to the greatest. The dotted "
    "line is the margin at collapse, C/(C-1).",
    says=lambda table: ends(table),
    needs=NEEDED,
)
def nearest_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Eight panels; returns the picture and its table: arm, lr, metric, step, value, low, high, n. Of the learning
    rates of an arm the one whose geometric mean of nc1 after the last step is least is drawn."""
    table = pd.concat([_rows(name, _best(group)) for name, group in arms(runs).items()], ignore_index=True)
    with style():
        return _draw(table, runs), table


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """For a terminal: a row an arm, its rate and what is drawn at the last step."""
    last = table[table.step == table.step.max()]
    wide = last.pivot(index=["arm", "lr", "n"], columns="metric", values="value").reset_index()
    wide = wide.set_index("arm").reindex([name for name in ARMS if name in set(wide["arm"])]).reset_index()
    numbers = wide[["lr", "n", *(metric for _, metric in PANELS)]].map("{:.3g}".format)
    return pd.concat([wide["arm"], numbers], axis=1)


def arms(runs: list[Run]) -> dict[str, list[Run]]:
    """The runs by classifier, in the order of ARMS."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(arm(run), []).append(run)
    return {name: groups[name] for name in ARMS if name in groups}


def by_rate(runs: list[Run]) -> dict[float, list[Run]]:
    """The runs by learning rate."""
    rates: dict[float, list[Run]] = {}
    for run in runs:
        rates.setdefault(run.config["optimizer"]["lr"], []).append(run)
    return rates


def _best(runs: list[Run]) -> list[Run]:
    """Those of the learning rate with the least final NC1, geometric mean over seeds, among the rates with which all
    seeds end at 100 % train accuracy, if there is one; a rate with which a run ends without a number loses."""
    rates = by_rate(runs)

    def final(rate: float) -> tuple[bool, float]:
        misses = any(at_input(run, "accuracy").iloc[-1] < 1 for run in rates[rate])
        value = np.mean([np.log(at_input(run, "nc1").iloc[-1]) for run in rates[rate]])
        return misses, float(value) if np.isfinite(value) else np.inf

    return rates[min(rates, key=final)]


def _rows(name: str, runs: list[Run]) -> pd.DataFrame:
    found = []
    for _, metric in PANELS:
        column = ({ERROR: "accuracy"} | SPREADS).get(metric, metric)
        values = pd.concat([at_input(run, column) for run in runs], axis=1)
        values = values[values.index > 0]
        logs = np.log10(values.where(values > 0))
        if metric == ERROR:
            mean, low, high = (1 - values).mean(axis=1), 1 - values.max(axis=1), 1 - values.min(axis=1)
        elif metric in SPREADS:
            mean = low = high = logs.std(axis=1)
        elif metric == MARGIN:
            mean, low, high = values.mean(axis=1), values.min(axis=1), values.max(axis=1)
        else:
            mean, low, high = 10 ** logs.mean(axis=1), values.min(axis=1), values.max(axis=1)
        rows = pd.DataFrame({"step": values.index, "value": mean, "low": low, "high": high, "n": values.count(axis=1)})
        found.append(rows.assign(arm=name, lr=runs[0].config["optimizer"]["lr"], metric=metric))
    return pd.concat(found)[["arm", "lr", "metric", "step", "value", "low", "high", "n"]]


def _draw(table: pd.DataFrame, runs: list[Run]) -> Figure:
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    grid = figure.subplots(2, 4, sharex=True)
    least = 1 / (2 * runs[0].config["dataset"]["classes"] * runs[0].config["dataset"]["per_class"])
    for i, (axes, (title, metric)) in enumerate(zip(grid.flat, PANELS, strict=True)):
        axes.set_title(title, fontsize=6.5)
        for name, look in ARMS.items():
            rows = table[(table.arm == name) & (table.metric == metric)]
            if len(rows):
                _curve(axes, rows, look, least if metric == ERROR else 0.0)
        _axes(axes, table, metric, least)
        if metric == MARGIN:
            classes = runs[0].config["dataset"]["classes"]
            axes.axhline(classes / (classes - 1), color="0.35", lw=0.7, ls=":", zorder=1)
        if i >= 4:
            axes.set_xlabel("gradient step (full batch)")
    dataset, model = runs[0].config["dataset"], runs[0].config["model"]
    samples, n = dataset["classes"] * dataset["per_class"], int(table.n.max())
    about = (
        f"{samples:,} free features of {dataset['classes']} classes, dimension {model['dim']}, length {model['tau']:g}"
    )
    seeds = f"mean of {n} seeds, band: least to greatest" if n > 1 else "one seed"
    caption(figure, f"{about}; {seeds}", f"an error of 0 is drawn at {least:g}")
    rates = table.drop_duplicates("arm").set_index("arm").lr
    legend(figure, [key(f"{name} (lr {rates[name]:g})", **ARMS[name]) for name in ARMS if name in rates], most=3)
    return figure


def _curve(axes: Axes, rows: pd.DataFrame, look: dict, least: float) -> None:
    value, low, high = (np.maximum(rows[name].to_numpy(), least or -np.inf) for name in ("value", "low", "high"))
    axes.plot(rows.step, value, lw=0.8 * THICK, zorder=3, **look)
    if (high > low).any():
        axes.fill_between(rows.step, low, high, color=look["color"], alpha=0.16, lw=0, zorder=2)


def _axes(axes: Axes, table: pd.DataFrame, metric: str, least: float) -> None:
    last = table.step.max()
    axes.set_xscale("log")
    axes.set_xlim(1, last)
    ticks = [step for step in (1, 10, 100, 1000) if 1.5 * step < last] + [last]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    if metric == MARGIN:
        return
    axes.set_yscale("log")
    if metric == ERROR:
        axes.set_ylim(0.8 * least, 1)
    if metric == "loss":
        axes.set_ylim(bottom=1e-4)
    log_ticks(axes.yaxis)
