"""All lines one after the other, each in a process of its own, and what became of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

import torch

from nclab.bench.gpu.row import FAILED, NO_GPU, Line, Row
from nclab.system.machine import default_threads, keep_freed_memory
from nclab.training.step import set_products

LEAST_SECONDS = 10.0  # a line is not begun with less: its process alone takes some
Result = dict[str, list[Row]]  # of every line, by its name


def accepted(
    lines: Sequence[Line],
    device: str,
    folder: Path,
    seconds: float,
    after: Callable[[Result], None] = lambda result: None,
) -> Result:
    """The rows of every line, in their order. `seconds`: of all together; a line that begins when they are nearly over
    has failed. What the lines print goes to `gpu.log` in the folder. `after` is called with what there is after every
    line. On a CPU nothing is measured."""
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    result = {}
    with (folder / "gpu.log").open("w") as log:
        for line in lines:
            if device == "cpu":
                result[line.name] = line.counted() if line.counted else line.unmeasured(NO_GPU)
            else:
                result[line.name] = in_own_process(line, device, folder, end - time.monotonic(), log)
            after(result)
    return result


def in_own_process(line: Line, device: str, folder: Path, left: float, log: TextIO) -> list[Row]:
    """The rows that `python -m nclab.bench.gpu --line NAME` leaves, or why there are none."""
    limit = min(line.seconds, left)
    if limit < LEAST_SECONDS:
        return line.unmeasured(FAILED, f"{max(left, 0):.0f} s were left of the time of all lines")
    rows = folder / f"{line.name}.rows"
    rows.unlink(missing_ok=True)
    log.write(f"==== {line.name}\n")
    log.flush()
    at = log.tell()
    command = [sys.executable, "-m", "nclab.bench.gpu", "--line", line.name, "--device", device, "--out", str(folder)]
    # In a session of its own: what it started ends with it.
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        return line.unmeasured(FAILED, f"not through after {limit:.0f} s")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.seek(0, os.SEEK_END)
    if code or not rows.exists():
        said = Path(log.name).read_text(errors="replace")[at:].strip().splitlines()
        return line.unmeasured(FAILED, (said or [f"exit code {code}"])[-1][:200])
    found = [Row(**row) for row in json.loads(rows.read_text())]
    rows.unlink()
    return found


def measure_one(line: Line, device: str, folder: Path) -> None:
    """The child's part: set the process up as a run does, measure, and leave the rows. What goes wrong ends it, and its
    last line is said."""
    torch.set_num_threads(default_threads())
    keep_freed_memory()
    set_products(tf32=False)
    rows = line.measure(device)
    (folder / f"{line.name}.rows").write_text(json.dumps([asdict(row) for row in rows]))


def exit_code(result: Result) -> int:
    """1 where a line failed; an aim that is missed is a finding."""
    return int(any(row.verdict == FAILED for rows in result.values() for row in rows))
