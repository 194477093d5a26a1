"""The depth profile: effective depth, and the layers beyond it, as a function of the tolerance.

One tolerance decides too much: with metrics.eps at 0.010 or at 0.012 the same networks have no layer beyond their
effective depth, or one. So claims are about the middle of a range of tolerances, and about its ends.
"""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from nclab.analysis.drawing import caption, key, legend, seeds_note, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.labels import setting_label
from nclab.analysis.last_layer import at_end
from nclab.analysis.looks import looks
from nclab.analysis.needs import Needs
from nclab.analysis.runs import AnalysisError, Run, choose, refuse_mixture, usual_policies
from nclab.analysis.statistics import statistic
from nclab.interfaces.effective_depth import effective_depth

STRICT, LOOSE = 0.005, 0.1  # NCC errors; 0.1 is what the rule of the author's earlier code tolerates
AXIS = np.geomspace(1e-3, 0.5, 301)  # tolerances that the figure shows
USUAL = r"baseline|last \d+ ETF( canonical)?|Adaptive-ETF"
SIZE = (4.6, 3.3)  # inches: a column and a half
RANGE = {"color": "0.93", "lw": 0}
MOST = 7  # policies whose lines can be told apart


def ncc_at_end(run: Run) -> list[float] | None:
    """Train NCC accuracy of every stage after the last epoch, input to output; None where it was not measured."""
    measured = at_end(run)
    ncc = [measured.get((stage, "ncc_accuracy"), math.nan) for stage in run.stages]
    return None if all(map(math.isnan, ncc)) else ncc


@statistic("points", measured=True)
def tolerance_for_one_layer(run: Run, treated: Run) -> float:
    """Least tolerance at which a stage lies beyond the effective depth, in points of train NCC error: the greater of
    the errors of the last two stages. At all greater tolerances a stage lies beyond too.
    """
    ncc = ncc_at_end(run)
    return math.nan if ncc is None or len(ncc) < 2 else 100.0 * (1.0 - min(ncc[-2:]))


def profiles(runs: list[Run]) -> pd.DataFrame:
    """Effective depth over tolerances: policy, eps, mean, std over seeds, n, and share of the seeds without one.

    Without an effective depth, that of a network of L stages counts as L + 1: no stage is separated. Raises
    AnalysisError for a run that was not measured after its last epoch.
    """
    rows = []
    for run in runs:
        if (ncc := ncc_at_end(run)) is None:
            raise AnalysisError(f"{run.path / 'metrics.csv'}: no train ncc_accuracy at epoch {run.end}")
        for eps in AXIS:
            depth = effective_depth(ncc, eps)
            none = math.isnan(depth)
            rows.append((run.policy, eps, len(ncc) + 1.0 if none else depth, none))
    table = pd.DataFrame(rows, columns=["policy", "eps", "depth", "none"])
    by = table.groupby(["policy", "eps"], sort=False)
    found = by["depth"].agg(["mean", "std", "count"]).rename(columns={"count": "n"})
    return found.assign(share_without=by["none"].mean()).reset_index()


def at_tolerances(table: pd.DataFrame) -> pd.DataFrame:
    """For a terminal: a row a policy, a column a tolerance."""
    wanted = [AXIS[np.abs(np.log(AXIS / eps)).argmin()] for eps in (0.001, STRICT, 0.01, 0.02, 0.05, LOOSE)]
    rows = table[table.eps.isin(wanted)]
    cells = rows["mean"].map("{:.1f}".format) + rows["std"].map(lambda std: "" if pd.isna(std) else f" ± {std:.1f}")
    wide = rows.assign(cell=cells, eps=rows.eps.map("eps {:.2g}".format)).pivot(
        index="policy", columns="eps", values="cell"
    )
    return wide.reindex(index=table.policy.unique(), columns=[f"eps {eps:.2g}" for eps in wanted]).reset_index()


@DRAWINGS.figure(
    "depth_profile",
    of="one network, any policies: its effective depth over the tolerance of NCC error",
    caption="Effective depth over the tolerance: the first layer from which on every train NCC error is within it.",
    says=at_tolerances,
    needs=Needs("networks trained as baseline, last k ETF or Adaptive-ETF", policies=USUAL),
)
def depth_profile(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Effective depth after the last epoch against the tolerance, mean and spread over seeds; a line a policy, by
    default baseline, last k ETF and Adaptive-ETF."""
    runs = choose(runs, policies or usual_policies(runs, USUAL, "baseline, last k ETF, Adaptive-ETF"))
    refuse_mixture(runs)
    table = profiles(runs)
    if table.policy.nunique() > MOST:
        raise AnalysisError(f"depth_profile draws up to {MOST} policies, got {table.policy.nunique()}; name some")
    stages = len(runs[0].stages)
    with style():
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        axes.axvspan(STRICT, LOOSE, zorder=0, **RANGE)
        lines = {policy: {k: look[k] for k in ("color", "ls")} for policy, look in looks(table.policy.unique()).items()}
        for policy, look in lines.items():
            line = table[table.policy == policy]
            axes.plot(line.eps, line["mean"], drawstyle="steps-post", lw=1.4, zorder=3, **look)
            low, high = (np.clip(line["mean"] + sign * line["std"], 1, stages + 1) for sign in (-1, 1))
            if line.n.iloc[0] > 1:
                axes.fill_between(line.eps, low, high, step="post", color=look["color"], alpha=0.13, lw=0, zorder=2)
        axes.set_xscale("log")
        axes.set_xticks([1e-3, 1e-2, 1e-1, 0.5], minor=False)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set(xlim=(AXIS[0], AXIS[-1]), ylim=(0.9, stages + 1.15))
        axes.set_yticks(range(1, stages + 2), [*map(str, range(1, stages + 1)), "none"])
        axes.set_xlabel("tolerance (train NCC error)")
        axes.set_ylabel("effective depth (layer)" if runs[0].stages[0].startswith(("fc", "act")) else "effective depth")
        keys = [key(policy, **look) for policy, look in lines.items()]
        legend(figure, [*keys, key("range of the claims", lw=6, color=RANGE["color"])])
        caption(figure, setting_label(runs[0].config), seeds_note(table.n))
    return figure, table
