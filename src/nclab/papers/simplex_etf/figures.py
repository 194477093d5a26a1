"""Figures 1 and 2: NCC accuracy of every layer and the network's accuracy over training, one column a policy.

The paper's axis is the accuracy. Beside it stands the error 1 - accuracy on a log axis, where 0.99 and 1.00 part.
"""

import pandas as pd
from matplotlib.figure import Figure

from nclab.analysis.columns import floors_of
from nclab.analysis.curves import NETWORK, brief, curves, fixed_since, switches
from nclab.analysis.drawing import THIN, caption, depth_colours, key, legend, seeds_note, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.labels import setting_label
from nclab.analysis.needs import Needs
from nclab.analysis.panels import (
    SWITCH_NOTE,
    Grid,
    fixed_key,
    network_key,
    switch_key,
    switch_lines,
    zero_keys,
    zero_notes,
)
from nclab.analysis.runs import Run, choose, refuse_mixture, usual_policies

LAST_K, ADAPTIVE = r"baseline|last \d+ ETF( canonical)?", "baseline|Adaptive-ETF"  # the usual policies
PLAIN = frozenset({"block"})  # what a network of layers does not have
SPLITS = ("train", "test")


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
    """Baseline against Adaptive-ETF, with a line where each layer became fixed."""
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
    table = curves(runs)
    with style():
        return _draw(table, runs, marks), table


def _draw(table: pd.DataFrame, runs: list[Run], marks: bool) -> Figure:
    policies = list(table.policy.unique())
    layers = [layer for layer in table.layer.unique() if layer != NETWORK]
    colours, fixed = depth_colours(layers), fixed_since(runs)
    # What is fixed before training looks so from the start. Both layers of a ViT's block are one switch of a run.
    switched = switches(runs)
    during = switched[switched.epoch > 0].drop_duplicates(["policy", "seed", "stage", "epoch"])
    marked = [layer for layer in reversed(layers) if marks and layer in set(during.stage)]
    counts = pd.Series([run.policy for run in runs]).value_counts()
    grid = Grid({split: f"{split} NCC accuracy" for split in SPLITS}, {name: name for name in policies})
    floors = floors_of(runs, table, SPLITS)
    for (split, policy), cell in grid.cells.items():
        cell.floor = floors[split][0]
        panel = table[(table.policy == policy) & (table.split == split)]
        for name in layers:
            cell.curve(panel[panel.layer == name], fixed.get((policy, name)), color=colours[name])
        # A thin black line on top of the last layer's light one: where they coincide, both are seen.
        cell.curve(panel[panel.layer == NETWORK], color="black", lw=THIN, zorder=4)
    grid.finish(table)
    for (split, policy), cell in grid.cells.items():
        epochs = {layer: during.epoch[(during.policy == policy) & (during.stage == layer)] for layer in marked}
        epochs = {layer: values for layer, values in epochs.items() if len(values)}
        panels = [cell.accuracy, cell.error] if grid.beside else [cell.accuracy]
        switch_lines(panels, epochs, counts[policy], colours, labels=split == SPLITS[0])
        if not grid.beside:
            switch_lines([cell.error], epochs, counts[policy], colours, labels=False)
    keys = [key(layer, color=colours[layer]) for layer in layers] + [network_key()]
    keys += [fixed_key()] if any(layer in layers for _, layer in fixed) else []
    keys += [switch_key()] if marked else []
    legend(grid.figure, keys + zero_keys(grid))
    stages = "each block and the head" if "blocks" in runs[0].config["model"] else "each layer"
    notes = ([SWITCH_NOTE] if marked else []) + zero_notes(grid, floors)
    title = f"{setting_label(runs[0].config)}: NCC accuracy of {stages}; {seeds_note(counts)}"
    caption(grid.figure, title, "; ".join(notes))
    return grid.figure
