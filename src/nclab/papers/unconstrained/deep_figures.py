"""Deep free features: objective against closed forms, ranks and singular values (2405.14468, 2410.23169)."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from nclab.analysis.drawing import THICK, THIN, WIDTH, caption, key, legend, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.last_layer import objective
from nclab.analysis.needs import Needs
from nclab.analysis.runs import AnalysisError, Run, refuse_mixture
from nclab.papers.unconstrained.deep_numbers import graph_ratio
from nclab.papers.unconstrained.setting import (
    CLOSE,
    at_collapse,
    collapse,
    final_objective,
    full_rank,
    hidden_rank,
    low_rank,
    pairs_levels,
    penalties,
    ranks,
    singular_values,
    sizes,
    steps,
)
from nclab.theory.regular_graph import classes_of, trunk

SWEPT = {"model.dim": "width", "loss.l2": "λ"}
BLUE, RED, GREEN = "#0072B2", "#D55E00", "#009E73"
DASHED, DOTTED = (0, (4, 1.5)), (0, (1, 1))
DEEP = Needs(
    "runs of model=unconstrained that measure the suite singular_values",
    models=frozenset({"unconstrained"}),
    suites=frozenset({"singular_values"}),
)


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seed alone; `value` is that of the swept key."""

    value: float
    runs: list[Run]

    @property
    def lower(self) -> float:
        """L_low / L_DNC, nan where there is no closed form of lower rank."""
        found = low_rank(self.runs[0])
        return found.objective / collapse(self.runs[0]).objective if found else float("nan")


def settings_of(runs: list[Run]) -> tuple[str, list[Setting]]:
    """The key in which the runs differ, and the runs by its value. Raises AnalysisError where they differ in two, or in
    a third."""
    differing = [name for name in SWEPT if len({run.settings[name] for run in runs}) > 1]
    if len(differing) > 1:
        raise AnalysisError(f"expected runs that differ in one of {', '.join(SWEPT)}; they differ in both")
    swept = differing[0] if differing else "model.dim"
    refuse_mixture(runs, by=swept)
    groups: dict[float, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.settings[swept], []).append(run)
    return swept, [Setting(value, groups[value]) for value in sorted(groups)]


@DRAWINGS.figure(
    "deep_objective",
    of="deep free features: the objective of gradient descent against closed forms",
    caption="Objective of gradient descent over that of collapse in all layers (DNC) in closed form, a line a start. "
    "Below 1 training has found something better than collapse. The dashed line is the closed form of lower rank: "
    "classes in pairs for linear layers, the strongly regular graph (SRG) for ReLU. Dotted, of linear layers: one, two "
    "... pairs and a simplex ETF of the other classes, which lie between.",
    needs=DEEP,
)
def objective_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """A panel a value of the swept key; the table has the key, seed, epoch, step, objective, ratio, dnc, lower."""
    swept, settings = settings_of(runs)
    rows = []
    for setting in settings:
        dnc = collapse(setting.runs[0]).objective
        for run in setting.runs:
            values = objective(run)
            own = {
                swept: setting.value,
                "seed": run.seed,
                "step": steps(run, values.index),
                "objective": values.to_numpy(),
            }
            rows.append(pd.DataFrame({"epoch": values.index, **own, "dnc": dnc, "lower": setting.lower * dnc}))
    table = pd.concat(rows, ignore_index=True)
    table["ratio"] = table.objective / table.dnc
    with style():
        figure = Figure(figsize=(WIDTH, 2.3), layout="constrained")
        panels = figure.subplots(1, len(settings), sharey=True, squeeze=False)[0]
        for axes, setting in zip(panels, settings, strict=True):
            for _, own in table[table[swept] == setting.value].groupby("seed"):
                axes.plot(own.step, own.ratio, color=BLUE, lw=THIN, alpha=0.7)
            axes.axhline(1, color="black", lw=THIN)
            axes.axhline(setting.lower, color=RED, lw=THICK, ls=DASHED)
            for level in (levels := pairs_levels(setting.runs[0])):
                axes.axhline(level / collapse(setting.runs[0]).objective, color="0.35", lw=THIN, ls=DOTTED)
            axes.set_title(_value(swept, setting.value))
            axes.set_xlabel("step")
            axes.set_xlim(0, table.step.max())
            axes.xaxis.set_major_locator(MaxNLocator(2, integer=True))
        least = np.nanmin([table[table.step == table.step.max()].ratio.min(), *(s.lower for s in settings)])
        panels[0].set_ylim(least - 0.03, 1.2)
        panels[0].set_ylabel("objective / L_DNC")
        caption(figure, _about(settings[0].runs[0], swept), _starts(settings))
        keys = [
            key("gradient descent, a start", color=BLUE, lw=THIN),
            key("collapse in all layers (DNC)", color="black", lw=THIN),
        ]
        keys.append(key(_lower_name(settings[0].runs[0]), color=RED, ls=DASHED))
        keys += [key("some classes in pairs, the others an ETF", color="0.35", lw=THIN, ls=DOTTED)] if levels else []
        legend(figure, keys)
        return figure, table


