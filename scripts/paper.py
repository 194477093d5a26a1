"""Everything behind a paper: train what is not trained yet, several runs side by side, and draw its figures and tables.

    python scripts/paper.py --profile smoke                 all parts on digits, minutes
    python scripts/paper.py figure3 --profile cpu           one part
    python scripts/paper.py figure1 --dataset mnist --seeds 0,1 --epochs 30

Parts and profiles are in conf/plan/. Stop it anywhere: the same command goes on, and repeats no finished run.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from nclab import analysis
from nclab.analysis import AnalysisError, load_runs, save_figure, save_table
from nclab.analysis.cli import Parser, integers, names
from nclab.cluster.workers import default_jobs, run_all
from nclab.config.place import CONF
from nclab.config.plan import Part, Plan
from nclab.config.schema import ConfigError
from nclab.data import MissingDataError
from nclab.data.fetching import SOURCES
from nclab.run.exit import BAD_INPUT, FAILED, INTERRUPTED
from nclab.system.redact import masked_terminal
from nclab.system.signals import Stopped

TABLES = ("table1", "table2", "variants")  # over all datasets; the others are figures, one a dataset
FETCH = (sys.executable, "-m", "nclab.data.command", "fetch")


def main() -> int:
    args = _arguments()
    try:
        overrides = args.override + ([] if args.epochs is None else [f"epochs={args.epochs}"])
        plan = Plan(CONF, args.plan)
        parts = plan.resolve(args.parts, args.profile, args.dataset, args.seeds, overrides, args.policy, args.output)
        configs = {config.folder: config for part in parts for config in part.configs}
        fetch = sorted({part.dataset for part in parts} & {*SOURCES})  # the others ship with a package
        root = next(iter(configs.values())).data_root
        where = [] if root is None else ["--root", root]
        if fetch and subprocess.run([*FETCH, *fetch, *where]).returncode:
            return FAILED
        # Seed by seed: a sweep that is stopped has whole seeds to show.
        outcomes = run_all(
            sorted(configs.values(), key=lambda config: config.seed),
            default_jobs() if args.jobs is None else args.jobs,
            args.together,
        )
    except (ConfigError, MissingDataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    except Stopped as stopped:
        print(f"error: {stopped}", file=sys.stderr)
        return stopped.exit_code
    failures = [f"FAILED {outcome.folder}: {outcome.error}" for outcome in outcomes if outcome.error is not None]
    for (name, draw), folders in _pictures(parts).items():
        try:
            print(*_draw(draw, folders, Path(args.output) / "figures" / name), sep="\n")
        except (AnalysisError, OSError) as error:
            failures.append(f"not drawn: {name}: {error}")
    for failure in failures:
        print(failure, file=sys.stderr)
    return FAILED if failures else 0


def _pictures(parts: list[Part]) -> dict[tuple[str, str], list[Path]]:
    """(name, how it is drawn) -> its finished runs: a figure a part and dataset, a table a part over all datasets."""
    pictures: dict[tuple[str, str], list[Path]] = {}
    for part in parts:
        name = part.name if part.draw in TABLES else f"{part.name}_{part.dataset}"
        pictures.setdefault((name, part.draw), []).extend(part.finished)
    return pictures


def _draw(draw: str, folders: list[Path], out: Path) -> list[Path]:
    if not folders:
        raise AnalysisError("none of its runs is finished")
    made, about = getattr(analysis, draw)(load_runs(folders))
    return save_table(made, out, about) if draw in TABLES else save_figure(made, about, out)


def _arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("words", nargs="*", metavar="PART|KEY=VALUE",
        help="figure1 ... table2, controls, controls_vit (none: all); further keys of all runs")  # fmt: skip
    add("--plan", default="paper", help="file in conf/plan/ (paper)")
    add("--profile", default="cpu", help="smoke, cpu or paper (cpu)")
    add("--dataset", type=names, help="instead of the profile's: mnist,cifar10")
    add("--seeds", type=integers, help="instead of the profile's: 0,1,2")
    add("--epochs", type=int, help="instead of the profile's")
    add("--jobs", type=int, help=f"runs side by side (here {default_jobs()})")
    add("--together", type=int, default=1, help="seeds of a run in one process, see seeds=[...] of nclab-train (1)")
    add("--output", default="outputs", help="output_root of all runs; pictures land in OUTPUT/figures (outputs)")
    add("--policy", action="append", default=[], metavar="KEY=VALUE", help="key of every run with an ETF policy")
    args = parser.parse_intermixed_args()
    args.override = [word for word in args.words if "=" in word]
    args.parts = [word for word in args.words if "=" not in word]
    return args


if __name__ == "__main__":
    with masked_terminal():
        sys.exit(main())
