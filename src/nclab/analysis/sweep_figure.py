"""A final number against a key of the configuration that was swept: a line a policy, mean and spread over seeds."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from nclab.analysis.drawing import WIDTH, caption, key, legend, seeds_note, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.labels import policy_order, setting_label
from nclab.analysis.looks import looks
from nclab.analysis.runs import AnalysisError, Run, choose, differences

PERCENT = ("accuracy",)  # metrics that are fractions, drawn in per cent
MOST_COLUMNS = 4  # of panels
DECADES = 1.5  # of the values from which on their axis is logarithmic
ASIDE = 0.012  # of the axis, between lines at one value


@DRAWINGS.figure(
    "sweep",
    of="any runs of a sweep: a final number against the key that was swept (--along KEY)",
    caption="A final number of the network against a key that was swept; mean and spread over seeds.",
    takes=("along", "metric", "split"),
)
def sweep(
    runs: list[Run],
    policies: list[str] | None = None,
    along: str | None = None,
    metric: tuple[str, ...] = ("accuracy",),
    split: str = "test",
) -> tuple[Figure, pd.DataFrame]:
    """A line a policy (and size of the network), a column of panels a value of one further key in which runs differ, a
    row a metric.

    Args:
        along: Dotted key whose values are numbers, such as dataset.label_noise. None: the one with the most values in
            which runs differ, sizes of the network left aside.
        metric: Numbers of the network at the end of training, such as accuracy.
        split: Of this split.

    Returns:
        The figure, and its table: key, panel, label, seeds, mean and std of each metric. An accuracy is a fraction.

    Raises:
        AnalysisError: No numeric key differs, more than one further key differs, or a metric was not measured.
    """
    runs = choose(runs, policies) if policies else runs
    differing = {name: values for name, values in differences(runs).items() if name != "metrics.every"}
    _require_measured(runs, metric, split)
    sizes = [name for name in differing if name.startswith("model.")]
    along = along or _most_values(differing, sizes)
    _require_numbers(runs, along)
    others = [name for name in differing if name not in (along, *sizes)]
    if len(others) > 1:
        values = ", ".join(map(str, differing[others[-1]]))
        raise AnalysisError(
            f"panels tell one further key apart, and runs differ in {', '.join(others)}; choose, e.g. with "
            f"--where {others[-1]}=VALUE ({values})"
        )
    panel = others[0] if others else None
    table = _table(runs, along, panel, [name for name in sizes if name != along], metric, split)
    with style():
        return _draw(table, runs, along, panel, sizes, metric, split), table


def _most_values(differing: dict[str, list], sizes: list[str]) -> str:
    """The key with the most values, all of them numbers."""
    numeric = {name: values for name, values in differing.items() if name not in sizes and all(map(_is_number, values))}
    if not numeric:
        raise AnalysisError(
            f"no numeric key was swept; runs differ in {', '.join(differing) or 'seed and policy alone'}; name one "
            "with --along KEY"
        )
    return max(numeric, key=lambda name: len(numeric[name]))


def _require_numbers(runs: list[Run], along: str) -> None:
    for run in runs:
        if not _is_number(value := run.settings.get(along)):
            raise AnalysisError(f"--along {along}: expected a number in every run, got {value} in {run.path}")


def _require_measured(runs: list[Run], metric: Iterable[str], split: str) -> None:
    """Raise AnalysisError where a run has no such final number; the message names those it has."""
    for run in runs:
        final = {name: values for name, values in (run.summary.get("final") or {}).items() if isinstance(values, dict)}
        if split not in final:
            raise AnalysisError(f"--split: expected one of {', '.join(final) or 'none'}, got {split}; in {run.path}")
        for name in metric:
            if name not in final[split]:
                valid = ", ".join(final[split])
                raise AnalysisError(f"--metric: expected one of {valid} (final numbers of the network), got {name}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _table(
    runs: list[Run], along: str, panel: str | None, sizes: list[str], metric: Iterable[str], split: str
) -> pd.DataFrame:
    usual = {name: pd.Series([run.settings.get(name) for run in runs]).mode()[0] for name in sizes}
    rows = []
    for run in runs:
        other = [f"{name.split('.')[1]} {run.settings.get(name)}" for name in sizes if _other(run, name, usual)]
        row = {along: run.settings[along], "panel": run.settings.get(panel) if panel else ""}
        row |= {"label": ", ".join([run.policy, *other]), "seed": run.seed}
        rows.append(row | {name: float(run.result(f"final.{split}.{name}")) for name in metric})
    table = pd.DataFrame(rows)
    place = [along, "panel", "label"]
    if (twice := table.duplicated([*place, "seed"])).any():
        at = table[twice].iloc[0]
        raise AnalysisError(f"seed {at.seed} of {at.label} is there twice at {along}={at[along]}")
    groups = table.groupby(place, sort=False)
    found = groups["seed"].agg(seeds="count")
    for name in metric:
        found[name], found[f"{name}_std"] = groups[name].mean(), groups[name].std()
    found = found.reset_index()
    order = found.label.map(lambda label: (policy_order(label.split(",")[0]), label))
    return found.assign(order=order).sort_values(["panel", "order", along]).drop(columns="order").reset_index(drop=True)


def _other(run: Run, name: str, usual: dict[str, object]) -> bool:
    return run.settings.get(name) != usual[name]


def _draw(
    table: pd.DataFrame,
    runs: list[Run],
    along: str,
    panel: str | None,
    sizes: list[str],
    metric: tuple[str, ...],
    split: str,
) -> Figure:
    panels = list(dict.fromkeys(table.panel))
    if len(panels) > MOST_COLUMNS:
        raise AnalysisError(f"at most {MOST_COLUMNS} panels stand side by side, got {len(panels)} values of {panel}")
    figure = Figure(figsize=(WIDTH, 1.0 + 2.1 * len(metric)), layout="constrained")
    grid = figure.subplots(len(metric), len(panels), sharey="row", squeeze=False)
    labels = list(dict.fromkeys(table.label))
    look = looks(labels)
    values = sorted(set(table[along]))
    place, scale = _places(values)
    for i, name in enumerate(metric):
        for j, value in enumerate(panels):
            axes = grid[i, j]
            for k, label in enumerate(labels):
                rows = table[(table.panel == value) & (table.label == label)]
                _line(axes, rows, name, place, [along, look[label]], (k - (len(labels) - 1) / 2) * ASIDE)
            _axis(axes, values, place, scale)
            if i == 0 and panel:
                axes.set_title(f"{panel} = {_number(value)}")
            if i == len(metric) - 1:
                axes.set_xlabel(along)
        grid[i, 0].set_ylabel(f"{split} {name.replace('_', ' ')}{' (%)' if name in PERCENT else ''}")
    legend(figure, [key(label, **look[label], lw=1.0, ms=4, mfc="white", mew=0.9) for label in labels])
    title = setting_label(runs[0].config, tuple(sizes))
    caption(figure, f"{title}, {runs[0].config['epochs']} epochs; {seeds_note(table.seeds)}")
    return figure


def _places(values: list[float]) -> tuple[dict[float, float], str]:
    """Where each value stands from 0 to 1, and how: linear, logarithmic where they span decades, and evenly where 0
    is among values that do."""
    above = [value for value in values if value > 0]
    wide = len(above) > 1 and np.log10(max(above) / min(above)) >= DECADES
    if wide and min(values) > 0:
        numbers, scale = np.log10(values), "log"
    elif wide:
        numbers, scale = np.arange(len(values)), "even"
    else:
        numbers, scale = np.array(values, float), "linear"
    span = numbers[-1] - numbers[0] if len(values) > 1 else 1.0
    return dict(zip(values, (numbers - numbers[0]) / span, strict=True)), scale


def _line(axes: Axes, rows: pd.DataFrame, name: str, place: dict, how: list, aside: float) -> None:
    along, look = how
    factor = 100 if name in PERCENT else 1
    x = rows[along].map(place) + aside
    y, spread = factor * rows[name], factor * rows[f"{name}_std"].fillna(0)
    axes.errorbar(x, y, yerr=spread, **look, lw=1.0, ms=4, mfc="white", mew=0.9, elinewidth=0.8, capsize=0)


def _axis(axes: Axes, values: list[float], place: dict[float, float], scale: str) -> None:
    """A tick at every value that was trained."""
    axes.set_xlim(-0.08, 1.08)
    axes.set_xticks([place[value] for value in values], [_number(value) for value in values])
    axes.xaxis.set_minor_locator(NullLocator())
    if scale == "even":
        axes.annotate("values evenly spaced", (1, 0), (0, 3), "axes fraction", "offset points", fontsize=6, ha="right")


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
