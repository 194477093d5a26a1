"""Figures 3 and 4: vision transformers of several depths, one column a number of blocks."""

from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from nclab.analysis.columns import floors_of
from nclab.analysis.curves import NETWORK, brief, curves, fixed_since
from nclab.analysis.drawing import GREY, THIN, caption, depth_colours, key, legend, seeds_note, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.labels import BASELINE, NO_FFN, count_of_blocks, setting_label
from nclab.analysis.needs import Needs
from nclab.analysis.panels import FIXED, Grid, zero_keys, zero_notes
from nclab.analysis.runs import Run, choose, refuse_mixture, usual_policies

BLOCKS = "model.blocks"
USUAL = rf"{BASELINE}|FFN-ETF( \+ head)?( canonical)?"  # of all blocks
SPLITS = ("train", "test")
# Okabe and Ito's colours, told apart by colour-blind readers too; line styles for those who print in grey.
LOOKS = {
    BASELINE: {"color": "black", "ls": "-"},
    "FFN-ETF": {"color": "#0072B2", "ls": (0, (5, 1.2))},
    "frozen FFN": {"color": "#D55E00", "ls": (0, (3, 1, 1, 1))},
    "scaled FFN": {"color": "#E69F00", "ls": (0, (2, 1))},
    "orthogonal FFN": {"color": "#CC79A7", "ls": (0, (5, 1, 1, 1, 1, 1))},
    NO_FFN: {"color": "#009E73", "ls": (0, (1, 1))},
}
OTHER_LOOKS = [
    {"color": "#56B4E9", "ls": (0, (7, 1))},
    {"color": "0.55", "ls": (0, (3, 1, 1, 1, 1, 1))},
    {"color": "#999933", "ls": (0, (4, 2))},
]
# Colour says which block a layer belongs to, the line which layer it is: what is fixed has markers alone. The outputs
# of the blocks lie between their two layers and would hide them; `layers` shows them, of one depth.
ROLES = {
    "ffn_in": {"label": "ffn_in", "ls": (0, (1, 0.8))},
    "ffn_out": {"label": "ffn_out", "ls": "-"},
    "classifier": {"label": "head", "lw": THIN, "zorder": 4, "color": "black"},
}
MARKED = {name: value for name, value in FIXED.items() if name != "ls"} | {"markevery": 0.2}


@DRAWINGS.figure(
    "figure3",
    of="vision transformers of several depths, baseline and FFN-ETF: accuracy over training",
    caption="Figure 3: vision transformers of 1 to 4 blocks, trained in full against ETF feed-forward layers.",
    says=brief,
    needs=Needs("vision transformers trained as baseline or FFN-ETF", roles=frozenset({"attention"}), policies=USUAL),
)
def figure3(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Accuracy of the network over training, baseline against FFN-ETF; returns the picture and the table behind it.

    The table is that of `curves` with the columns blocks and learnable (parameters, mean over seeds).
    """
    runs = _choose(runs, policies, USUAL, "baseline, FFN-ETF")
    parts = []
    for blocks, group in _by_blocks(runs).items():
        counts = pd.Series([run.result("parameters_learnable") for run in group], index=[run.policy for run in group])
        table = curves(group, layers=[])
        parts.append(table.assign(blocks=blocks, learnable=table.policy.map(counts.groupby(level=0).mean())))
    table = _front(pd.concat(parts, ignore_index=True), "blocks")
    with style():
        return _draw_accuracy(table, _policies(runs), runs), table


@DRAWINGS.figure(
    "figure4",
    of="vision transformers, baseline and FFN-ETF: NCC accuracy of their feed-forward layers over training",
    caption="Figure 4: NCC accuracy of the feed-forward layers of vision transformers, trained in full and as "
    "ETF-Transformers.",
    says=partial(brief, across="split"),
    needs=Needs(
        "vision transformers with feed-forward layers trained as baseline or FFN-ETF",
        roles=frozenset({"attention", "ffn_in", "ffn_out"}),
        policies=USUAL,
    ),
)
def figure4(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """NCC accuracy of both feed-forward layers of every block, and of the head, over training.

    A row a policy and split, the baseline's first. The table is that of `curves` with the columns blocks, block (that
    a layer belongs to; 0: the head) and role.
    """
    runs = _choose(runs, policies, USUAL, "baseline, FFN-ETF")
    parts = []
    for blocks, group in _by_blocks(runs).items():
        places = {name: place for run in group for name, place in _places(run).items()}
        table = curves(group, layers=list(places))
        table = table[table.layer != NETWORK]
        block, role = (table.layer.map({name: place[i] for name, place in places.items()}) for i in (0, 1))
        parts.append(table.assign(blocks=blocks, block=block, role=role))
    table = _front(pd.concat(parts, ignore_index=True), "blocks")
    with style():
        return _draw_layers(table, _policies(runs), runs), table


def _choose(runs: list[Run], policies: list[str] | None, pattern: str, usual: str) -> list[Run]:
    chosen = choose(runs, policies or usual_policies(runs, pattern, usual))
    refuse_mixture(chosen, by=BLOCKS)
    return chosen


def _by_blocks(runs: list[Run]) -> dict[int, list[Run]]:
    numbers = sorted({run.settings[BLOCKS] for run in runs})
    return {number: [run for run in runs if run.settings[BLOCKS] == number] for number in numbers}


def _places(run: Run) -> dict[str, tuple[int, str]]:
    """Layer -> its block, counted from 1 at the input (0: the head), and its role; the layers of Figure 4."""
    places, block = {}, 1
    for layer in run.layers:
        if layer["role"] in ROLES:
            places[layer["layer"]] = (0 if layer["role"] == "classifier" else block, layer["role"])
        block += layer["role"] == "block"
    return places


def _draw_accuracy(table: pd.DataFrame, policies: list[str], runs: list[Run]) -> Figure:
    looks = _looks(policies)
    grid = Grid({split: f"{split} accuracy" for split in SPLITS}, _columns(table))
    floors = floors_of(runs, table, SPLITS)
    for (split, number), cell in grid.cells.items():
        cell.floor = floors[split][0]
        panel = table[(table.blocks == number) & (table.split == split)]
        for policy in policies:
            cell.curve(panel[panel.policy == policy], **looks[policy])
    grid.finish(table)
    for number in table.blocks.unique():
        axes = grid[SPLITS[-1], number].accuracy if grid.beside else grid[SPLITS[-1], number].error
        learnable = table[table.blocks == number].groupby("policy", sort=False).learnable.first()
        axes.set_xlabel("\n".join(["epoch", *_parameters(learnable.reindex(policies).dropna())]))
    legend(grid.figure, [key(policy, **looks[policy]) for policy in policies] + zero_keys(grid))
    shown = "accuracy of the network; below: learnable parameters"
    caption(grid.figure, _title(runs, shown), *zero_notes(grid, floors))
    return grid.figure


def _parameters(learnable: pd.Series) -> list[str]:
    """Below the panels of one depth: learnable parameters of each policy, and how much less than the baseline's."""
    lines = []
    for policy, number in learnable.items():
        saved = 1 - number / learnable.get(BASELINE, number)
        lines.append(f"{policy}: {number:,.0f}" + (f" (−{100 * saved:.0f} %)" if saved > 0 else ""))
    return lines


