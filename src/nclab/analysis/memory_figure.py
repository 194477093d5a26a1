"""Memory and time of a training step by policy: what weights, gradients and optimizer take, and how long a step is."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nclab.analysis.drawing import WIDTH, caption, key, legend, seeds_note, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.labels import setting_label
from nclab.analysis.runs import AnalysisError, Run, choose, flatten, refuse_mixture

MIB = 2**20
# Entry of summary.json's memory -> what a bar calls it, its colour and its hatch, which tells it in grey too.
PARTS = {
    "weights_learnable": ("learnable weights", "#0072B2", ""),
    "weights_fixed": ("fixed weights", "#56B4E9", "////"),
    "gradients": ("gradients", "#E69F00", ""),
    "optimizer": ("optimizer state", "#009E73", "...."),
}
NEEDED = (*(f"memory.{part}_bytes" for part in PARTS), "memory.peak_bytes", "memory.peak_of", "step_seconds")


@DRAWINGS.figure(
    "memory",
    of="any runs: memory of weights, gradients and optimizer, peak, and seconds of a step, a bar a policy",
    caption="Memory of weights, gradients and optimizer at the end of training, and seconds of a step, by policy.",
    says=lambda table: brief(table),
)
def memory(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Stacked bars in MiB, the peak as a mark in a panel of its own scale: means over seeds. Beside them a step's time.

    It is that of the fastest seed, with a line to the median one: other work on the machine only makes steps slower.

    The table: policy, n, mean and std of each part and the peak (bytes), step_seconds and step_seconds_median; peak_of.

    Raises:
        AnalysisError: A run was trained before these were recorded; the message says what to do.
    """
    runs = choose(runs, policies) if policies else runs
    refuse_mixture(runs)
    table = memory_table(runs)
    with style():
        return _draw(table, runs), table


def memory_table(runs: list[Run]) -> pd.DataFrame:
    """What `memory` draws, a row a policy."""
    rows = []
    for policy in dict.fromkeys(run.policy for run in runs):
        found = pd.DataFrame([_numbers(run) for run in runs if run.policy == policy])
        row = {"policy": policy, "n": len(found)}
        for name in (*(f"{part}_bytes" for part in PARTS), "peak_bytes"):
            row |= {name: found[name].mean(), f"{name}_std": found[name].std()}
        row |= {"step_seconds": found.step_seconds.min(), "step_seconds_median": found.step_seconds.median()}
        rows.append(row | {"peak_of": " or ".join(found.peak_of.unique())})
    return pd.DataFrame(rows)


def _numbers(run: Run) -> dict:
    summary = flatten(run.summary)
    for name in NEEDED:
        if summary.get(name) is None:
            raise AnalysisError(
                f"{run.path / 'summary.json'}: no {name}: trained before memory and step time were recorded; train it "
                "again with overwrite=true"
            )
    return {name.removeprefix("memory."): summary[name] for name in NEEDED}


def brief(table: pd.DataFrame) -> pd.DataFrame:
    """For a terminal: MiB and milliseconds, a row a policy."""
    rows = []
    for row in table.to_dict("records"):
        cells = {"policy": row["policy"], "seeds": str(row["n"])}
        cells |= {f"{name} MiB": f"{row[f'{part}_bytes'] / MIB:.3g}" for part, (name, *_) in PARTS.items()}
        cells |= {"peak MiB": f"{row['peak_bytes'] / MIB:.4g}", "step ms": f"{1000 * row['step_seconds']:.3g}"}
        rows.append(cells)
    return pd.DataFrame(rows)


def _draw(table: pd.DataFrame, runs: list[Run]) -> Figure:
    figure = Figure(figsize=(WIDTH, 1.3 + 0.27 * len(table)), layout="constrained")
    bars, peak, time = figure.subplots(1, 3, sharey=True, width_ratios=(3, 1.3, 1.3))
    places = -np.arange(len(table))
    left = np.zeros(len(table))
    for part, (_, colour, hatch) in PARTS.items():
        width = table[f"{part}_bytes"].to_numpy(float) / MIB
        bars.barh(places, width, 0.62, left, color=colour, hatch=hatch, edgecolor="white", lw=0.4, zorder=3)
        left = left + width
    bars.set_yticks(places, table.policy)
    bars.tick_params(axis="y", length=0)
    bars.set_xlabel("MiB, by what takes it")
    of_peak = table.peak_bytes_std.fillna(0) / MIB
    _marks(peak, table.peak_bytes / MIB, [of_peak, of_peak], marker="D", color="#D55E00")
    beyond = 1000 * (table.step_seconds_median - table.step_seconds)
    _marks(time, 1000 * table.step_seconds, [0 * beyond, beyond], marker="o", color="black")
    peak.set_xlabel("peak (MiB)")
    time.set_xlabel("a step (ms)")
    bars.set_xlim(0, 1.05 * left.max() if left.max() > 0 else 1)
    keys = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=name) for name, colour, hatch in PARTS.values()
    ]
    keys += [
        key("peak", ls="", ms=4, marker="D", color="#D55E00"),
        key("step time, fastest seed", ls="", ms=4, marker="o", color="black"),
    ]
    legend(figure, keys)
    peaks = " or ".join(table.peak_of.unique())
    title = f"{setting_label(runs[0].config)}: memory and time of a step; {seeds_note(table.n)}"
    several = "; step: the fastest seed, line to the median one" if table.n.max() > 1 else ""
    caption(figure, title, f"at the end of training; peak: {peaks}{several}")
    return figure


def _marks(axes: Axes, values: pd.Series, spread: list[pd.Series], **look) -> None:
    """Marks, a row a policy, with lines to both sides, on an axis from 0."""
    axes.errorbar(values, -np.arange(len(values)), xerr=spread, ls="", ms=4, lw=0.9, capsize=1.6, zorder=3, **look)
    top = (values + spread[1]).max()
    axes.set_xlim(0, 1.1 * top if top > 0 else 1)
    axes.tick_params(axis="y", length=0)
