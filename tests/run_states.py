"""Run folders in every state, for the tests of `nclab-runs`, and a Slurm and a terminal to go with them."""

import contextlib
import fcntl
import io
import json
import os
import time
from pathlib import Path

from nclab.runs import main

HOUR = 3600
START = {"event": "start", "epoch": 0, "layers": []}


def slurm(*lines, code=None):
    """Make these jobs, as "12_3|PENDING", what squeue prints, or `code` what it does; returns the file where it notes
    how it was called. For tests that use the fixture `without_slurm`."""
    folder = Path(os.environ["PATH"])
    script = folder / "squeue"
    text = code or "".join(f"echo '{line}'\n" for line in lines)
    script.write_text(f'#!/bin/sh\necho "$@" $SQUEUE_STATES >> {folder}/asked\n{text}\n')
    script.chmod(0o755)
    return folder / "asked"


def event(kind, ago=HOUR, **what):
    return {"event": kind, "time": time.time() - ago, **what}


def epochs(*numbers, seconds=2.0, **more):
    return [
        event("epoch", epoch=n, train_seconds=0.75 * seconds, measure_seconds=0.25 * seconds, **more) for n in numbers
    ]


def make(root, *events, name="run", experiment="exp", total=10, job=None, submitted=None, done=False):
    """A run folder with these events."""
    folder = root / experiment / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        f"experiment_name: {experiment}\nseed: 0\nepochs: {total}\nmodel:\n  epochs: 3\n"
    )
    (folder / ".lock").write_text("pid 1 on elsewhere")
    (folder / "metrics.csv").write_text("epoch,split,layer,metric,value\n")
    (folder / "checkpoint.pt").write_text("weights")
    if events:
        (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    if job:
        note = {"job": job, "submitted": time.time() - 2 * HOUR if submitted is None else submitted}
        (folder / "slurm.json").write_text(json.dumps(note))
    if done:
        (folder / "summary.json").write_text(json.dumps({"final": {"test": {"accuracy": 0.875}}}))
        (folder / "DONE").touch()
    return folder


@contextlib.contextmanager
def written(folder):
    """Held as by a process that writes it: to flock, another open file is another process."""
    with (folder / ".lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def said(capsys, *words):
    """Exit code, stdout and stderr of a command."""
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def failed_run(root, name="failed", **more):
    return make(root, START, *epochs(1), event("failed", reason="disk full"), name=name, **more)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def answer(monkeypatch, text, meanwhile=lambda: None):
    """Say `text` to the question that comes, after `meanwhile()`; None: end of input."""

    def ask(_question):
        meanwhile()
        if text is None:
            raise EOFError
        return text

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", ask)