def _draw_layers(table: pd.DataFrame, policies: list[str], runs: list[Run]) -> Figure:
    colours = depth_colours(range(1, table.block.max() + 1))
    rows = {(policy, split): f"{policy}\n{split}\nNCC accuracy" for policy in policies for split in SPLITS}
    grid = Grid(rows, _columns(table))
    fixed, floors = fixed_since(runs), floors_of(runs, table, SPLITS)
    for ((policy, split), number), cell in grid.cells.items():
        cell.floor = floors[split][0]
        panel = table[(table.blocks == number) & (table.split == split) & (table.policy == policy)]
        if panel.empty:
            for axes in (cell.accuracy, cell.error):
                axes.text(0.5, 0.5, "no run", color=GREY, ha="center", transform=axes.transAxes)
        for (name, block, role), layer in panel.groupby(["layer", "block", "role"], sort=False):
            marks = MARKED if (policy, name) in fixed else {}
            cell.curve(layer, **{"color": colours.get(block)} | ROLES[role] | marks)
    grid.finish(table)
    keys = [key(f"block {block}", color=colour) for block, colour in colours.items()]
    keys += [key(**look) for role, look in ROLES.items() if role in set(table.role)]
    there = set(zip(table.policy, table.layer, strict=True))
    keys += [key("fixed layer", ls="", **MARKED)] if there & fixed.keys() else []
    legend(grid.figure, keys + zero_keys(grid))
    shown = "NCC accuracy of the feed-forward layers"
    caption(grid.figure, _title(runs, shown), *zero_notes(grid, {row: floors[row[1]] for row in rows}))
    return grid.figure


def _columns(table: pd.DataFrame) -> dict[int, str]:
    return {number: count_of_blocks(number) for number in table.blocks.unique()}


def _policies(runs: list[Run]) -> list[str]:
    return list(dict.fromkeys(run.policy for run in runs))


def _looks(policies: list[str]) -> dict[str, dict]:
    others = iter(OTHER_LOOKS * len(policies))
    return {policy: LOOKS.get(policy) or next(others) for policy in policies}


def _front(table: pd.DataFrame, column: str) -> pd.DataFrame:
    return table[[column, *(name for name in table if name != column)]]


def _title(runs: list[Run], shown: str) -> str:
    counts = pd.Series([(run.settings[BLOCKS], run.policy) for run in runs]).value_counts()
    return f"{setting_label(runs[0].config, (BLOCKS,))}: {shown}; {seeds_note(counts)}"
