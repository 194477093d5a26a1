"""One layer on free features against the step: distance to the closed-form optimum, and collapse (Zhu et al. 2021)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nclab.analysis.drawing import THICK, WIDTH, caption, key, legend, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.last_layer import column
from nclab.analysis.log_axis import log_ticks
from nclab.analysis.needs import Needs
from nclab.analysis.panels import epoch_ticks
from nclab.analysis.runs import Run, refuse_mixture
from nclab.analysis.statistics import STATISTICS
from nclab.papers.unconstrained.setting import gap, network, sizes, steps

LOOKS = [
    {"color": "#0072B2", "ls": "-"},
    {"color": "#D55E00", "ls": (0, (4, 1.5))},
    {"color": "#009E73", "ls": (0, (1, 1))},
    {"color": "#CC79A7", "ls": (0, (3, 1, 1, 1))},
]
OPTIMIZERS = {"sgd": "gradient descent", "adamw": "Adam", "lbfgs": "L-BFGS"}
LOSSES = {
    "cross_entropy": "cross-entropy",
    "mse": "squared error",
    "label_smoothing": "label smoothing",
    "focal": "focal loss",
}
FLOORS = {"gap": 1e-17}  # where a number that rounding has made 0 ends on its log axis
LEAST = 1e-34  # of others
PANELS = {
    "gap": "Objective minus global minimum",
    "nc1": "NC1: variability within classes\n(nc1)",
    "nc2_gram": "NC2: distance to a simplex ETF\n(nc2_gram)",
    "nc3": "NC3: self-duality\n(nc3)",
}
SADDLES = {"gap": "Objective minus global minimum", "negative": "Least eigenvalue of the Hessian, negated"}


@dataclass(frozen=True)
class Variant:
    """Runs that differ in their seed alone."""

    label: str
    runs: list[Run]

    def curve(self, metric: str) -> pd.DataFrame:
        """Of a column of PANELS or SADDLES, by step: step, median, low, high, n; low and high are the least and the
        greatest over starts."""
        table = pd.concat([_series(run, metric) for run in self.runs], axis=1)
        found = {"median": table.median(axis=1), "low": table.min(axis=1), "high": table.max(axis=1)}
        found = pd.DataFrame(found | {"n": table.count(axis=1)}).rename_axis("epoch").reset_index()
        return found.assign(step=steps(self.runs[0], found.epoch), variant=self.label, metric=metric)


def variants_of(runs: list[Run], label: Callable[[Run], str] | None = None) -> list[Variant]:
    """The runs by label, that of start, classifier, optimizer and loss where none is given. Raises AnalysisError where
    those of one differ in more than seed."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault((label or _label)(run), []).append(run)
    for own in groups.values():
        refuse_mixture(own)
    return [Variant(label, own) for label, own in sorted(groups.items(), key=lambda item: _order(item[1][0]))]


def _label(run: Run) -> str:
    optimizer = OPTIMIZERS.get(name := run.config["optimizer"]["name"], name)
    if run.config["loss"]["name"] != "cross_entropy":
        optimizer = f"{optimizer}, {_loss(run)}"
    if run.config["model"]["name"] == "saddle":
        groups = run.config["model"]["groups"]
        return f"from rank {groups - 1}" if groups > 1 else "from all zero"
    if run.config["etf"]["name"] == "none":
        return optimizer
    kind = {"etf": "fixed simplex ETF", "frozen_scaled": "fixed random", "orthogonal": "fixed orthogonal"}
    return f"{optimizer}, {kind.get(run.config['etf']['kind'], run.policy)}"


def _loss(run: Run) -> str:
    return LOSSES.get(name := run.config["loss"]["name"], name)


def _order(run: Run) -> tuple:
    names, losses, loss = [*OPTIMIZERS], [*LOSSES], run.config["loss"]["name"]
    name = run.config["optimizer"]["name"]
    return (
        losses.index(loss) if loss in losses else len(losses),
        run.config["etf"]["name"] != "none",
        run.config["model"].get("groups", 0),
        (names.index(name) if name in names else len(names)),
        _label(run),
    )


def _series(run: Run, metric: str) -> pd.Series:
    if metric == "gap":
        return gap(run).abs()
    if metric == "negative":
        return -network(run, "hessian_least")
    return column(run, metric)


ONE_LAYER = Needs("runs of model=unconstrained with one layer", models=frozenset({"unconstrained"}))


