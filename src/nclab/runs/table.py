"""Runs as text for a terminal, and as CSV or JSON for scripts."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable

from tabulate import tabulate

from nclab.runs.state import STATES, RunState, rough

NUMERIC = {"epoch", "%", "eta", "last event", "size", "runs", *STATES}  # columns aligned to the right
WIDEST_REASON = 70
# What scripts get, and where it comes from.
RECORD = {
    "experiment": "experiment",
    "run": "name",
    "state": "state",
    "reason": "reason",
    "epoch": "epoch",
    "epochs": "epochs",
    "headline": "headline_name",
    "headline_value": "headline_value",
    "test_accuracy": "test_accuracy",
    "eta_seconds": "eta",
    "last_event_seconds": "age",
    "job": "job",
    "folder": "path",
}


def run_table(runs: list[RunState]) -> str:
    """A row a run. The headline's name is in the header where all runs have the same, else in each cell."""
    names = {run.headline.name for run in runs if run.headline}
    common = names.pop() if len(names) == 1 else None
    header = ["experiment", "run", "state", "epoch", "%", common or "headline", "eta", "last event", "why"]
    return aligned(header, ([run.experiment, run.name, *_cells(run, common is None)] for run in runs))


def _cells(run: RunState, named: bool) -> list[str]:
    return [
        run.state,
        progress(run),
        "" if run.epoch is None or not run.epochs else f"{100 * _share(run):.0f}",
        "" if run.headline is None else str(run.headline) if named else run.headline.number,
        "" if run.eta is None else rough(run.eta),
        "" if run.age is None else f"{rough(run.age)} ago",
        run.reason if len(run.reason) <= WIDEST_REASON else run.reason[: WIDEST_REASON - 1] + "…",
    ]


def _share(run: RunState) -> float:
    """How much of the run is trained; all of one that ended before its last epoch, at `stop_at_loss`."""
    return 1.0 if run.state == "done" else (run.epoch or 0) / run.epochs


def experiment_table(runs: list[RunState]) -> str:
    """A row an experiment: how many runs are in which state, trained epochs of all epochs, and the longest of the
    running ones."""
    there = [state for state in STATES if any(run.state == state for run in runs)]
    groups: dict[str, list[RunState]] = {}
    for run in runs:
        groups.setdefault(run.experiment, []).append(run)
    rows = []
    for name, group in groups.items():
        states = Counter(run.state for run in group)
        known = [run for run in group if run.epochs]
        share = sum(map(_share, known)) / len(known) if known else None
        eta = max((run.eta for run in group if run.eta is not None), default=None)
        cells = [str(states[state] or "") for state in there]
        percent = "" if share is None else f"{100 * share:.0f}"
        rows.append([name, str(len(group)), *cells, percent, "" if eta is None else rough(eta)])
    return aligned(["experiment", "runs", *there, "%", "eta"], rows)


def counts(runs: list[RunState]) -> str:
    """'7 runs: 4 done, 2 running, 1 failed'."""
    states = Counter(run.state for run in runs)
    each = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
    return f"{plural(len(runs))}{': ' if each else ''}{each}"


def plural(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


def progress(run: RunState) -> str:
    """'12/60'; a question mark for what is not known."""
    return f"{'?' if run.epoch is None else run.epoch}/{'?' if run.epochs is None else run.epochs}"


def as_csv(runs: list[RunState]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(RECORD), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(_record, runs))
    return out.getvalue()


def as_json(runs: list[RunState]) -> str:
    return json.dumps([_record(run) for run in runs], indent=1, default=str) + "\n"


def _record(run: RunState) -> dict:
    return {key: getattr(run, name) for key, name in RECORD.items()}


def aligned(header: list[str], rows: Iterable[list[str]]) -> str:
    """Columns as wide as their widest cell, whatever the terminal's width; without those that have no cell."""
    rows = list(rows)
    filled = [i for i in range(len(header)) if not rows or any(row[i] for row in rows)]
    align = ["right" if header[i] in NUMERIC else "left" for i in filled]
    cells = [[row[i] for i in filled] for row in (header, *rows)]
    return tabulate(cells, tablefmt="plain", disable_numparse=True, colalign=align)
