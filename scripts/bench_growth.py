"""How the cost of measuring, and of a training epoch, grows: with samples, dimension, classes, depth and width.

    python scripts/bench_growth.py            writes outputs/bench/growth.json, scaling.pdf, .png and .csv

Samples, dimension and classes: `measure` on features that are at hand. Depth and width: a training epoch and a full
measurement (every probe, train and test) of an MLP on 6,000 + 1,000 images of 28 x 28. The exponent is the slope of
log seconds against log size over all points of a curve, by least squares; constant costs bend the small end.
"""

import sys
from functools import partial

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from nclab.analysis.drawing import WIDTH, save_figure, style
from nclab.bench.by_hand import feed, learner
from nclab.bench.harness import Call, arguments, images, interleaved, limits, save
from nclab.data import Dataset, Split
from nclab.interfaces.targets import Classes
from nclab.metrics import measure
from nclab.models.mlp import MLP
from nclab.training.evaluate import MetricsSettings, evaluate
from nclab.training.optim import SGDSettings, sgd
from nclab.training.step import train_epoch

N, D, C = 30_000, 512, 10  # of the curves that vary something else
IMAGES = {"train": 6000, "test": 1000}  # of the curves of depth and width
SIZES = {
    "N": [3_750, 7_500, 15_000, 30_000, 60_000, 120_000],
    "d": [64, 128, 256, 512, 1024, 2048, 4096],
    "C": [10, 32, 100, 316, 1000],
    "depth": [3, 5, 9, 17, 33],
    "width": [100, 200, 400, 800, 1600],
}
LABELS = {"N": "samples N", "d": "dimension d", "C": "classes C", "depth": "linear maps", "width": "width of a map"}
COLOURS = {"measure": "#0072B2", "train": "#D55E00"}  # Okabe and Ito: apart for colour-blind eyes
MARKS = {"measure": "o", "train": "s"}


def measuring(device: str, n: int = N, d: int = D, c: int = C) -> dict[str, Call]:
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % c
    features = torch.randn(c, d, generator=g)[labels] + torch.randn(n, d, generator=g)
    return {"measure": partial(measure, features.to(device), labels.to(device), c)}


def network(device: str, depth: int = 5, width: int = 400) -> dict[str, Call]:
    splits = {part: Split(*images(n, C, (1, 28, 28), seed=n)) for part, n in IMAGES.items()}
    dataset = Dataset(splits, Classes(C), (1, 28, 28)).to(device)
    torch.manual_seed(0)
    model = MLP(784, C, depth, width).to(device)
    optimizer = sgd(SGDSettings(), model.parameters())
    return {
        "measure": partial(evaluate, model, dataset, MetricsSettings()),
        "train": partial(train_epoch, learner(model, optimizer), feed(dataset, 128)),
    }


def times(device: str, repeats: int, points: int) -> pd.DataFrame:
    """Columns over, size, what, seconds, of the first `points` sizes of every curve."""
    rows = []
    for over, sizes in SIZES.items():
        for size in sizes[:points]:
            build = measuring if over in "NdC" else network
            calls = build(device, **{over.lower(): size})
            for what, spent in zip(calls, interleaved(repeats, *calls.values(), device=device), strict=True):
                rows.append({"over": over, "size": size, "what": what, "seconds": spent})
                print(f"{over}={size} {what}: {spent:.4f} s", flush=True)
    return pd.DataFrame(rows)


def exponents(table: pd.DataFrame) -> dict[str, float]:
    """'over/what' -> slope of the whole curve."""
    return {
        f"{over}/{what}": float(np.polyfit(np.log(rows["size"]), np.log(rows.seconds), 1)[0])
        for (over, what), rows in table.groupby(["over", "what"], sort=False)
    }


def panel(axes: Axes, over: str, table: pd.DataFrame, slopes: dict[str, float]) -> None:
    for what, rows in table.groupby("what", sort=False):
        label = f"{what}, exponent {slopes[f'{over}/{what}']:.2f}"
        axes.loglog(rows["size"], rows.seconds, marker=MARKS[what], ms=3, lw=1.3, color=COLOURS[what], label=label)
    first = table[table.what == "measure"].iloc[0]
    sizes = table["size"].unique()
    axes.loglog(sizes, first.seconds * sizes / first["size"], lw=0.8, ls=(0, (3, 2)), color="0.55", label="linear")
    axes.set_xlabel(LABELS[over])
    axes.set_xticks(sizes, [f"{size / 1000:.3g}k" if over == "N" else str(size) for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(table.seconds.min() / 2, table.seconds.max() * 12)  # room for the legend above the curves
    axes.legend(loc="upper left")


def draw(table: pd.DataFrame, slopes: dict[str, float], caption: str) -> Figure:
    with style():
        figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
        grid = figure.subplot_mosaic([["N", "N", "d", "d", "C", "C"], [".", "depth", "depth", "width", "width", "."]])
        for over, axes in grid.items():
            panel(axes, over, table[table.over == over], slopes)
        for name in ("N", "depth"):
            grid[name].set_ylabel("seconds")
        figure.suptitle(caption, fontsize=7.5, color="0.35")
    return figure


def main() -> int:
    args = arguments(__doc__.splitlines()[0], "growth", points=max(map(len, SIZES.values())))
    machine = limits(args.device)
    table = times(args.device, args.repeats, args.points)
    slopes = exponents(table)
    caption = f"N = {N:,}, d = {D}, C = {C} where not varied; 6,000 images for depth and width; threads: {args.threads}"
    print(*save_figure(draw(table, slopes, caption), table, args.out.with_name("scaling")), sep="\n")
    for name, slope in slopes.items():
        print(f"{name}: exponent {slope:.2f}")
    rows = table.to_dict("records")
    save(args.out, {"limits": machine, "exponents": slopes, "rows": rows}, args.device, args.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
