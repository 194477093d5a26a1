"""nclab-paper: the runs, figures, tables and verdicts of a paper.

    nclab-paper list                                             the papers, their parts and profiles
    nclab-paper run simplex_etf --profile smoke                  train what is not trained yet, draw, judge
    nclab-paper run simplex_etf --part figure1,table1 --dataset mnist --seeds 0,1 --epochs 30 optimizer.lr=0.02
    nclab-paper draw simplex_etf --part figure1                  draw again from the runs that are there
    nclab-paper judge depth                                      judge the claims by the runs that are there

Parts and profiles are in conf/paper/WING/plan.yaml, claims in claims.yaml beside it. Runs land in OUTPUT/EXPERIMENT,
pictures and verdicts in OUTPUT/WING/figures, tables and report. Stop it anywhere: the same command goes on, and repeats
no finished run. Exit codes: 1 where a run failed or a picture could not be drawn, 2 for wrong input, 130 after Ctrl-C.
"""

import argparse
import sys
from pathlib import Path

from nclab.analysis.cli import Parser, add_selection, names
from nclab.analysis.runs import AnalysisError, load_runs
from nclab.interfaces.valid import unknown
from nclab.papers.drawing import draw, recorded_pictures
from nclab.papers.judging import judge_wing
from nclab.papers.wings import NoWing, Wing, find_wing, wing_names
from nclab.system.redact import masked_terminal
from nclab.system.terminal import lasting_terminal

FAILED, BAD_INPUT = 1, 2


def main(words: list[str] | None = None) -> None:
    """The command; leaves by SystemExit with its exit code."""
    with lasting_terminal(), masked_terminal():
        sys.exit(_command(sys.argv[1:] if words is None else words))


def _command(words: list[str]) -> int:
    actions = {"list": _list, "run": _run, "draw": _draw, "judge": _judge}
    parser = Parser("nclab-paper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=actions, metavar="ACTION", help=", ".join(actions))
    if not words:
        parser.print_help()
        return BAD_INPUT
    action = parser.parse_args(words[:1]).action
    try:
        return actions[action](words[1:])
    except (AnalysisError, NoWing, OSError) as error:
        print(f"nclab-paper: {error}", file=sys.stderr)
        return BAD_INPUT


def _parser(action: str, about: str, part: bool = True) -> argparse.ArgumentParser:
    parser = Parser(f"nclab-paper {action}", description=about)
    add = parser.add_argument
    add("wing", metavar="WING", help=", ".join(wing_names()))
    add("--output", type=Path, default=Path("outputs"), help="output root of all runs (outputs)")
    if part:
        add("--part", type=names, action="extend", default=[], metavar="PART", help="these alone: figure1,table1 (all)")
    return parser


def _list(words: list[str]) -> int:
    Parser("nclab-paper list", description="Name the papers, their parts and profiles.").parse_args(words)
    for wing in map(find_wing, wing_names()):
        plan = wing.plan
        extra = [name for name, part in plan["parts"].items() if part.get("extra")]
        print(f"{wing.name}: {wing.title}")
        print(f"  parts     {', '.join(name for name in plan['parts'] if name not in extra)}")
        if extra:
            print(f"  extra     {', '.join(extra)} (run only where named)")
        print(f"  profiles  {', '.join(plan['profiles'])}")
    return 0


def _run(words: list[str]) -> int:
    from nclab.papers.running import add_arguments, run_wing  # torch: seconds that the other actions need not wait

    parser = _parser("run", "Train what is not trained yet, draw its figures and tables, and judge (not with --part).")
    add_arguments(parser)
    args = parser.parse_intermixed_args(words)
    if wrong := [word for word in args.override if "=" not in word]:
        parser.error(f"expected KEY=VALUE, got {wrong[0]}; a part is named by --part {wrong[0]}")
    return run_wing(find_wing(args.wing), args)


def _draw(words: list[str]) -> int:
    parser = _parser("draw", "Draw the figures and tables of the runs that are there.")
    parser.add_argument("--profile", help="only runs of this profile (all that are there)")
    add_selection(parser)
    args = parser.parse_args(words)
    wing = find_wing(args.wing)
    plan = wing.plan
    for kind, asked, valid in (("part", args.part, plan["parts"]), ("profile", [args.profile], plan["profiles"])):
        if absent := [name for name in asked if name not in (None, *valid)]:
            parser.error(unknown(kind, absent[0], valid))
    folders = _folders(wing, args.output)
    runs = load_runs(folders, args.dataset, args.seeds, args.epochs, dict(args.where), skip_broken=True)
    failures = draw(wing, args.output, recorded_pictures(wing, runs, args.part, args.profile))
    print(*failures, sep="\n", end="\n" if failures else "", file=sys.stderr)
    return FAILED if failures else 0


def _judge(words: list[str]) -> int:
    parser = _parser("judge", "Judge the claims by the runs that are there.", part=False)
    add = parser.add_argument
    add("folders", nargs="*", type=Path, metavar="FOLDER", help="run, experiment or output folders (the paper's own)")
    add("--dataset", type=names, action="extend", metavar="NAME", help="only runs on this dataset")
    add("--epochs", type=int, help="only runs of this many epochs")
    add("--ledger", type=Path, help="another file of claims (conf/paper/WING/claims.yaml)")
    args = parser.parse_intermixed_args(words)
    judge_wing(find_wing(args.wing), args.output, args.folders, args.dataset, args.epochs, args.ledger)
    return 0


def _folders(wing: Wing, output: Path) -> list[Path]:
    if folders := wing.folders(output):
        return folders
    raise AnalysisError(f"no run of paper {wing.name} under {output}: expected {', '.join(wing.experiments)} there")
