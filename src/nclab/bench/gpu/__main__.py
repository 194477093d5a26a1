"""The command: all lines, or in this process, as the first starts them, one of them or a look at the device."""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from nclab.bench.gpu.acceptance import Result, accepted, exit_code, measure_one
from nclab.bench.gpu.lines import LINES
from nclab.bench.gpu.row import reason
from nclab.bench.gpu.table import save, summary, table
from nclab.runfolder.provenance import provenance
from nclab.system.machine import default_threads

SECONDS = 570.0  # and the start of this process: within ten minutes
LOOK_SECONDS = 60.0  # the look at the device takes a few


class NoDevice(RuntimeError):
    """The device is there, and cannot be used."""


def looked_at(device: str) -> dict[str, Any]:
    """`provenance` of a device on which a tensor can be made; the device is this process's until it ends. Ends the
    process with one line where none can."""
    try:
        torch.ones(1, device=device).item()
        return provenance(device, default_threads())
    except Exception as error:
        sys.exit(reason(error))


def about(device: str) -> dict[str, Any]:
    """The same, of a GPU from a process of its own: one that holds it would, in exclusive mode, leave it to no line.
    Raises NoDevice."""
    if device == "cpu":
        return provenance(device, default_threads())
    command = [sys.executable, "-m", "nclab.bench.gpu", "--look", "--device", device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        raise NoDevice(f"no answer within {LOOK_SECONDS:g} s") from None
    if done.returncode:
        raise NoDevice((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
    return json.loads(done.stdout)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m nclab.bench.gpu", description=__doc__)
    add = parser.add_argument
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda, or cpu: nothing is measured")
    add("--lines", nargs="+", choices=[*LINES], default=[*LINES], help="these alone")
    add("--seconds", type=float, default=SECONDS, help=f"of all lines together ({SECONDS:g})")
    add("--out", type=Path, default=Path(os.environ.get("OUT") or "outputs/gpu"), help="folder of the results")
    add("--line", choices=[*LINES], help=argparse.SUPPRESS)
    add("--look", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.device != "cpu" and not (args.device.startswith("cuda") and torch.cuda.is_available()):
        parser.error(f"--device: expected cpu, or cuda where torch sees a GPU; got {args.device}")
    if args.line:
        measure_one(LINES[args.line], args.device, args.out, args.seconds)
        return 0
    if args.look:
        print(json.dumps(looked_at(args.device)))
        return 0
    began = time.monotonic()
    try:
        of_device = about(args.device)
    except NoDevice as error:
        parser.error(f"--device: expected one that can be used; {args.device}: {error}")

    def after(result: Result) -> None:  # so that what there is is not lost with this process
        spent = time.monotonic() - began
        print(f"{[*result][-1]}: through after {spent:.0f} s", flush=True)
        save(result, args.out, of_device, spent)

    result = accepted([LINES[name] for name in args.lines], args.device, args.out, args.seconds, after)
    print(table(result), summary(result), args.out / "gpu.json", sep="\n\n")
    return exit_code(result)


if __name__ == "__main__":
    sys.exit(main())
