"""The command line of `nclab-runs`."""

import argparse
import os
import re
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

from nclab.runs import clean, table
from nclab.runs.arguments import BAD_INPUT, Parser, names, seconds, states
from nclab.runs.find import NoFolder, ask_again, find_runs, is_up_to_slurm
from nclab.runs.help_texts import BOARD, CLEAN, DIFF, DOC, EXPORT, FAILED, PACK, SHOW, STATUS
from nclab.runs.queue import Queue, QueueError, ask
from nclab.runs.state import STATES, RunState, rough, submission
from nclab.runs.waiting import SECONDS_TO_ADVISE, advice
from nclab.system.machine import has_gpu
from nclab.system.terminal import lasting_terminal
from nclab.system.wandb_key import has_key
from nclab.system.words import first_of, quoted

OUTPUTS = Path("outputs")
SECONDS_TO_WATCH = 30.0  # between two pages of a board
MOST_ROWS = 40  # of runs that nobody asked for one by one
GPU = re.compile(r"^device: *cuda(?::(\d+))? *$", re.MULTILINE)  # in config.yaml, as `to_yaml` writes it
WANDB = re.compile(r"^tracker:\n  name: wandb\n  mode: (\w+)$", re.MULTILINE)  # likewise
SEVERAL = re.compile(r"^tracker:\n  name: several\n(?:  .*\n)*    wandb:\n      mode: (\w+)$", re.MULTILINE)  # likewise
FOUND, INTERRUPTED = 1, 130


def main(words: list[str] | None = None) -> int:
    """Console entry; returns the exit code, see `nclab-runs COMMAND --help`."""
    with lasting_terminal():
        return _command(words)


def _command(words: list[str] | None) -> int:
    parser = _parser()
    args = parser.parse_args(words)
    if args.run is None:
        parser.print_help()
        return BAD_INPUT
    try:
        return args.run(args)
    except (NoFolder, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser() -> Parser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="nclab-runs", description=DOC, formatter_class=raw)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", parser_class=Parser)
    parser.set_defaults(run=None)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], help: str, epilog: str, paths: str | int = "*"
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help, epilog=epilog, formatter_class=raw)
        sub.add_argument("paths", nargs=paths, type=Path, metavar="PATH", default=[OUTPUTS],
                         help="run folder, experiment folder or output root (outputs)")  # fmt: skip
        sub.set_defaults(run=run)
        return sub

    one = command("status", _status, "how far the runs are", STATUS)
    one.add_argument("--state", type=states(STATES), help=f"only these: {','.join(STATES)}")
    one.add_argument("--experiment", help="only this experiment")
    one.add_argument("--all", action="store_true", help=f"a row a run, also if there are more than {MOST_ROWS}")
    form = one.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="for scripts: a row a run, seconds and fractions")
    form.add_argument("--json", action="store_true", help="the same as JSON")

    one = command("failed", _failed, "failed and interrupted runs: why, and the command that resumes each", FAILED)
    one.add_argument("--experiment", help="only this experiment")

    one = command("show", _show, "the curves of one run as lines of text, or as a picture", SHOW, paths=1)
    one.add_argument("--metric", type=names, default=(), metavar="NAME,...", help="these metrics")
    one.add_argument("--split", help="this split alone, such as train")
    one.add_argument("--png", type=Path, metavar="FILE", help="draw them into FILE.png, of one split (train)")

    one = command("diff", _diff, "keys and last numbers in which two runs differ", DIFF, paths=2)
    one.add_argument("--all", action="store_true", help="the numbers of all layers, not those of the network alone")

    one = command("board", _board, "all runs as one HTML page: a table with filters, curves by layer and epoch", BOARD)
    one.add_argument("--out", type=Path, default=Path("board.html"), metavar="FILE", help="FILE.html (board.html)")
    alone = "these metrics in place of the usual ones: accuracy,nc2_*"
    one.add_argument("--metrics", type=names, default=(), metavar="NAME,...", help=alone)
    one.add_argument("--experiment", help="only this experiment")
    often = f"write it again every SECONDS ({SECONDS_TO_WATCH:g}) until Ctrl-C"
    one.add_argument("--watch", type=seconds, nargs="?", const=SECONDS_TO_WATCH, metavar="SECONDS", help=often)

    one = command("export", _export, "all measurements of all finished runs as one table", EXPORT, paths="+")
    one.add_argument("--out", type=Path, required=True, metavar="FILE", help="FILE.parquet or FILE.csv")
    one.add_argument("--unfinished", action="store_true", help="unfinished runs too, as far as they are")

    one = command("pack", _pack, "finished runs as one archive, without their checkpoints", PACK, paths="+")
    one.add_argument("--out", type=Path, required=True, metavar="FILE", help="FILE.tar.xz")
    one.add_argument("--unfinished", action="store_true", help="failed and interrupted runs too, as far as they are")
    one.add_argument("--last", action="store_true", help="of metrics.csv the last measured epoch alone")
    alone = "of metrics.csv these metrics alone: accuracy,nc2_*"
    one.add_argument("--metrics", type=names, default=(), metavar="NAME,...", help=alone)

    one = command("clean", _clean, "remove runs, or the checkpoints of finished ones", CLEAN)
    what = one.add_mutually_exclusive_group(required=True)
    what.add_argument("--state", type=states(clean.REMOVABLE), help=f"runs of: {','.join(clean.REMOVABLE)}")
    what.add_argument("--checkpoints", action="store_true", help="only the checkpoints of done runs")
    one.add_argument("--experiment", help="only this experiment")
    one.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def _look(args: argparse.Namespace, links: list[Path] | None = None) -> tuple[list[RunState], Queue | None]:
    """The runs asked for, and what Slurm said if it had to be asked; that it cannot be is said on stderr."""
    runs = find_runs(args.paths, links)
    if args.experiment is not None:
        there = list(dict.fromkeys(run.experiment for run in runs))
        if args.experiment not in there:
            raise NoFolder(f"no experiment '{args.experiment}'; there are: {', '.join(there)}")
        runs = [run for run in runs if run.experiment == args.experiment]
    if not any(map(is_up_to_slurm, runs)):
        return runs, None
    try:
        queue = ask()
    except QueueError as error:
        print(f"{error}; so no run is shown as queued", file=sys.stderr)
        return runs, None
    return ask_again(runs, queue), queue