@DRAWINGS.figure(
    "deep_singular_values",
    of="deep free features: singular values of the class means, layer by layer",
    caption="Singular values of the class means of every layer after the last step, over the largest of their layer, "
    "mean over starts. The number behind a row is the mean rank, that of singular values above 1 % of the largest. At "
    "collapse (DNC) as many are 1 as there are directions, and the others 0.",
    needs=DEEP,
)
def singular_values_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """A picture a value of the swept key: a row a layer, a column a singular value; the table has the key, layer,
    index, mean, std, rank, n."""
    swept, settings = settings_of(runs)
    rows, pictures = [], []
    for setting in settings:
        shares = [singular_values(run).pipe(lambda t: t.div(t[1], axis=0)) for run in setting.runs]
        stacked = np.stack([share.to_numpy() for share in shares])  # (n, layers, C)
        rank = pd.concat([ranks(run) for run in setting.runs], axis=1).mean(axis=1)
        pictures.append((shares[0].index, stacked.mean(0), rank))
        for i, layer in enumerate(shares[0].index):
            own = {swept: setting.value, "layer": layer, "index": shares[0].columns, "mean": stacked[:, i].mean(0)}
            spread = stacked[:, i].std(0, ddof=1) if len(shares) > 1 else np.nan
            rows.append(pd.DataFrame({**own, "std": spread, "rank": rank[layer], "n": len(shares)}))
    with style():
        figure = Figure(figsize=(WIDTH, 1.2 + 0.22 * len(pictures[0][0])), layout="constrained")
        panels = figure.subplots(1, len(settings), sharey=True, squeeze=False)[0]
        for axes, setting, (layers, mean, rank) in zip(panels, settings, pictures, strict=True):
            shown = axes.imshow(mean, vmin=0, vmax=1, cmap="viridis", aspect="auto")
            axes.grid(visible=False)
            axes.set_title(_value(swept, setting.value))
            axes.set_xticks([0, mean.shape[1] - 1], ["1", str(mean.shape[1])])
            axes.set_xlabel("index")
            axes.set_yticks(range(len(layers)), layers)
            for i, layer in enumerate(layers):
                text = f"{rank[layer]:.1f}".removesuffix(".0")
                axes.annotate(text, (1.03, i), xycoords=("axes fraction", "data"), va="center", fontsize=6.5)
        figure.colorbar(shown, ax=panels, label="share of the largest", pad=0.05)
        note = f"class means, behind each row its rank (> {CLOSE:.0%} of the largest); {_starts(settings)}"
        caption(figure, _about(settings[0].runs[0], swept), note)
        return figure, pd.concat(rows, ignore_index=True)


