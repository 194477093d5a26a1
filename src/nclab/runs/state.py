"""What became of one run, from its folder alone: a few small reads, whatever the run's length."""

import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nclab.runs.queue import OVER, Queue
from nclab.runs.waiting import with_reason
from nclab.system import lock
from nclab.system.written import is_finished

# queued: Slurm has the job, pending or about to begin. submitted: it had it, and cannot be asked.
STATES = ("done", "running", "queued", "submitted", "interrupted", "failed", "unreadable")
TAIL = 4096  # bytes of events.jsonl that are read at first: thirty epochs
RECENT = 10  # epochs whose seconds say how long the others will take
SILENT = 600.0  # seconds, or five epochs, without an event: a run that looks stuck
# The two keys of the top level that are needed here. config.yaml is what `to_yaml` wrote, these at the start of a line;
# to parse 5,000 of them as YAML takes 1.5 seconds with the C loader and 11 without, as long as all the rest and more.
NUMBERS = re.compile(r"^(epochs|seed): *(\d+) *$", re.MULTILINE)
BEGINS = ("start", "resume")
FAILURES = ("failed", "diverged")
STOPS = ("stopped", "requeue")


@dataclass(frozen=True)
class Headline:
    """The number by which a finished run is compared with others, as summary.json names it."""

    split: str
    metric: str
    value: float

    @property
    def name(self) -> str:
        """'test accuracy'."""
        return f"{self.split} {self.metric}"

    @property
    def number(self) -> str:
        return f"{self.value:.4f}"

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


