"""Figures 3 and 4: vision transformers of several depths, one column a number of blocks."""

from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nclab.analysis.curves import NETWORK, brief, curves
from nclab.analysis.drawing import (
    GREY,
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
from nclab.analysis.labels import BASELINE, NO_FFN, count_of_blocks
from nclab.analysis.needs import Needs
from nclab.analysis.runs import Run, choose, refuse_mixture, usual_policies

BLOCKS = "model.blocks"
FFN_ETF = r"FFN-ETF( \+ head)?"  # of all blocks
ACCURACY = f"{BASELINE}|{FFN_ETF}"
LINE = 0.075  # height of a line of a panel's own legend, as a share of the panel
# Okabe and Ito's colours, told apart by colour-blind readers too; line styles for those who print in grey.
LOOKS = {
    BASELINE: {"color": "black", "ls": "-"},
    "FFN-ETF": {"color": "#0072B2", "ls": (0, (5, 1.2))},
    "frozen FFN": {"color": "#D55E00", "ls": (0, (3, 1, 1, 1))},
    NO_FFN: {"color": "#009E73", "ls": (0, (1, 1))},
}
OTHER_LOOKS = [
    {"color": "#CC79A7", "ls": (0, (5, 1, 1, 1, 1, 1))},
    {"color": "#E69F00", "ls": (0, (2, 1))},
    {"color": "#56B4E9", "ls": (0, (7, 1))},
]
# Colour says which block a layer belongs to, the line which layer it is. What is fixed is not dashed here: of FFN-ETF
# that is every feed-forward layer, from the start. The outputs of the blocks lie between their two layers and would
# hide them; `figure1` shows them, of one depth.
ROLES = {
    "ffn_in": {"label": "ffn_in", "ls": (0, (1, 0.8))},
    "ffn_out": {"label": "ffn_out", "ls": "-"},
    "classifier": {"label": "head", "lw": THIN, "zorder": 4, "color": "black"},
}


@DRAWINGS.figure(
    "figure3",
    of="vision transformers of several depths, baseline and FFN-ETF: accuracy over training",
    caption="Figure 3: vision transformers of 1 to 4 blocks, trained in full against ETF feed-forward layers.",
    says=brief,
    needs=Needs(
        "vision transformers trained as baseline or FFN-ETF", roles=frozenset({"attention"}), policies=ACCURACY
    ),
)
def figure3(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Accuracy of the network over training, baseline against FFN-ETF; returns the picture and the table behind it.

    The table is that of `curves` with the columns blocks and learnable (parameters, mean over seeds).
    """
    runs = _choose(runs, policies, ACCURACY, "baseline, FFN-ETF")
    parts = []
    for blocks, group in _by_blocks(runs).items():
        counts = pd.Series([run.result("parameters_learnable") for run in group], index=[run.policy for run in group])
        table = curves(group, layers=[])
        parts.append(table.assign(blocks=blocks, learnable=table.policy.map(counts.groupby(level=0).mean())))
    table = _front(pd.concat(parts, ignore_index=True), "blocks")
    with style():
        return _draw_accuracy(table, _policies(runs), _caption(runs, "accuracy, number of learnable parameters")), table


@DRAWINGS.figure(
    "figure4",
    of="vision transformers with FFN-ETF: NCC accuracy of their feed-forward layers over training",
    caption="Figure 4: NCC accuracy of the feed-forward layers of ETF-Transformers.",
    says=partial(brief, across="split"),
    needs=Needs(
        "vision transformers with feed-forward layers trained as FFN-ETF",
        roles=frozenset({"attention", "ffn_in", "ffn_out"}),
        policies=FFN_ETF,
    ),
)
def figure4(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """NCC accuracy of both feed-forward layers of every block, and of the head, over training.

    One pair of rows a policy. The table is that of `curves` with the columns blocks, block (that a layer belongs
    to; 0: the head) and role.
    """
    runs = _choose(runs, policies, FFN_ETF, "FFN-ETF")
    parts = []
    for blocks, group in _by_blocks(runs).items():
        places = {name: place for run in group for name, place in _places(run).items()}
        table = curves(group, layers=list(places))
        table = table[table.layer != NETWORK]
        block, role = (table.layer.map({name: place[i] for name, place in places.items()}) for i in (0, 1))
        parts.append(table.assign(blocks=blocks, block=block, role=role))
    table = _front(pd.concat(parts, ignore_index=True), "blocks")
    with style():
        return _draw_layers(table, _policies(runs), _caption(runs, "NCC accuracy of the feed-forward layers")), table


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


def _draw_accuracy(table: pd.DataFrame, policies: list[str], caption: str) -> Figure:
    blocks, looks = table.blocks.unique(), _looks(policies)
    figure, grid = panels(2, [count_of_blocks(number) for number in blocks], caption)
    for row, split in zip(grid, ("train", "test"), strict=True):
        row[0].set_ylabel(f"{split} accuracy")
        for axes, number in zip(row, blocks, strict=True):
            panel = table[(table.blocks == number) & (table.split == split)]
            for policy in policies:
                curve(axes, panel[panel.policy == policy], **looks[policy])
    for axes, number in zip(grid[1], blocks, strict=True):
        _parameters(axes, table[table.blocks == number].groupby("policy").learnable.first(), looks)
    limits(grid[0, 0], table, lowest(table), LINE * (len(policies) + 0.5))
    legend(figure, [key(policy, **looks[policy]) for policy in policies])
    return figure


def _parameters(axes: Axes, learnable: pd.Series, looks: dict[str, dict]) -> None:
    """The legend of one panel: learnable parameters of each policy, and how much less than the baseline's."""
    keys = []
    for policy in [policy for policy in looks if policy in learnable]:
        saved = 1 - learnable[policy] / learnable.get(BASELINE, learnable[policy])
        text = f"{learnable[policy]:,.0f}" + (f" (−{100 * saved:.0f} %)" if saved > 0 else "")
        keys.append(key(text, **looks[policy]))
    axes.legend(handles=keys, loc="lower right", fontsize=6, handlelength=2, labelspacing=0.3, borderaxespad=0.1)


def _draw_layers(table: pd.DataFrame, policies: list[str], caption: str) -> Figure:
    blocks = table.blocks.unique()
    colours = depth_colours(range(1, table.block.max() + 1))
    rows = [(policy, split) for policy in policies for split in ("train", "test")]
    figure, grid = panels(len(rows), [count_of_blocks(number) for number in blocks], caption)
    for row, (policy, split) in zip(grid, rows, strict=True):
        row[0].set_ylabel(f"{policy}\n{split} NCC accuracy")
        for axes, number in zip(row, blocks, strict=True):
            panel = table[(table.blocks == number) & (table.split == split) & (table.policy == policy)]
            if panel.empty:
                axes.text(0.5, 0.5, "no run", color=GREY, ha="center", transform=axes.transAxes)
            for (_, block, role), layer in panel.groupby(["layer", "block", "role"], sort=False):
                curve(axes, layer, **{"color": colours.get(block)} | ROLES[role])
    limits(grid[0, 0], table, lowest(table))
    keys = [key(f"block {block}", color=colour) for block, colour in colours.items()]
    keys += [key(**look) for role, look in ROLES.items() if role in set(table.role)]
    legend(figure, keys)
    return figure


def _policies(runs: list[Run]) -> list[str]:
    return list(dict.fromkeys(run.policy for run in runs))


def _looks(policies: list[str]) -> dict[str, dict]:
    others = iter(OTHER_LOOKS * len(policies))
    return {policy: LOOKS.get(policy) or next(others) for policy in policies}


def _front(table: pd.DataFrame, column: str) -> pd.DataFrame:
    return table[[column, *(name for name in table if name != column)]]


def _caption(runs: list[Run], shown: str) -> str:
    config = runs[0].config
    counts = pd.Series([(run.settings[BLOCKS], run.policy) for run in runs]).value_counts()
    return f"{config['dataset']['name']}, {config['model']['name']}: {shown}; {seeds_note(counts)}"
