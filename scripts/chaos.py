"""Kill runs at random moments, resume them, compare them bit for bit with runs left alone.

    python scripts/chaos.py --kills 100 --seed 0 --jobs 2       ten minutes on two cores; writes outputs/chaos/

Then the power is cut under some of them (nclab.bench.power) and a sweep of tiny runs is killed (nclab.bench.many).

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
from nclab.bench.many import run_many
from nclab.bench.power import not_here, run_cut

CUTS_A_RUN = 4

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
    parser.add_argument("--power-cuts", type=int, default=24, help="of the runs on a disk of their own; root; 0: none")
    parser.add_argument("--sweep", type=int, default=200, help="tiny runs of a sweep that is killed; 0: none")
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

    reports |= cut_power(args.power_cuts, args.seed, args.kinds, runs)
    total = sum((report.counts for report in reports.values()), Counter())
    differences = [text for report in reports.values() for text in report.differences]
    text = table({**{kind: report.counts for kind, report in reports.items()}, "all": total})
    kinds = {kind: dict(report.counts) for kind, report in reports.items()}
    swept = run_many(args.sweep, args.jobs, runs / "sweep") if args.sweep else Counter()
    text += "".join(f"\n{number} {name}" for name, number in swept.items()) + "\n"
    for fault in ("lost", "doubled epochs", "finished twice", "exit code"):
        if swept[fault]:
            differences.append(f"the sweep: {swept[fault]} {fault}")
    args.out.mkdir(parents=True, exist_ok=True)
    settings = {"seed": args.seed, "jobs": args.jobs, "seconds": round(time.monotonic() - began, 1)}
    whole = {**settings, "total": dict(total), "kinds": kinds, "sweep": dict(swept), "differences": differences}
    (args.out / "report.json").write_text(json.dumps(whole, indent=1) + "\n")
    (args.out / "table.md").write_text(text)
    print(f"\n{text}\n{settings['seconds']:.0f} s; {args.out}/report.json, {args.out}/table.md")
    for difference in differences:
        print(f"DIFFERS: {difference}", file=sys.stderr)
    return 1 if differences or total["bit-identical"] < total["folders"] else 0


def cut_power(cuts: int, seed: int, kinds: list[str], root: Path) -> dict[str, Report]:
    """One run after the other whose power is cut, until as many cuts are made: a report for all kinds together."""
    if not cuts:
        return {}
    if why := not_here():
        print(f"no power was cut: {why}", flush=True)
        return {}
    report = Report()
    for number in count():
        kind = kinds[number % len(kinds)]
        most = min(CUTS_A_RUN, cuts - report.counts["kills"])
        if most <= 0:
            return {"power cut": report}
        found = run_cut(kind, seed + number, most, root / "power")
        report.counts += found.counts
        report.differences += found.differences
        state = "; ".join(found.differences) or "bit for bit the same"
        print(f"{kind}, seed {seed + number}: power cut {found.counts['kills']} times, {state}", flush=True)


def table(counts: dict[str, Counter]) -> str:
    """A line a kind."""
    lines = [f"| kind | {' | '.join(COLUMNS)} | bit-identical |", "|---|" + "---:|" * (len(COLUMNS) + 1)]
    for kind, of in counts.items():
        same = f"{of['bit-identical']} of {of['folders']}"
        lines.append(f"| {kind} | {' | '.join(str(of[key]) for key in COLUMNS.values())} | {same} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