def headline_of(summary: dict[str, Any]) -> Headline | None:
    """The headline of a summary; None where its value is undefined (null).

    A run from before summaries named a headline has its test accuracy.
    """
    try:
        headline = summary.get("headline") or {
            "split": "test", "metric": "accuracy", "value": summary["final"]["test"]["accuracy"],
        }  # fmt: skip
        return Headline(headline["split"], headline["metric"], float(headline["value"]))
    except (ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class RunState:
    """A run as it was when it was looked at."""

    path: Path
    state: str
    reason: str = ""  # why it is in this state, if that is not plain
    epoch: int | None = None  # trained
    epochs: int | None = None  # to train
    headline: Headline | None = None  # of a finished run
    eta: float | None = None  # seconds to the end; of a running run
    age: float | None = None  # seconds since its latest event
    job: str | None = None  # of Slurm
    silence: float = SILENT  # seconds without an event that are usual
    unsaid: bool = False  # no event says that it ended

    @property
    def name(self) -> str:
        return self.path.absolute().name

    @property
    def experiment(self) -> str:
        return self.path.absolute().parent.name

    @property
    def headline_name(self) -> str | None:
        return self.headline.name if self.headline else None

    @property
    def headline_value(self) -> float | None:
        return self.headline.value if self.headline else None

    @property
    def test_accuracy(self) -> float | None:
        """The headline, if it is the test accuracy."""
        return self.headline_value if self.headline_name == "test accuracy" else None


def is_run(folder: Path) -> bool:
    """Whether it is a run folder, as far as it can be read: training's config.yaml, or the note that it was submitted
    to Slurm."""
    try:
        return len(_numbers(folder)) == 2 or submission(folder) is not None
    except OSError:
        return False


def inspect(folder: Path, queue: Queue | None = None, mine: bool = False) -> RunState | None:
    """The run in a folder; None where it holds none, or vanished. `mine`: the lock is held by the caller.

    Without a queue, runs that only Slurm can tell about are `submitted`.
    """
    try:
        numbers, submitted = _numbers(folder), submission(folder)
        if len(numbers) < 2 and submitted is None:
            return None
        held = not mine and lock.is_held(folder)
        # Only now: a run writes DONE and its last event before it lets go of the lock.
        if is_finished(folder):
            return _done(folder, numbers.get("epochs"))
        return _unfinished(folder, numbers.get("epochs"), held, submitted, queue)
    except FileNotFoundError:
        return None
    except OSError as error:
        return RunState(folder, "unreadable", f"{error.strerror}: {error.filename}")


def _done(folder: Path, epochs: int | None) -> RunState:
    summary = _object(_text(folder / "summary.json")) or {}
    last = summary["epochs"] if _is(summary, "epochs", int) else epochs  # fewer where it ended at stop_at_loss
    return RunState(folder, "done", epoch=last, epochs=epochs, headline=headline_of(summary))


def _unfinished(
    folder: Path, epochs: int | None, held: bool, submission: dict | None, queue: Queue | None
) -> RunState | None:
    events = tail(folder / "events.jsonl")
    if not folder.is_dir():
        return None
    begun = max((i for i, event in enumerate(events) if event["event"] in BEGINS), default=0)
    now = events[begun:]  # of the latest process
    epoch = next((e["epoch"] for e in reversed(now) if e["event"] not in FAILURES and _is(e, "epoch", int)), None)
    age = next((max(0.0, time.time() - e["time"]) for e in reversed(now) if _is(e, "time", int | float)), None)
    each = _seconds(now)
    silence = max(SILENT, 5 * each) if each else SILENT
    job = submission["job"] if submission else None
    unsaid = not any(event["event"] in (*STOPS, *FAILURES) for event in now)
    common = {"epoch": epoch, "epochs": epochs, "age": age, "job": job, "silence": silence, "unsaid": unsaid}
    if held:
        eta = max(epochs - epoch, 0) * each if each and epochs and epoch is not None else None
        stuck = f"no event for {rough(age)}" if age is not None and age > silence else ""
        return RunState(folder, "running", stuck, eta=eta, **common)
    failure = next((event for event in reversed(now) if event["event"] in FAILURES), None)
    state, reason = ("failed", _why(failure)) if failure else ("interrupted", _how(now, job))
    if submission:
        state, reason = _as_submitted(state, reason, now, failure, submission, queue)
    return RunState(folder, state, reason, **common)


def _as_submitted(
    state: str, reason: str, now: list[dict], failure: dict | None, submission: dict, queue: Queue | None
) -> tuple[str, str]:
    """State and reason of a run that nobody writes, as far as its job has to do with them."""
    job, submitted = submission["job"], submission["submitted"]
    failed_since = failure is not None and failure.get("time", 0) > submitted
    if queue is None:
        return (state, reason) if failed_since else ("submitted", f"job {job}")
    known = queue.state(job, submitted)
    asked_for_more = bool(now) and now[-1]["event"] == "requeue"  # the job ends now, and will be back
    alive = known is not None and (known not in OVER or asked_for_more)
    if alive and (known == "PENDING" or not failed_since):
        return "queued", f"job {job} {with_reason(known, queue.reasons.get(job, ''))}"
    return state, reason


def _why(failure: dict) -> str:
    if isinstance(failure.get("reason"), str):
        return " ".join(failure["reason"].split())
    rate = f" at learning rate {failure['learning_rate']:g}" if _is(failure, "learning_rate", int | float) else ""
    return f"diverged in epoch {failure.get('epoch', '?')}{rate}"


def _how(now: list[dict], job: str | None) -> str:
    """How a run ended that says of no failure."""
    last = next((event for event in reversed(now) if event["event"] in STOPS), None)
    if last is None:
        if now:
            return "killed or crashed"
        return f"job {job} ended before the run began" if job else "never began"
    if last["event"] == "requeue":
        return f"requeued as job {last.get('job', '?')}, which Slurm does not know"
    return f"stopped by {last.get('signal', 'a signal')}"


def _seconds(events: list[dict]) -> float | None:
    """Of an epoch, by the latest of these; None without one."""
    parts = ("train_seconds", "measure_seconds")
    took = [
        sum(event[part] for part in parts) * event.get("seeds", 1)  # seeds trained as one model note their share
        for event in events
        if event["event"] == "epoch" and all(_is(event, part, int | float) for part in parts)
    ][-RECENT:]
    return sum(took) / len(took) if took else None


def tail(file: Path) -> list[dict]:
    """The last events of a file, oldest first: at least the last one, if there is any. Lines that are no events, and
    the one that is being written, are passed over."""
    try:
        with file.open("rb") as stream:
            size, want = os.fstat(stream.fileno()).st_size, TAIL
            while True:
                start = max(size - want, 0)
                stream.seek(start)
                whole = stream.read(want).split(b"\n")[1 if start else 0 : -1]
                events = [event for event in map(_event, whole) if event]
                if events or not start:
                    return events
                want *= 8  # one line was longer: a start event names every layer
    except FileNotFoundError:
        return []


def fixed_at_start(folder: Path) -> str | None:
    """Which layers the run fixes, as it said when it began; None before, and of a run of older code."""
    try:
        with (folder / "events.jsonl").open("rb") as lines:
            begun = next((event for event in map(_event, lines) if event and event["event"] in BEGINS), {})
    except OSError:
        return None
    return begun["fixed"] if _is(begun, "fixed", str) else None


def _event(line: bytes) -> dict | None:
    value = _object(line)
    return value if value is not None and isinstance(value.get("event"), str) else None


def _numbers(folder: Path) -> dict[str, int]:
    return {key: int(value) for key, value in NUMBERS.findall(_text(folder / "config.yaml"))}


def submission(folder: Path) -> dict | None:
    """What was noted when the run was submitted: job, and when (unix time)."""
    note = _object(_text(folder / "slurm.json"))
    return note if note is not None and _is(note, "job", str) and _is(note, "submitted", int | float) else None


def _object(text: str | bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _is(event: dict, key: str, kind: Any) -> bool:
    return isinstance(event.get(key), kind)


def _text(file: Path) -> str:
    """The text of a file; empty without one."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def rough(seconds: float) -> str:
    """'40 s', '12 min', '3.5 h', '2.1 d'."""
    for unit, size in (("d", 86400), ("h", 3600)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
