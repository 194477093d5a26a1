"""Figures 1 and 2: NCC accuracy of every layer and the network's accuracy over training, one column a policy."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nclab.analysis.curves import NETWORK, brief, curves, fixed_since, switches
from nclab.analysis.drawing import (
    DASHES,
    THIN,
    curve,
    depth_colours,
    key,
    legend,
    limits,
    lowest,
    panels,
    seeds_note,
    style,
)
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.needs import Needs
from nclab.analysis.runs import Run, choose, refuse_mixture, usual_policies

LAST_K, ADAPTIVE = r"baseline|last \d+ ETF( canonical)?", "baseline|Adaptive-ETF"  # the usual policies
PLAIN = frozenset({"block"})  # what a network of layers does not have
MARK = 0.055  # height of a line of switch marks, as a share of the panel


@DRAWINGS.figure(
    "figure1",
    of="one network, baseline and last k ETF: NCC accuracy of every layer over training",
    caption="Figure 1: an MLP trained in full against the same MLP with its last 1, 2, 3 layers as simplex ETFs.",
    says=brief,
    needs=Needs("networks of layers, not of blocks, trained as baseline or last k ETF", without=PLAIN, policies=LAST_K),
)
def figure1(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Baseline against 1, 2, 3 ... fixed last layers; returns the picture and the table behind it."""
    return _compare(runs, policies or usual_policies(runs, LAST_K, "baseline, last k ETF"), False)


@DRAWINGS.figure(
    "figure2",
    of="one network, baseline and Adaptive-ETF: NCC accuracy of every layer over training",
    caption="Figure 2: an MLP trained in full against Adaptive-ETF, where layers beyond the effective depth become "
    "simplex ETFs while training.",
    says=brief,
    needs=Needs(
        "networks of layers, not of blocks, trained as baseline or Adaptive-ETF", without=PLAIN, policies=ADAPTIVE
    ),
)
def figure2(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Baseline against Adaptive-ETF, with a mark for every layer fixed in every seed."""
    return _compare(runs, policies or usual_policies(runs, ADAPTIVE, "baseline, Adaptive-ETF"), True)


@DRAWINGS.figure(
    "layers",
    of="one network of any kind, any policies: NCC accuracy of every step of depth over training",
    caption="NCC accuracy of every step of depth over training.",
    says=brief,
    needs=Needs("networks that decide between classes"),
)
def layers(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """As `figure2` of any network, such as one of blocks, and of all policies that are there."""
    return _compare(runs, policies or list(dict.fromkeys(run.policy for run in runs)), True)


def _compare(runs: list[Run], policies: list[str], marks: bool) -> tuple[Figure, pd.DataFrame]:
    runs = choose(runs, policies)
    refuse_mixture(runs)
    table, switched = curves(runs), switches(runs)
    with style():
        return _draw(table, switched, fixed_since(runs), _caption(runs), marks), table


def _draw(table: pd.DataFrame, switched: pd.DataFrame, fixed: dict, caption: str, marks: bool) -> Figure:
    policies = list(table.policy.unique())
    layers = [layer for layer in table.layer.unique() if layer != NETWORK]
    colours = depth_colours(layers)
    # What is fixed before training shows as dashed from the start. Both maps of a ViT's block are one mark a run.
    during = switched[switched.epoch > 0].drop_duplicates(["policy", "seed", "stage", "epoch"])
    marked = [layer for layer in reversed(layers) if marks and layer in set(during.stage)]
    figure, grid = panels(2, policies, caption)
    for row, split in zip(grid, ("train", "test"), strict=True):
        row[0].set_ylabel(f"{split} accuracy")
        for axes, policy in zip(row, policies, strict=True):
            panel = table[(table.policy == policy) & (table.split == split)]
            for name in layers:
                curve(axes, panel[panel.layer == name], fixed.get((policy, name)), color=colours[name])
            # A thin black line on top of the last layer's light one: where they coincide, both are seen.
            curve(axes, panel[panel.layer == NETWORK], color="black", lw=THIN, zorder=4)
            for i, layer in enumerate(marked):
                epochs = during.epoch[(during.policy == policy) & (during.stage == layer)]
                _marks(axes, epochs, (i + 0.75) * MARK, colours[layer])
    limits(grid[0, 0], table, lowest(table), MARK * (len(marked) + 0.5) if marked else 0)
    keys = [key(layer, color=colours[layer]) for layer in layers] + [key(NETWORK, color="black", lw=THIN)]
    if any(layer in layers for _, layer in fixed):
        keys.append(key("fixed layer", ls=DASHES))
    if marked:
        keys.append(key("switch", ls="", marker="|", ms=4, mew=1.2))
    legend(figure, keys)
    return figure


def _marks(axes: Axes, epochs: pd.Series, height: float, colour) -> None:
    """A tick a run at `height` (share of the axes); runs that switch in one epoch are counted beside their tick."""
    where = axes.get_xaxis_transform()
    axes.plot(epochs, np.full(len(epochs), height), "|", ms=4, mew=1.2, color=colour, transform=where)
    for epoch, count in epochs.value_counts().items():
        if count > 1:
            axes.annotate(f"×{count}", (epoch, height), (2, 0), where, "offset points", fontsize=5.5, va="center")


def _caption(runs: list[Run]) -> str:
    config = runs[0].config
    blocks = config["model"].get("blocks")
    model = config["model"]["name"] + (f" of {blocks} block{'s' if blocks > 1 else ''}" if blocks else "")
    stages = "each block and the head" if blocks else "each layer"
    counts = pd.Series([run.policy for run in runs]).value_counts()
    shown = f"NCC accuracy of {stages}, accuracy of the network"
    return f"{config['dataset']['name']}, {model}: {shown}; {seeds_note(counts)}"
