"""A deterministic run that is killed and resumed on the device, against its twin that nobody disturbed."""

import signal
import tempfile
import time
from pathlib import Path

from nclab.bench.chaos import Life, Report, compare
from nclab.bench.gpu.row import Aim, Line, Row, WrongResult, at_once

BITS = Aim("runs killed, resumed and equal to the undisturbed run bit for bit (deterministic=true)", "of 1", least=1)
RUN = (
    "dataset=digits",
    "threads=1",
    "model.width=160",
    "etf=clock",
    "etf.k=2",
    "etf.start=10",
    "etf.pause=20",
    "epochs=60",
    "deterministic=true",
    "checkpoint_seconds=0",
)


def last_said(log: Path) -> str:
    said = log.read_text(errors="replace").strip().splitlines()
    return said[-1] if said else "no output"


def through(command: list[str], log: Path) -> None:
    if code := Life(command, log, cold=True).wait():
        raise WrongResult(f"nclab-train ended with code {code}: {last_said(log)}")


def killed_once(command: list[str], root: Path, log: Path) -> None:
    """Kill the run as soon as it has saved a few epochs. Raises WrongResult where it ended by itself before."""
    life = Life(command, log, cold=True)
    while not (life.ended or (life.wrote(root, "checkpoint.pt") and _epochs(root) >= 5)):
        time.sleep(0.01)
    if life.ended or life.end(signal.SIGKILL) != -signal.SIGKILL:
        raise WrongResult(f"the run ended before it could be killed: {last_said(log)}")


def _epochs(root: Path) -> int:
    return sum(log.read_text().count('"event": "epoch"') for log in root.glob("*/*/events.jsonl"))


def measure(device: str, run: tuple[str, ...] = RUN) -> list[Row]:
    with tempfile.TemporaryDirectory() as place:
        whole, killed, log = Path(place) / "whole", Path(place) / "killed", Path(place) / "log"
        words = [*run, f"device={device}"]
        through([*words, f"output_root={whole}"], log)
        killed_once([*words, f"output_root={killed}"], killed, log)
        through([*words, f"output_root={killed}"], log)
        report = Report()
        for config in whole.glob("*/*/config.yaml"):
            compare(report, config.parent, killed / config.parent.relative_to(whole))
    if report.differences:
        raise WrongResult("; ".join(report.differences).replace(place, ""))
    return [BITS.row(report.counts["bit-identical"], f"{report.counts['rows']} rows")]


LINE = Line("resume", 50, (BITS,), at_once(measure))
