"""The command line that the figure and table scripts share."""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from nclab.analysis.runs import AnalysisError, Run, load_runs

Make = Callable[[list[Run], list[str] | None, Path], tuple[str, list[Path]]]


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, exit status 2."""

    def error(self, message: str):
        print(f"{self.prog}: {message}", file=sys.stderr)
        raise SystemExit(2)


def command(doc: str, out: str, make: Make) -> None:
    """Load the runs asked for, `make(runs, policies, out)`, print its text and the files it wrote."""
    parser = _parser(doc, out)
    args = parser.parse_args()
    if args.out.suffix in (".pdf", ".png", ".csv", ".md", ".tex"):
        parser.error(f"argument --out: expected the path without ending, got {args.out}")
    try:
        runs = load_runs(args.folders, args.dataset, args.seeds, args.epochs, dict(args.where))
        text, paths = make(runs, args.policies, args.out)
    except (AnalysisError, OSError) as error:
        parser.error(str(error))
    print(text, "", *paths, sep="\n")


def _parser(doc: str, out: str) -> Parser:
    parser = Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("folders", nargs="+", type=Path, metavar="FOLDER", help="run folder, experiment folder or output root")
    add("--out", type=Path, default=Path(out), help=f"where to write, without ending ({out})")
    add("--dataset", type=names, action="extend", metavar="NAME",
        help="only runs on this dataset; tables take several: mnist,cifar10")  # fmt: skip
    add("--seeds", type=integers, help="only these seeds: 0,1,2")
    add("--epochs", type=int, help="only runs of this many epochs")
    add("--policies", type=names, help='these, in this order: "baseline,frozen last 3"')
    add("--where", type=_setting, action="append", default=[], metavar="KEY=VALUE",
        help="only runs with this setting, e.g. optimizer.lr=0.01; may be repeated")  # fmt: skip
    return parser


def names(text: str) -> list[str]:
    """A comma-separated list."""
    return re.split(r",(?!\d)", text)  # the comma of 'FFN-ETF 1,3' belongs to the name


def integers(text: str) -> list[int]:
    """A comma-separated list of whole numbers."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers such as 0,1,2, got {text}") from None


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text}")
    return key, value
