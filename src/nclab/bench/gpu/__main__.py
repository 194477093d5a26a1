"""The command: all lines, or one of them in this process (as the first starts them)."""

import argparse
import os
import sys
import time
from pathlib import Path

import torch

from nclab.bench.gpu.acceptance import Result, accepted, exit_code, measure_one
from nclab.bench.gpu.lines import LINES
from nclab.bench.gpu.table import save, summary, table
from nclab.runfolder.provenance import provenance
from nclab.system.machine import default_threads

SECONDS = 570.0  # and the start of this process: within ten minutes


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m nclab.bench.gpu", description=__doc__)
    add = parser.add_argument
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda, or cpu: nothing is measured")
    add("--lines", nargs="+", choices=[*LINES], default=[*LINES], help="these alone")
    add("--seconds", type=float, default=SECONDS, help=f"of all lines together ({SECONDS:g})")
    add("--out", type=Path, default=Path(os.environ.get("OUT") or "outputs/gpu"), help="folder of the results")
    add("--line", choices=[*LINES], help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.device != "cpu" and not (args.device.startswith("cuda") and torch.cuda.is_available()):
        parser.error(f"--device: expected cpu, or cuda where torch sees a GPU; got {args.device}")
    if args.line:
        measure_one(LINES[args.line], args.device, args.out)
        return 0
    began, about = time.monotonic(), provenance(args.device, default_threads())

    def after(result: Result) -> None:  # so that what there is is not lost with this process
        spent = time.monotonic() - began
        print(f"{[*result][-1]}: through after {spent:.0f} s", flush=True)
        save(result, args.out, about, spent)

    result = accepted([LINES[name] for name in args.lines], args.device, args.out, args.seconds, after)
    print(table(result), summary(result), args.out / "gpu.json", sep="\n\n")
    return exit_code(result)


if __name__ == "__main__":
    sys.exit(main())
