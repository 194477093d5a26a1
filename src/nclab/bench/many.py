"""Many tiny runs as one sweep, its launcher killed in the middle: none may be lost, none trained twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from nclab.system.written import is_finished

TINY = ("dataset=digits", "dataset.train_size=200", "dataset.test_size=100", "model.depth=3", "model.width=16",
        "epochs=1", "threads=1", "checkpoint_seconds=0")  # fmt: skip
PATIENCE = 3600.0  # seconds


def _done(root: Path) -> int:
    return sum(1 for _ in root.glob("*/*/DONE"))


def run_many(runs: int, jobs: int, root: Path) -> Counter:
    """Train so many runs in one sweep of hydra/launcher=local; kill -9 its launcher and workers when a third is done,
    and give the same command again. Returns counts: runs, killed, lost, doubled epochs, seconds.

    Raises TimeoutError where a third is not done within PATIENCE."""
    command = [sys.executable, "-m", "nclab.train", "-m", "hydra/launcher=local", f"hydra.launcher.jobs={jobs}", *TINY,
               f"output_root={root}", f"seed=range({runs})"]  # fmt: skip
    root.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    counts: Counter = Counter({"runs": runs})
    with (root / "log").open("ab") as log:
        first = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        while first.poll() is None and _done(root) < runs // 3:
            time.sleep(0.05)
            if time.monotonic() - began > PATIENCE:
                os.killpg(first.pid, signal.SIGKILL)
                first.wait()
                raise TimeoutError(
                    f"expected {runs // 3} of {runs} runs done within {PATIENCE:g} s, got {_done(root)}, see {root}/log"
                )
        if first.poll() is None:
            os.killpg(first.pid, signal.SIGKILL)
            counts["launchers killed"] += 1
        first.wait(PATIENCE)
        counts["done before"] = _done(root)
        counts["exit code"] = subprocess.run(command, stdout=log, stderr=log, timeout=PATIENCE).returncode
    counts["seconds"] = round(time.monotonic() - began)
    folders = sorted(path.parent for path in root.glob("*/*/config.yaml"))
    counts["folders"] = len(folders)
    counts["lost"] = runs - sum(is_finished(folder) for folder in folders)
    for folder in folders:
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        epochs = [event["epoch"] for event in events if event["event"] == "epoch"]
        counts["doubled epochs"] += len(epochs) - len(set(epochs))
        counts["finished twice"] += sum(event["event"] == "done" for event in events) - 1
    return counts