def _status(args: argparse.Namespace) -> int:
    runs, queue = _look(args)
    if args.state:
        runs = [run for run in runs if run.state in args.state]
    if args.csv or args.json:
        sys.stdout.write(table.as_csv(runs) if args.csv else table.as_json(runs))
        return 0
    brief = len(runs) > MOST_ROWS and not (args.all or args.state)
    if runs:
        print(table.experiment_table(runs) if brief else table.run_table(runs), end="\n\n")
    print(table.counts(runs) + (" (--all: a row each)" if brief else ""))
    if any(run.state in ("failed", "interrupted") for run in runs):
        print("why, and how to go on: nclab-runs failed")
    if queue is not None:
        for line in advice(queue, filter(None, map(_waits_long, runs))).values():
            print(line)
    return 0


def _waits_long(run: RunState) -> str | None:
    """The job of a queued run that was submitted some time ago."""
    noted = submission(run.path) if run.state == "queued" else None
    return noted["job"] if noted and time.time() - noted["submitted"] >= SECONDS_TO_ADVISE else None


def _failed(args: argparse.Namespace) -> int:
    runs = [run for run in _look(args)[0] if run.state in ("failed", "interrupted")]
    for run in runs:
        when = "" if run.age is None else f", {rough(run.age)} ago"
        print(f"{run.experiment}/{run.name}\n  {run.state} at epoch {table.progress(run)}{when}: {run.reason}")
        print(f"  {resume_command(run.path)}")
    print(f"{chr(10) if runs else ''}{table.counts(runs)}")
    return FOUND if runs else 0


def resume_command(folder: Path) -> str:
    """The shell command that goes on with a run, also of one that began on a GPU that is not here, or with a tracker
    that cannot be had here."""
    if not (folder / "config.yaml").exists():
        return "never began: give the command that submitted it again"
    value = str(folder)
    if not re.fullmatch(r"[\w./:+-]+", value, re.ASCII):  # what Hydra reads as one plain word
        value = quoted(value)
    command = f"python -m nclab.train {shlex.quote(f'resume={value}')}"
    stored = (folder / "config.yaml").read_text(encoding="utf-8", errors="replace")
    began = GPU.search(stored)
    if began is not None and not has_gpu(int(began[1] or 0)):
        command += " device=auto"
    alone, member = WANDB.search(stored), SEVERAL.search(stored)
    tracker = alone or member
    try:
        if tracker is None or has_key() or (os.environ.get("WANDB_MODE") or tracker[1]) != "online":
            return command
    except ImportError:
        return f"{command} tracker=none"
    # tracker.settings=... would take the place of all keys that are stored.
    return f"{command} tracker.mode=offline" if alone else f"WANDB_MODE=offline {command}"


def _show(args: argparse.Namespace) -> int:
    from nclab.runs import show  # brings pandas and matplotlib: a second, for this command alone

    what = args.paths[0], args.metric, args.split
    if args.png is None:
        return _printed("show", lambda: show.text(*what))
    return _printed("show", lambda: show.picture(what[0], args.png, *what[1:]))


