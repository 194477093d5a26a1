"""Judge the claims of a wing by the runs that are there, and write its report."""

import math
import sys
from pathlib import Path

import pandas as pd

from nclab.analysis.claims import judge
from nclab.analysis.judgement import Judgement
from nclab.analysis.ledger import load_ledger
from nclab.analysis.report import make_report, totals, write_report
from nclab.analysis.runs import AnalysisError, load_runs
from nclab.analysis.sections import effect_text
from nclab.analysis.tables import text_table
from nclab.papers.drawing import FIGURES, TABLES
from nclab.papers.wings import Wing


def judge_wing(
    wing: Wing,
    output: Path,
    folders: list[Path] | None = None,
    dataset: list[str] | None = None,
    epochs: int | None = None,
    ledger: Path | None = None,
) -> None:
    """Print the verdicts, write <output>/<wing>/report/index.html, report.md, verdicts.csv and details.csv.

    Args:
        wing: Whose claims.
        output: The output root of the runs; the report shows the figures and tables of <output>/<wing>.
        folders: Judge these run, experiment or output folders instead of the wing's experiments.
        dataset: Only runs on these datasets.
        epochs: Only runs of this many epochs.
        ledger: Another file of claims.

    Raises:
        AnalysisError: No run is finished, or a file is wrong.
    """
    claims = load_ledger(ledger or wing.ledger)
    if not (folders := folders or wing.folders(output)):
        raise AnalysisError(f"no run of paper {wing.name} under {output}: expected {', '.join(wing.experiments)} there")
    runs = load_runs(folders, dataset, epochs=epochs, finished_only=False, skip_broken=True)
    if not any(run.finished for run in runs):
        raise AnalysisError(f"{len(runs)} runs there, none finished")
    judgements = judge(claims, runs)
    figures, tables = (path if path.is_dir() else None for path in (output / wing.name / n for n in (FIGURES, TABLES)))
    report = make_report(judgements, runs, figures, tables, claims.title, claims.paper, wing.captions)
    paths = write_report(report, output / wing.name / "report")
    if unfinished := [str(run.path) for run in runs if not run.finished]:
        print(f"skipped {len(unfinished)} unfinished: {', '.join(unfinished[:5])}", file=sys.stderr)
    for error in dict.fromkeys(error for judgement in judgements for error in judgement.broken):
        print(f"left out: {error}", file=sys.stderr)
    rows = [(j.claim.id, j.where, j.verdict, _holm(j), effect_text(j), _seeds(j)) for j in judgements]
    columns = ["claim", "setting", "verdict", "with Holm", "effect [95 % interval]", "seeds"]
    print(text_table(pd.DataFrame(rows, columns=columns)))
    print("", f"empirical: {totals(report.counts)}", sep="\n")
    if any(report.provisional_counts.values()):
        print(f"provisional, fewer seeds than stated: {totals(report.provisional_counts)}")
    if any(report.arithmetic_counts.values()):
        print(f"arithmetic of the configuration, no evidence: {totals(report.arithmetic_counts)}")
    if report.without_runs:
        print(f"without runs: {report.without_runs}")
    print(*paths, sep="\n")


def _holm(judgement: Judgement) -> str:
    """The verdict that Holm's procedure leaves; a dash where nothing was tested."""
    return "–" if math.isnan(judgement.p_adjusted) else judgement.adjusted


def _seeds(judgement: Judgement) -> str:
    """'10', or '5 of 10' of a provisional verdict."""
    return judgement.provisional.removesuffix(" seeds") or str(len(judgement.seeds))
