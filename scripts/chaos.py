"""Kill runs at random moments, resume them, compare them bit for bit with runs left alone.

    python scripts/chaos.py --kills 100 --seed 0 --jobs 2       ten minutes on two cores; writes outputs/chaos/

Exit code 1 where any killed run differs from its undisturbed twin, is not finished or left something over.
"""

import argparse
import json
import shutil
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import count
from pathlib import Path

from nclab.bench.chaos import KILLS_A_RUN, KINDS, Report, run_killed

COLUMNS = {  # of the table: head -> count
    "runs": "runs",
    "kills": "kills",
    "asked to stop": "of these asked to stop",
    "before the first checkpoint": "before the first checkpoint",
    "within an epoch": "stopped within an epoch",
    "while saving": "while writing a checkpoint",
    "after a switch": "after a switch",
    "resumes": "resumes",
    "rows lost": "lost rows",
    "rows doubled": "doubled rows",
    "damaged checkpoints": "damaged checkpoints found",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="until as many lives were ended by kill -9")
    parser.add_argument("--seed", type=int, default=0, help="of the moments, and of the first run of each kind")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS], metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--out", type=Path, default=Path("outputs/chaos"))
    args = parser.parse_args()
    runs = args.out / "runs"
    shutil.rmtree(runs, ignore_errors=True)

    began = time.monotonic()
    reports = {kind: Report() for kind in args.kinds}
    waiting = ((kind, seed) for seed in count(args.seed) for kind in args.kinds)
    with ThreadPoolExecutor(args.jobs) as pool:
        under_way: dict[Future, tuple[str, int]] = {}
        while True:
            counts = sum((report.counts for report in reports.values()), Counter())
            left = args.kills - counts["kills"] + counts["of these asked to stop"]
            while left > 0 and len(under_way) < args.jobs and left > KILLS_A_RUN * len(under_way):
                kind, seed = next(waiting)
                most = min(KILLS_A_RUN, left - KILLS_A_RUN * len(under_way))
                under_way[pool.submit(run_killed, kind, seed, most, runs)] = kind, seed
            if not under_way:
                break
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                kind, seed = under_way.pop(future)
                found = future.result()
                reports[kind].counts += found.counts
                reports[kind].differences += found.differences
                state = "; ".join(found.differences) or "bit for bit the same"
                print(f"{kind}, seed {seed}: {found.counts['kills']} kills, {state}", flush=True)

    total = sum((report.counts for report in reports.values()), Counter())
    differences = [text for report in reports.values() for text in report.differences]
    text = table({**{kind: report.counts for kind, report in reports.items()}, "all": total})
    what = {"seed": args.seed, "jobs": args.jobs, "seconds": round(time.monotonic() - began, 1)}
    kinds = {kind: dict(report.counts) for kind, report in reports.items()}
    args.out.mkdir(parents=True, exist_ok=True)
    whole = {**what, "total": dict(total), "kinds": kinds, "differences": differences}
    (args.out / "report.json").write_text(json.dumps(whole, indent=1) + "\n")
    (args.out / "table.md").write_text(text)
    print(f"\n{text}\n{what['seconds']:.0f} s; {args.out}/report.json, {args.out}/table.md")
    for difference in differences:
        print(f"DIFFERS: {difference}", file=sys.stderr)
    return 1 if differences or total["bit-identical"] < total["folders"] else 0


def table(counts: dict[str, Counter]) -> str:
    """A line a kind."""
    lines = [f"| kind | {' | '.join(COLUMNS)} | bit-identical |", "|---|" + "---:|" * (len(COLUMNS) + 1)]
    for kind, of in counts.items():
        same = f"{of['bit-identical']} of {of['folders']}"
        lines.append(f"| {kind} | {' | '.join(str(of[key]) for key in COLUMNS.values())} | {same} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
