"""Kill training runs at random moments, start them again by the same command, and compare them with runs left alone.

A life is one process that works on a run: a cold `python -m nclab.train`, or a fork of a server that has imported
everything, which starts within a second. It ends of SIGKILL, or is asked to stop by SIGTERM or SIGUSR2, at a moment
drawn from a seed: after some time, or while a checkpoint is being written. The run that at last gets to its end must be
the same bit for bit as its twin that was never disturbed.
"""

import csv
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nclab.runfolder import checkpoint
from nclab.system.written import is_finished
from nclab.train import main

ADAPTIVE = ("etf=adaptive", "etf.start=3", "etf.patience=1", "etf.threshold=0.5", "etf.pause=6")
SMALL = ("dataset=digits", "threads=1", "model.width=160", "checkpoint_seconds=0")
VIT = ("dataset=digits", "threads=1", "model=vit", "model.width=32", "model.heads=2", "checkpoint_seconds=0.2")
KINDS: dict[str, tuple[str, ...]] = {  # each takes about five seconds, start included
    "baseline": (*SMALL, "epochs=60"),
    "last_k": (*SMALL, "etf=last_k", "etf.k=3", "epochs=60"),
    "adaptive": (*SMALL, *ADAPTIVE, "epochs=50"),
    "adaptive, frozen": (*SMALL, *ADAPTIVE, "etf.kind=frozen", "checkpoint_seconds=0.3", "epochs=50"),
    "ViT, transformer_ffn": (*VIT, "etf=transformer_ffn", "epochs=24"),
    "adamw, cosine": (*SMALL, "optimizer=adamw", "schedule=cosine", "epochs=60"),
    "metrics.every=3": (*SMALL, "metrics.every=3", "checkpoint_seconds=0.1", "epochs=90"),
    "bf16": (*SMALL, "precision=bf16", "epochs=30"),
    "augmented mnist5k": ("dataset=mnist5k", "dataset.augment=crop_flip", *SMALL[1:], "epochs=12"),
    "two seeds in turns": (*SMALL, "seeds=[0,1]", "epochs=30"),
    "wandb offline": (*SMALL, "tracker=wandb", "tracker.mode=offline", "epochs=60"),
}
KILLS_A_RUN = 6
# Of the lives that are to be ended: by cold processes, by a signal that asks, at any moment since the process began
# (the others once they train), in the middle of writing a checkpoint.
SHARE_COLD, SHARE_GRACEFUL, SHARE_ANY_TIME, SHARE_SAVING = 0.15, 0.15, 0.25, 0.3
LONGEST_LIFE = 0.35  # of the time that the undisturbed twin took
GRACEFUL = (signal.SIGTERM, signal.SIGUSR2)
STOPPED = {128 + number for number in GRACEFUL} | {-number for number in GRACEFUL}  # the latter: before it could listen
# Events that do not depend on how often a run was stopped.
LASTING = ("switch", "switch_settled", "rank_fell", "epoch", "done")
PATIENCE = 120.0  # seconds for anything that must end by itself


@dataclass
class Report:
    """What became of the runs of one kind. All of `differences` must stay empty."""

    counts: Counter = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)


class Life:
    """One process that executes `nclab-train` with these overrides; its output goes to `log`."""

    def __init__(self, overrides: list[str], log: Path, cold: bool):
        self.began = time.time()  # as files have it
        if cold:
            with log.open("ab") as output:
                command = [sys.executable, "-m", "nclab.train", *overrides]
                self.process: Any = subprocess.Popen(command, stdout=output, stderr=output)
        else:
            self.process = forks().Process(target=_train, args=(overrides, log), daemon=True)
            self.process.start()

    @property
    def ended(self) -> bool:
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll() is not None
        return not self.process.is_alive()

    def wait(self) -> int:
        """Its exit code; minus the number of the signal that killed it."""
        if isinstance(self.process, subprocess.Popen):
            return self.process.wait(PATIENCE)
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            raise TimeoutError(f"process {self.process.pid} did not end within {PATIENCE:g} s")
        return self.process.exitcode

    def wrote(self, root: Path, name: str) -> bool:
        """Whether a file of this name in a run folder below `root` is this life's work, not an earlier one's."""
        for path in root.glob(f"*/*/{name}"):
            with suppress(FileNotFoundError):  # a temporary file, gone in the meantime
                if path.stat().st_mtime > self.began:
                    return True
        return False

    def end(self, number: int) -> int:
        os.kill(self.process.pid, number)
        return self.wait()


def forks() -> multiprocessing.context.BaseContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nclab.train", "nclab.models.vit", "sklearn.datasets", "pandas"])
    return context


def _train(overrides: list[str], log: Path) -> None:
    with log.open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.argv = ["nclab-train", *overrides]
    main()


@dataclass
class Twin:
    """A run, or several seeds, that nobody disturbed."""

    overrides: list[str]
    root: Path  # its output_root
    log: Path
    folders: list[Path] = field(default_factory=list)
    seconds: float = 0.0


def whole_twin(kind: str, seed: int, root: Path, report: Report) -> Twin:
    """Train a run of this kind below `root` from beginning to end."""
    name = f"{kind.replace(' ', '_').replace(',', '').replace('=', '')}-{seed}"
    overrides = [*KINDS[kind], *([] if "seeds=[0,1]" in KINDS[kind] else [f"seed={seed}"])]
    twin = Twin(overrides, root / f"{name}-whole", root / f"{name}.log")
    root.mkdir(parents=True, exist_ok=True)
    report.counts["runs"] += 1
    if code := Life([*overrides, f"output_root={twin.root}"], twin.log, cold=False).wait():
        report.differences.append(f"{kind}, seed {seed}: the undisturbed run ended with code {code}, see {twin.log}")
        return twin
    twin.folders = sorted(path.parent for path in twin.root.glob("*/*/config.yaml"))
    twin.seconds = sum(json.loads((folder / "summary.json").read_text())["wall_seconds"] for folder in twin.folders)
    return twin


