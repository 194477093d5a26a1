"""Compiled steps across a switch: CUDA graphs before it and after, against the same run without them."""

import csv
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from torch._dynamo.utils import counters

from nclab.bench.gpu.row import Aim, Line, Row, WrongResult, at_once
from nclab.config.composing import Composer, composing, run_config
from nclab.config.place import CONF
from nclab.run.execute import train

FASTER = Aim("compile=true, MLP-5x400: a training epoch as CUDA graphs", "times as fast", least=1.5)
AFTER = Aim("the same after the switch of two layers", "times as fast", least=1.5)
SKIPPED = Aim("compiled parts that are no CUDA graph, and breaks between them", most=0)
SWITCH, EPOCHS = 10, 20
RUN = (
    "dataset=digits",
    "threads=1",
    "etf=clock",
    "etf.k=2",
    f"etf.start={SWITCH}",
    "etf.order=at_once",
    f"epochs={EPOCHS}",
)
TOLERANCE = 0.05  # of the running loss: float32 products in another order, twenty epochs long


def epochs_of(folder: Path) -> list[dict[str, float]]:
    """Of each epoch of a run that measures every one: epoch, train_seconds, running_loss, learnable_parameters."""
    events = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    found = {event["epoch"]: event for event in events if event["event"] == "epoch"}
    with (folder / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            if row["metric"] in ("running_loss", "learnable_parameters") and int(row["epoch"]):
                found[int(row["epoch"])][row["metric"]] = float(row["value"])
    return [*found.values()]


def trained(words: tuple[str, ...], root: str) -> list[dict[str, float]]:
    with composing(CONF):
        return epochs_of(train(run_config(Composer()((*words, f"output_root={root}")))))


def uncaptured(counts: Any) -> tuple[int, str]:
    """Compiled parts that are no CUDA graph and graph breaks, by torch's counters; and of how many parts. Raises
    WrongResult where nothing was compiled."""
    parts, skipped = counts["stats"]["unique_graphs"], counts["inductor"]["cudagraph_skips"]
    breaks = sum(counts["graph_break"].values())
    if not parts:
        raise WrongResult("expected compiled parts, torch compiled none")
    return skipped + breaks, f"{parts} parts, {skipped} no CUDA graph, {breaks} breaks"


def judged(
    plain: list[dict[str, float]], compiled: list[dict[str, float]], skipped: int, beside: str = ""
) -> list[Row]:
    """Rows of two runs' epochs. Raises WrongResult where their losses part, or where nothing switched."""
    if plain[-1]["learnable_parameters"] >= plain[0]["learnable_parameters"]:
        raise WrongResult(f"expected a switch after epoch {SWITCH}, and learnable parameters fewer by it")
    for one, two in zip(plain, compiled, strict=True):
        if one["learnable_parameters"] != two["learnable_parameters"]:
            raise WrongResult(f"epoch {one['epoch']:g}: the compiled run has other layers fixed")
        if abs(one["running_loss"] - two["running_loss"]) > TOLERANCE * (1 + one["running_loss"]):
            losses = f"{one['running_loss']:.4g}, compiled {two['running_loss']:.4g}"
            raise WrongResult(f"epoch {one['epoch']:g}: running loss {losses}")
    # Of each half the later epochs: the first ones are compiled in.
    rows = []
    for aim, part in ((FASTER, slice(SWITCH // 2, SWITCH)), (AFTER, slice(SWITCH + (EPOCHS - SWITCH) // 2, EPOCHS))):
        own, other = (statistics.median(e["train_seconds"] for e in run[part]) for run in (compiled, plain))
        rows.append(aim.row(other / own, f"{1e3 * own:.1f} ms, uncompiled {1e3 * other:.1f}"))
    return [*rows, SKIPPED.row(skipped, beside)]


def measure(device: str) -> list[Row]:
    with tempfile.TemporaryDirectory() as place:
        words = (*RUN, f"device={device}")
        plain = trained(words, f"{place}/plain")
        counters.clear()
        compiled = trained((*words, "compile=true"), f"{place}/compiled")
        return judged(plain, compiled, *uncaptured(counters))


LINE = Line("CUDA graphs", 90, (FASTER, AFTER, SKIPPED), at_once(measure))