@DRAWINGS.figure(
    "deep_rank",
    of="deep free features: rank, objective and share of collapse against width or lambda",
    caption="Against width or lambda: the least rank of the class means over the hidden layers, the objective over "
    "that of collapse in all layers (DNC) in closed form, and the share of starts that end at collapse: objective "
    "within 1 % of it and full rank. Points are starts, the line is their mean.",
    needs=DEEP,
)
def rank_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Three panels; the table has the key, seed, rank, ratio, lower, at_dnc."""
    swept, settings = settings_of(runs)
    rows = [
        {swept: s.value, "seed": run.seed, "rank": hidden_rank(run), "lower": s.lower, "at_dnc": at_collapse(run),
         "ratio": final_objective(run) / collapse(run).objective}
        for s in settings for run in s.runs
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    means = table.astype({"at_dnc": float}).groupby(swept)[["rank", "ratio", "lower", "at_dnc"]].mean()
    with style():
        figure = Figure(figsize=(WIDTH, 2.4), layout="constrained")
        titles = {
            "rank": "Least rank of hidden layers",
            "ratio": "Objective / L_DNC",
            "at_dnc": "Share of starts at DNC",
        }
        for axes, (name, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
            axes.plot(means.index, means[name], color=BLUE, marker="o", ms=4, lw=THICK, zorder=3)
            if name != "at_dnc":
                axes.plot(table[swept], table[name], ls="", marker="o", ms=2.5, color="0.5", mew=0, alpha=0.7, zorder=2)
            axes.set_title(title)
            axes.set_xlabel(SWEPT[swept] + (" (d)" if swept == "model.dim" else ""))
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_locator(FixedLocator(list(means.index)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticklabels([_tick(swept, value) for value in means.index])
        rank, ratio, share = figure.axes
        rank.axhline(full_rank(runs[0]), color="black", lw=THIN)
        rank.set_ylim(0, full_rank(runs[0]) + 1)
        ratio.axhline(1, color="black", lw=THIN)
        ratio.plot(means.index, means.lower, color=RED, ls=DASHED, lw=THICK)
        share.set_ylim(-0.03, 1.03)
        caption(figure, _about(settings[0].runs[0], swept), _starts(settings))
        keys = [key("mean", color=BLUE, marker="o", ms=4), key("a start", color="0.5", ls="", marker="o", ms=2.5)]
        keys += [key("collapse (DNC)", color="black", lw=THIN), key(_lower_name(runs[0]), color=RED, ls=DASHED)]
        legend(figure, keys)
        return figure, table


@DRAWINGS.figure(
    "graph_ratio",
    of="deep free features with ReLU: the strongly regular graph against collapse, from theory alone",
    caption="From closed forms, no training: least objective of the strongly regular graph (SRG) over that of collapse "
    "in all layers (DNC), squared error, for C = r(r−1)/2 classes. Solid: at the lambda and the samples a class of the "
    "runs; dashed: in the limit of a small lambda. Below 1 collapse is not optimal.",
    needs=DEEP,
)
def graph_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """One panel; the table has depth, vertices, classes, ratio, limit (of lambda to 0)."""
    run = runs[0]
    rows = []
    for depth in (3, 4, 5):
        for r in range(3, 9):
            c = classes_of(r)
            limit = (trunk(r, depth) / c**depth) ** (1 / (depth + 1))
            rows.append(
                {"depth": depth, "vertices": r, "classes": c, "ratio": graph_ratio(run, r, depth), "limit": limit}
            )
    table = pd.DataFrame(rows)
    with style():
        figure = Figure(figsize=(WIDTH * 0.6, 2.6), layout="constrained")
        axes = figure.subplots()
        keys = []
        for depth, colour, marker in zip((3, 4, 5), (RED, BLUE, GREEN), "s^o", strict=True):
            own = table[table.depth == depth]
            axes.plot(own.vertices, own.ratio, color=colour, marker=marker, ms=4, lw=THICK)
            axes.plot(own.vertices, own.limit, color=colour, ls=DASHED, lw=THIN)
            keys.append(key(f"{depth} layers", color=colour, marker=marker, ms=4))
        axes.axhline(1, color="black", lw=THIN)
        axes.set_xticks(range(3, 9), [f"{r}\n({classes_of(r)})" for r in range(3, 9)])
        axes.set_xlabel("r (classes)")
        axes.set_ylabel("L_SRG / L_DNC")
        per_class, decay = sizes(run)[1], penalties(run)[0]
        caption(
            figure, "From closed forms, no training; squared error, ReLU", f"λ = {decay:g}, {per_class} samples a class"
        )
        legend(figure, [*keys, key("λ to 0", ls=DASHED, lw=THIN)])
        return figure, table


@DRAWINGS.table("deep_ends", of="deep free features: where gradient descent ends, against closed forms", needs=DEEP)
def deep_table(runs: list[Run], policies: list[str] | None = None) -> tuple[pd.DataFrame, None]:
    """A row a setting: layers, width, lambda, starts, closed forms, objective, rank, share of starts at collapse."""
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        model = run.config["model"]
        kind = "linear" if model["activation"] == "none" or model["depth"] == 1 else "ReLU"
        groups.setdefault((kind, model["depth"], model["dim"], penalties(run)[0]), []).append(run)
    rows = []
    for (kind, depth, dim, decay), own in sorted(groups.items()):
        refuse_mixture(own)
        values = pd.Series([final_objective(run) for run in own])
        lower = low_rank(own[0])
        rows.append(
            {"layers": f"{depth} {kind}", "width": dim, "lambda": f"{decay:g}", "starts": len(own),
             "L_DNC": f"{collapse(own[0]).objective:.5f}", "L_lower": f"{lower.objective:.5f}" if lower else "-",
             "objective": f"{values.mean():.5f} ± {values.std():.5f}",
             "rank": f"{np.mean([hidden_rank(run) for run in own]):.1f}",
             "at DNC": f"{sum(map(at_collapse, own))} of {len(own)}"}
        )  # fmt: skip
    return pd.DataFrame(rows), None


def _value(swept: str, value: float) -> str:
    return (
        f"{SWEPT[swept]} {_tick(swept, value)}" if swept == "model.dim" else f"{SWEPT[swept]} = {_tick(swept, value)}"
    )


def _tick(swept: str, value: float) -> str:
    exponent = np.log2(value)
    return f"$2^{{{exponent:.0f}}}$" if swept == "loss.l2" and abs(exponent - round(exponent)) < 1e-9 else f"{value:g}"


def _about(run: Run, swept: str) -> str:
    (classes, per_class), model = sizes(run), run.config["model"]
    loss = "cross-entropy" if run.config["loss"]["name"] == "cross_entropy" else "squared error"
    layers = f"{model['depth']} {'linear' if model['activation'] == 'none' or model['depth'] == 1 else 'ReLU'} layers"
    other = f"λ = {penalties(run)[0]:g}" if swept == "model.dim" else f"width {model['dim']}"
    return f"Free features: {classes} classes of {per_class}, {layers}, {loss}, {other}; gradient descent"


def _starts(settings: list[Setting]) -> str:
    counts = sorted({len(setting.runs) for setting in settings})
    return f"{' to '.join(map(str, counts))} starts"


def _lower_name(run: Run) -> str:
    return (
        "classes in pairs (rank C/2)" if run.config["model"]["activation"] == "none" else "strongly regular graph (SRG)"
    )
