"""Execute command lines drawn at random, right and wrong ones, and say which end as none may.

    python scripts/fuzz.py --cases 500 --seed 0 --jobs 2       fifteen minutes on two cores; writes outputs/fuzz/

Exit code 1 where a command prints a traceback, hangs, or leaves what a run does not keep.
"""

import argparse
import json
import shlex
import shutil
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nclab.bench.fuzz import draw, run, tree


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0, help="of the command lines")
    parser.add_argument("--jobs", type=int, default=2, help="commands side by side")
    parser.add_argument("--out", type=Path, default=Path("outputs/fuzz"))
    args = parser.parse_args()
    root = (args.out / "cases").resolve()
    shutil.rmtree(root, ignore_errors=True)

    keys = tree()
    cases = [draw(args.seed, number, keys) for number in range(args.first, args.first + args.cases)]
    began = time.monotonic()
    codes: Counter = Counter()
    wrong = []
    with ThreadPoolExecutor(args.jobs) as pool:
        for outcome in pool.map(lambda case: run(case, root), cases):
            codes["stopped when asked" if outcome.stopped else f"exit code {outcome.code}"] += 1
            if outcome.faults:
                wrong.append(outcome)
                command = shlex.join(("nclab-train", *outcome.case.words))
                print(f"{outcome.case.number}: {'; '.join(outcome.faults)}\n    {command}", flush=True)
            else:
                shutil.rmtree(root / f"{outcome.case.number:05d}")
    found = {
        "seed": args.seed,
        "cases": args.cases,
        "seconds": round(time.monotonic() - began, 1),
        "ended": dict(sorted(codes.items())),
        "faults": {shlex.join(outcome.case.words): outcome.faults for outcome in wrong},
    }
    (args.out / "report.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"{args.cases} commands, {found['seconds']:.0f} s: {found['ended']}; {len(wrong)} at fault")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