def _diff(args: argparse.Namespace) -> int:
    from nclab.runs import diff  # likewise

    return _printed("diff", lambda: diff.text(tuple(args.paths), args.all))


def _printed(command: str, text: Callable[[], str]) -> int:
    from nclab.analysis.runs import AnalysisError

    try:
        print(text())
    except AnalysisError as error:
        print(f"nclab-runs {command}: {error}", file=sys.stderr)
        return BAD_INPUT
    return 0


def _board(args: argparse.Namespace) -> int:
    from nclab.runs.board.page import Board, BoardError, check_out, watch  # brings pandas and matplotlib, likewise

    def look() -> list[RunState]:
        return _look(args)[0]

    try:
        check_out(args.out)
        runs, folders = look(), first_of(map(str, args.paths), most=3)
        if not runs:
            raise BoardError(f"no run in {folders}")
        board = Board(folders, args.out, args.metrics)
        size = board.write(runs, reload=args.watch)
        print(f"{args.out}: {table.plural(len(runs))}, {_megabytes(size)}", flush=True)
        if args.watch is not None:
            print(f"written again every {args.watch:g} s; Ctrl-C ends it", flush=True)
            watch(board, look, args.watch)
    except BoardError as error:
        print(f"nclab-runs board: {error}", file=sys.stderr)
        return BAD_INPUT
    return 0


def _export(args: argparse.Namespace) -> int:
    from nclab.analysis.runs import AnalysisError  # brings pandas and matplotlib: a second, for this command alone
    from nclab.runs.export import ExportError, export

    try:
        runs, rows, names = export(args.paths, args.out, args.unfinished)
    except (ExportError, AnalysisError, OSError) as error:
        print(f"nclab-runs export: {error}", file=sys.stderr)
        return BAD_INPUT
    print(f"{args.out}: {rows} rows of {table.plural(runs)}; {', '.join(names)}, and the columns of metrics.csv")
    return 0


def _pack(args: argparse.Namespace) -> int:
    from nclab.runs.pack import PackError, pack  # brings YAML and lzma, for this command alone

    try:
        packed = pack(args.paths, args.out, args.unfinished, args.last, args.metrics)
    except PackError as error:
        print(f"nclab-runs pack: {error}", file=sys.stderr)
        return BAD_INPUT
    rest = f", {packed.unfinished} of them unfinished" if packed.unfinished else ""
    experiments = f"{packed.experiments} experiment{'' if packed.experiments == 1 else 's'}"
    size = f"{_megabytes(packed.size)} of {_megabytes(packed.unpacked)}"
    print(f"{args.out}: {table.plural(packed.runs)} of {experiments}{rest}, {size}")
    return 0


def _clean(args: argparse.Namespace) -> int:
    links: list[Path] = []
    runs, queue = _look(args, links)
    states = args.state or ("done",)
    kept = len(links)
    for link in links:
        print(f"left alone: {link} is a symbolic link", file=sys.stderr)
    removals = []
    for run in (run for run in runs if run.state in states):
        try:
            removal = clean.plan(run, args.checkpoints)
        except (clean.Kept, OSError) as error:
            kept += 1
            print(f"left alone: {run.path}: {error}", file=sys.stderr)
            continue
        if removal is not None:
            removals.append(removal)
    if not removals:
        print("nothing to remove")
        return FOUND if kept else 0
    _list(removals, args.checkpoints)
    if not args.yes:
        if not sys.stdin.isatty():
            print("nobody to ask here: --yes removes them; nothing is removed", file=sys.stderr)
            return BAD_INPUT
        if not _agreed():
            print("nothing is removed")
            return FOUND
    removed = 0
    for removal in removals:
        try:
            clean.remove(removal, queue, args.checkpoints)
            removed += 1
        except (clean.Kept, OSError) as error:
            kept += 1
            print(f"kept: {removal.run.path}: {error}", file=sys.stderr)
    print(f"removed {_what(removed, args.checkpoints)}")
    return FOUND if kept else 0


def _list(removals: list[clean.Removal], checkpoints: bool) -> None:
    rows = []
    for removal in removals:
        run = removal.run
        also = f"with {', '.join(removal.foreign)}" if removal.foreign else ""
        rows.append([run.state, str(run.path), table.progress(run), _megabytes(removal.size), also])
    print(table.aligned(["state", "folder", "epoch", "size", "also"], rows))
    total = _megabytes(sum(removal.size for removal in removals))
    print(f"\nto remove: {_what(len(removals), checkpoints)}, {total}")


def _what(count: int, checkpoints: bool) -> str:
    return f"{'the checkpoints of ' if checkpoints else ''}{table.plural(count)}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _agreed() -> bool:
    try:
        return input("Remove? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
