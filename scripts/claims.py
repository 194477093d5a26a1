"""Judge the ledger of claims from run folders; write one HTML page and the same as Markdown.

python scripts/claims.py outputs --out outputs/report
python scripts/claims.py outputs --dataset fashion_mnist --epochs 30 --figures outputs/figures
python scripts/claims.py outputs --ledger conf/claims_depth.yaml --out outputs/report_depth
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from nclab.analysis.claims import judge
from nclab.analysis.cli import Parser
from nclab.analysis.commands import PlanSizes, load_plan
from nclab.analysis.ledger import load_ledger
from nclab.analysis.report import effect_text, make_report, write_report
from nclab.analysis.runs import AnalysisError, load_runs
from nclab.analysis.tables import text_table

CONF = Path(__file__).parents[1] / "conf"
LEDGER = CONF / "claims.yaml"
USUAL = "paper"  # the plan of the commands of a ledger that names none
FIGURES = Path("outputs/figures")


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("folders", nargs="+", type=Path, metavar="FOLDER", help="run folder, experiment folder or output root")
    add("--ledger", type=Path, default=LEDGER, help="the claims (conf/claims.yaml)")
    add("--dataset", help="only runs on this dataset")
    add("--epochs", type=int, help="only runs of this many epochs")
    add("--figures", type=Path, help=f"figures and tables to show ({FIGURES}, if it is there)")
    add("--out", type=Path, default=Path("outputs/report"), help="where to write (outputs/report)")
    args = parser.parse_args()
    figures = args.figures
    if figures is None and FIGURES.is_dir():
        figures = FIGURES
        print(f"showing the figures and tables of {FIGURES}", file=sys.stderr)
    try:
        ledger = load_ledger(args.ledger)
        plan = _plan(CONF / "plan" / f"{ledger.plan or USUAL}.yaml")
        parts = plan.parts if ledger.plan and plan.parts else None
        runs = load_runs(args.folders, args.dataset, epochs=args.epochs, finished_only=False, skip_broken=True)
        if not any(run.finished for run in runs):
            raise AnalysisError(f"{len(runs)} runs there, none finished")
        if figures and not figures.is_dir():
            raise AnalysisError(f"no such folder: {figures}")
        if figures and figures.resolve() == args.out.resolve():
            raise AnalysisError(f"--out must not be the folder of the figures, {figures}: the report would show itself")
        judgements = judge(ledger, runs)
        report = make_report(judgements, runs, figures, plan, ledger.title, ledger.paper, parts)
        paths = write_report(report, args.out)
    except (AnalysisError, OSError) as error:
        parser.error(str(error))
    unfinished = [str(run.path) for run in runs if not run.finished]
    if unfinished:
        print(f"skipped {len(unfinished)} unfinished: {', '.join(unfinished[:5])}", file=sys.stderr)
    for error in dict.fromkeys(error for judgement in judgements for error in judgement.broken):
        print(f"left out: {error}", file=sys.stderr)
    rows = [(j.claim.id, j.where, j.verdict, effect_text(j), str(len(j.seeds))) for j in judgements]
    print(text_table(pd.DataFrame(rows, columns=["claim", "setting", "verdict", "effect [95 % interval]", "seeds"])))
    print("", ", ".join(f"{count} {verdict}" for verdict, count in report.counts.items()), *paths, sep="\n")


def _plan(plan: Path) -> PlanSizes:
    """The ledger's. Without the file verdicts are the same, only that no command names a profile."""
    if plan.is_file():
        return load_plan(plan)
    there = ", ".join(sorted(file.stem for file in plan.parent.glob("*.yaml")))
    print(f"no plan {plan.stem}: the commands name no profile; there are: {there}", file=sys.stderr)
    return PlanSizes()


if __name__ == "__main__":
    main()