@DRAWINGS.figure(
    "landscape",
    of="one layer on free features: distance to the global minimum, nc1, nc2_gram and nc3 against the step",
    caption="One layer on free features, full batch, float64, from several random starts: objective minus the global "
    "minimum in closed form, NC1 (nc1), NC2 (nc2_gram) and NC3 (nc3) against the iteration. Lines are medians over "
    "starts, bands go from the least to the greatest. What rounding has made 0 lies on the lower edge.",
    needs=ONE_LAYER,
)
def landscape_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Four panels; the table has variant, metric, epoch, step, median, low, high, n."""
    return _drawn(runs, PANELS, rows=2, height=4.4)


@DRAWINGS.figure(
    "landscape_losses",
    of="one layer on free features by loss: distance to the global minimum, nc1, nc2_gram and nc3 against the step",
    caption="One layer on free features under four losses, gradient descent, full batch, float64, from several random "
    "starts: objective minus the global minimum in closed form (of the focal loss minus the least objective at "
    "collapse), NC1 (nc1), NC2 (nc2_gram) and NC3 (nc3) against the iteration. Lines are medians over starts, bands go "
    "from the least to the greatest.",
    needs=ONE_LAYER,
)
def losses_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Four panels; the table as that of `landscape_figure`, a variant a loss."""
    return _drawn(runs, PANELS, rows=2, height=4.4, label=_loss)


@DRAWINGS.figure(
    "saddles",
    of="one layer on free features that starts at a critical point: how descent leaves it",
    caption="Gradient descent from a critical point that is no minimum, all zero or of lower rank, with noise of 1e-8 "
    "on every parameter: objective minus the global minimum in closed form, and the least eigenvalue of the Hessian, "
    "which is negative there and goes to 0. Lines are medians over starts, bands go from the least to the greatest.",
    needs=Needs("runs of model=saddle", models=frozenset({"saddle"}), suites=frozenset({"curvature"})),
)
def saddles_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Two panels; the table as that of `landscape_figure`, metric `negative` is minus the least eigenvalue."""
    return _drawn(runs, SADDLES, rows=1, height=2.6)


@DRAWINGS.table(
    "landscape_ends",
    of="one layer on free features: where every optimizer and classifier ends",
    needs=ONE_LAYER,
)
def landscape_table(runs: list[Run], policies: list[str] | None = None) -> tuple[pd.DataFrame, None]:
    """A row a variant: starts, and over them the greatest distance to the optimum, NC1, NC2 and NC3."""
    of = {
        "distance to the minimum": "optimum_gap",
        "nc1": "free_nc1_last",
        "nc2_gram": "free_nc2_last",
        "nc3": "free_nc3_last",
    }
    rows = []
    for variant in variants_of(runs):
        values = {name: max(STATISTICS[own].value(run, run) for run in variant.runs) for name, own in of.items()}
        rows.append(
            {"variant": variant.label, "starts": len(variant.runs)} | {k: f"{v:.1e}" for k, v in values.items()}
        )
    return pd.DataFrame(rows), None


def _drawn(
    runs: list[Run],
    titles: dict[str, str],
    rows: int,
    height: float,
    label: Callable[[Run], str] | None = None,
) -> tuple[Figure, pd.DataFrame]:
    """A panel a column of `titles`, two a row, and the table behind them."""
    variants = variants_of(runs, label)
    table = pd.concat([v.curve(metric) for v in variants for metric in titles], ignore_index=True)
    with style():
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        _draw(figure, figure.subplots(rows, 2).flat, titles, variants, table)
        return figure, table


def _draw(figure: Figure, panels, titles: dict[str, str], variants: list[Variant], table: pd.DataFrame) -> None:
    for axes, (metric, title) in zip(panels, titles.items(), strict=True):
        for variant, look in zip(variants, LOOKS, strict=False):
            rows = table[(table.metric == metric) & (table.variant == variant.label)]
            # A number below 0 is rounding, as 0 is.
            drawn = {name: np.maximum(rows[name], FLOORS.get(metric, LEAST)) for name in ("median", "low", "high")}
            axes.plot(rows.step, drawn["median"], lw=THICK, zorder=3, **look)
            axes.fill_between(rows.step, drawn["low"], drawn["high"], color=look["color"], alpha=0.16, lw=0, zorder=2)
        axes.set_title(title)
        axes.set_xlabel("iteration")
        _axes(axes, table.step.max())
    run = variants[0].runs[0]
    classes, per_class = sizes(run)
    starts = sorted({len(v.runs) for v in variants})
    losses = {_loss(v.runs[0]) for v in variants}
    shared = f", {losses.pop()}" if len(losses) == 1 else ""
    caption(
        figure,
        f"Free features: {classes} classes of {per_class}, {run.config['model']['dim']} dimensions{shared}; "
        f"median of {' to '.join(map(str, starts))} starts, band from least to greatest",
    )
    legend(figure, [key(v.label, **look) for v, look in zip(variants, LOOKS, strict=False)])


def _axes(axes: Axes, last: int) -> None:
    axes.set_yscale("log")
    axes.set_xlim(0, last)
    axes.set_xticks(epoch_ticks(int(last)))
    log_ticks(axes.yaxis)
