"""nclab-draw: one drawing from any run folders; and what the commands of the analysis share.

    nclab-draw --list                                                   every drawing, and what runs it is made of
    nclab-draw figure1 outputs/figure1 --dataset fashion_mnist --out outputs/figures/figure1
    nclab-draw curves outputs/figure1 --metric nc1,nc2_gram,nc3         # any column of metrics.csv, layer by layer
    nclab-draw sweep outputs/exp --along dataset.label_noise            # a final number against a swept key
    nclab-draw summary outputs/figure1 outputs/figure2 --where optimizer.lr=0.01

A figure is written as PDF and PNG, with the numbers behind it as CSV; a table as CSV (numbers), Markdown and, where it
has a caption, LaTeX. Exit code 2 and one line on stderr for wrong input.
"""

import argparse
import re
import sys
from pathlib import Path

from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.runs import AnalysisError, load_runs
from nclab.system.terminal import lasting_terminal

OPTIONS = ("along", "metric", "split", "layers")  # that some drawings take
ENDINGS = (".pdf", ".png", ".csv", ".md", ".tex")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, exit status 2."""

    def error(self, message: str):
        print(f"{self.prog}: {message}", file=sys.stderr)
        raise SystemExit(2)


def main(words: list[str] | None = None) -> None:
    """nclab-draw: print the drawing's text and the files it wrote."""
    with lasting_terminal():
        _command(words)


def _command(words: list[str] | None) -> None:
    parser = _parser()
    if not (sys.argv[1:] if words is None else words):
        parser.print_help()
        sys.exit(2)
    args = parser.parse_args(words)
    try:
        drawing = DRAWINGS[args.name]
        out = args.out or Path("outputs/figures") / args.name
        if out.suffix in ENDINGS:
            parser.error(f"argument --out: expected the path without ending, got {out}")
        runs = load_runs(args.folders, args.dataset, args.seeds, args.epochs, dict(args.where))
        options = {name: value for name in OPTIONS if (value := getattr(args, name)) is not None}
        text, paths = drawing.save(runs, out, args.policies, **options)
    except (AnalysisError, OSError) as error:
        parser.error(str(error))
    print(*([text, ""] if text else []), *paths, sep="\n")


class _List(argparse.Action):
    """--list: print the drawings and leave."""

    def __call__(self, parser, *_) -> None:
        try:
            names = DRAWINGS.names()
        except AnalysisError as error:
            parser.error(str(error))
        for name in names:
            print(f"{name:13} {DRAWINGS[name].kind}: {DRAWINGS[name].of}")
        parser.exit()


def _parser() -> Parser:
    parser = Parser("nclab-draw", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--list", action=_List, nargs=0, help="name the drawings and leave")
    add("name", metavar="NAME", help="a drawing of --list")
    add("folders", nargs="+", type=Path, metavar="FOLDER", help="run folder, experiment folder or output root")
    add("--out", type=Path, help="where to write, without ending (outputs/figures/NAME)")
    add("--policies", type=names, help='these, in this order: "baseline,frozen last 3"')
    add("--along", metavar="KEY", help="of sweep: the key on its axis, such as dataset.label_noise")
    add(
        "--metric",
        type=words_of,
        help="of curves and heatmap: columns of metrics.csv, such as nc1,nc3 (nc1); of sweep: final numbers (accuracy)",
    )
    add("--split", help="of curves, heatmap (train) and sweep (test): train, test or another split of the runs")
    add("--layers", type=words_of, help="of curves and heatmap: these layers, such as fc4,fc5")
    add_selection(parser)
    return parser


def add_selection(parser: argparse.ArgumentParser) -> None:
    """The options that select among run folders."""
    add = parser.add_argument
    add("--dataset", type=names, action="extend", metavar="NAME",
        help="only runs on this dataset; tables take several: mnist,cifar10")  # fmt: skip
    add("--seeds", type=integers, help="only these seeds: 0,1,2")
    add("--epochs", type=int, help="only runs of this many epochs")
    add("--where", type=setting, action="append", default=[], metavar="KEY=VALUE",
        help="only runs with this setting, e.g. optimizer.lr=0.01; may be repeated")  # fmt: skip


def names(text: str) -> list[str]:
    """A comma-separated list."""
    return re.split(r",(?!\d)", text)  # the comma of 'FFN-ETF 1,3' belongs to the name


def words_of(text: str) -> tuple[str, ...]:
    """A comma-separated list of words without commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def integers(text: str) -> list[int]:
    """A comma-separated list of whole numbers."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers such as 0,1,2, got {text}") from None


def setting(text: str) -> tuple[str, str]:
    """KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text}")
    return key, value
