"""All lines one after the other, each in a process of its own, and what became of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TextIO

import torch

from nclab.bench.gpu.row import FAILED, NO_GPU, NOT_TIMED, Line, Row, reason
from nclab.system.atomic import write_atomic
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
    """The rows that `python -m nclab.bench.gpu --line NAME` leaves, or why there are none. Where that process did not
    end well all rows have failed; where its time was over before the last one was measured, the others are kept."""
    limit = min(line.seconds, left)
    if limit < LEAST_SECONDS:
        return line.unmeasured(FAILED, f"{max(left, 0):.0f} s were left of the time of all lines")
    rows, why = left_by(line, folder)
    rows.unlink(missing_ok=True)
    why.unlink(missing_ok=True)
    log.write(f"==== {line.name}\n")
    log.flush()
    at = log.tell()
    command = [sys.executable, "-m", "nclab.bench.gpu", "--line", line.name, "--device", device, "--out", str(folder)]
    command += ["--seconds", f"{limit:g}"]
    # In a session of its own: what it started ends with it.
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    cause, short = "", False
    try:
        if code := process.wait(limit):
            cause = ended_by(code, why, Path(log.name).read_bytes()[at:])
    except subprocess.TimeoutExpired:
        cause, short = f"not through after {limit:.0f} s", True
    finally:
        with suppress(ProcessLookupError):  # also where it ended by itself: others of its session may not have
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.seek(0, os.SEEK_END)
    why.unlink(missing_ok=True)
    if not rows.exists():
        return line.unmeasured(FAILED, cause or "it ended without rows")
    found = [Row(**row) for row in json.loads(rows.read_text())]
    rows.unlink()
    untimed = [row.verdict == NOT_TIMED for row in found]
    if short and any(untimed):
        return [replace(row, value=cause) if late else row for row, late in zip(found, untimed, strict=True)]
    if cause:
        values = [cause if late else f"{cause}; before: {row.value}" for row, late in zip(found, untimed, strict=True)]
        return [replace(row, verdict=FAILED, value=value) for row, value in zip(found, values, strict=True)]
    return found


def left_by(line: Line, folder: Path) -> tuple[Path, Path]:
    """What the child leaves: its rows, and why it could not go on."""
    return folder / f"{line.name}.rows", folder / f"{line.name}.why"


def ended_by(code: int, why: Path, said: bytes) -> str:
    """Why a child ended with this code: the error that it left, else the signal or the code and the last line said."""
    if why.exists():
        return why.read_text()
    names = {number.value: number.name for number in signal.Signals}
    what = f"signal {-code} ({names.get(-code, 'unknown')})" if code < 0 else f"exit code {code}"
    last = said.decode(errors="replace").strip().splitlines()[-1:]
    return f"{what}; last line: {last[0][:200]}" if last else what


def measure_one(line: Line, device: str, folder: Path, seconds: float) -> None:
    """The child's part: set the process up as a run does, measure, and leave the rows as they come. What goes wrong
    ends it, and is left beside them in one line."""
    rows, why = left_by(line, folder)
    torch.set_num_threads(default_threads())
    keep_freed_memory()
    set_products(tf32=False)
    try:
        for found in line.measure(device, seconds):
            write_atomic(rows, json.dumps([asdict(row) for row in found]))
    except Exception as error:
        why.write_text(reason(error))
        raise


def exit_code(result: Result) -> int:
    """1 where a line failed; an aim that is missed is a finding."""
    return int(any(row.verdict == FAILED for rows in result.values() for row in rows))
