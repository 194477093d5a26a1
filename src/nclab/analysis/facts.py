"""When, where and with what the judged runs were made."""

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from nclab.analysis.claims import has_diverged
from nclab.analysis.runs import AnalysisError, Run


def facts(runs: list[Run]) -> list[tuple[str, str]]:
    """(name, text) of what a report says of its runs, unfinished ones included.

    The date is the newest run's: now is not a property of the runs.
    """
    finished = [run for run in runs if run.finished]
    times = [event["time"] for run in finished for event in _or_empty(run, "events")[-1:] if "time" in event]
    diverged = sum(has_diverged(run) for run in runs)
    others = len(runs) - len(finished) - diverged
    left_out = [f"{count} {what}" for count, what in ((diverged, "diverged"), (others, "unfinished")) if count]
    return [
        ("newest run", f"{datetime.fromtimestamp(max(times), UTC):%Y-%m-%d}" if times else "not recorded"),
        ("runs", f"{len(finished)} finished" + "".join(f", {part}" for part in left_out)),
        ("data sets", _tally(finished, lambda run: run.config["dataset"]["name"])),
        ("hardware", _tally(finished, lambda run: _hardware(_or_empty(run, "summary").get("hardware") or {}))),
        ("versions", _tally(finished, lambda run: _versions(_or_empty(run, "summary").get("versions") or {}))),
        ("commits", _tally(finished, lambda run: _commit(_or_empty(run, "summary").get("commit")))),
    ]


def _or_empty(run: Run, file: str) -> Any:
    """Its events or summary; nothing where they cannot be read, which the judgements name."""
    try:
        return getattr(run, file)
    except AnalysisError:
        return [] if file == "events" else {}


def _tally(runs: Iterable[Run], what: Callable[[Run], str]) -> str:
    """'mnist (12); digits (4)', the commonest first."""
    counts = sorted(Counter(map(what, runs)).items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{name} ({count})" for name, count in counts)


def _hardware(hardware: dict) -> str:
    if "gpu" in hardware:
        return str(hardware["gpu"])
    cores = f", {hardware['cores']} cores" if "cores" in hardware else ""
    return f"{hardware['processor']}{cores}" if "processor" in hardware else "not recorded"


def _versions(versions: dict) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or "not recorded"


def _commit(commit: str | None) -> str:
    if not commit:
        return "not recorded"
    head, dirty, _ = commit.partition("-dirty")
    return head[:10] + dirty