def run_killed(kind: str, seed: int, most_kills: int, root: Path) -> Report:
    """Train a run of this kind twice below `root`, undisturbed and ended up to `most_kills` times, and compare."""
    draw = random.Random(f"{kind} {seed}")
    report = Report()
    twin = whole_twin(kind, seed, root, report)
    if report.differences:
        return report
    killed, log = twin.root.with_name(twin.root.name.replace("-whole", "-killed")), twin.log
    command = [*twin.overrides, f"output_root={killed}"]
    for _ in range(most_kills):
        report.counts["resumes"] += bool(list(killed.glob("*/*/checkpoint*.pt")))
        life = Life(command, log, cold=draw.random() < SHARE_COLD)
        number = draw.choice(GRACEFUL) if draw.random() < SHARE_GRACEFUL else signal.SIGKILL
        await_moment(life, draw, LONGEST_LIFE * twin.seconds, killed)
        if life.ended:
            break
        code = life.end(number)
        if code == 0:  # it was through in the meantime
            break
        if code not in ({-signal.SIGKILL} if number == signal.SIGKILL else STOPPED):
            report.differences.append(f"{kind}, seed {seed}: signal {number} ended it with code {code}, see {log}")
        count_moment(report.counts, number, life, killed)
    report.counts["resumes"] += bool(list(killed.glob("*/*/checkpoint*.pt")))
    if code := Life(command, log, cold=False).wait():
        report.differences.append(f"{kind}, seed {seed}: the last life ended with code {code}, see {log}")
    report.counts["damaged checkpoints found"] += log.read_text().count(f"in its place {checkpoint.PREVIOUS} is used")
    for folder in twin.folders:
        compare(report, folder, killed / folder.relative_to(twin.root))
    return report


def await_moment(life: Life, draw: random.Random, longest: float, root: Path) -> None:
    """Return at the moment drawn, or when the life is over."""
    any_time, saving = draw.random() < SHARE_ANY_TIME, draw.random() < SHARE_SAVING
    after, within_save = draw.uniform(0, longest), draw.uniform(0, 0.003)
    while not any_time and not life.ended and not life.wrote(root, "events.jsonl"):
        time.sleep(0.01)
    began = time.monotonic()
    while not life.ended and time.monotonic() - began < after:
        time.sleep(0.002)
    while saving and not life.ended and not life.wrote(root, "checkpoint*.part"):
        pass  # it takes a few milliseconds: no time to sleep
    time.sleep(within_save)


def count_moment(counts: Counter, number: int, life: Life, root: Path) -> None:
    """Where the life was, by what it left."""
    counts["kills"] += 1
    counts["of these asked to stop"] += number != signal.SIGKILL
    counts["before the first checkpoint"] += not any(root.glob("*/*/checkpoint*.pt"))
    counts["while writing a checkpoint"] += life.wrote(root, "checkpoint*.part")
    counts["after a switch"] += any(_switched(log) for log in root.glob("*/*/events.jsonl"))


def _switched(log: Path) -> bool:
    """Whether a map was switched while training; the last line may be cut."""
    whole = log.read_text().rpartition("\n")[0].splitlines()
    return any(event["event"] == "switch" and event["epoch"] > 0 for event in map(json.loads, whole))


def compare(report: Report, whole: Path, killed: Path) -> None:
    """Count how the run that was killed differs from its twin."""
    counts, differences = report.counts, report.differences
    counts["folders"] += 1
    before = len(differences)
    if not is_finished(killed):
        differences.append(f"{killed}: no DONE")
        return
    if left := sorted(path.name for path in killed.rglob("*.part")):
        differences.append(f"{killed}: left over: {', '.join(left)}")
    expected, came = _rows(whole), _rows(killed)
    counts["rows"] += expected.total()
    lost, doubled = (expected - came).total(), (came - expected).total()
    counts["lost rows"] += lost
    counts["doubled rows"] += doubled
    if (whole / "metrics.csv").read_bytes() != (killed / "metrics.csv").read_bytes():
        differences.append(f"{killed}: metrics.csv differs ({lost} rows lost, {doubled} doubled)")
    if _events(whole, *LASTING) != _events(killed, *LASTING):
        differences.append(f"{killed}: events of switches or epochs differ")
    counts["stopped within an epoch"] += sum(event["batches"] > 0 for event in _events(killed, "stopped"))
    states = [checkpoint.load(folder, warn=differences.append) for folder in (whole, killed)]
    for part in ("model", "fixed", "optimizer", "policy", "generators", "torch_rng"):
        one, two = (plain(state[part]) for state in states)
        if one != two:
            differences.append(f"{killed}: {part} of {checkpoint.NAME} differs")
    counts["bit-identical"] += len(differences) == before


def _rows(folder: Path) -> Counter:
    with (folder / "metrics.csv").open() as file:
        return Counter(tuple(row[:4]) for row in csv.reader(file))


def _events(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    """The events of these kinds, without what depends on time."""
    events = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    return [{k: v for k, v in e.items() if k != "time" and "seconds" not in k} for e in events if e["event"] in kinds]


def plain(value: Any) -> Any:
    """Nested dicts and lists of tensors as plain values that can be compared, bit for bit."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value
