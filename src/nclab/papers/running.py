"""Train the runs behind a wing's figures and tables, several side by side, then draw and judge."""

import argparse
import sys

from nclab.analysis.cli import integers, names
from nclab.analysis.runs import AnalysisError
from nclab.cluster.workers import default_jobs, run_all
from nclab.config.plan import Part, Plan
from nclab.config.schema import ConfigError, RunConfig
from nclab.data import MissingDataError, data_root
from nclab.data.fetching import SOURCES, FetchError, fetch
from nclab.papers.drawing import draw, pictures_of
from nclab.papers.judging import judge_wing
from nclab.papers.wings import Wing
from nclab.run.exit import BAD_INPUT, FAILED, INTERRUPTED
from nclab.system.signals import Stopped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `nclab-paper run` takes beside the wing, its parts and the output root."""
    add = parser.add_argument
    add("override", nargs="*", metavar="KEY=VALUE", help="further keys of all runs")
    add("--profile", default="cpu", help="smoke, cpu, gpu_hour or paper (cpu)")
    add("--dataset", type=names, help="instead of the profile's: mnist,cifar10")
    add("--seeds", type=integers, help="instead of the profile's: 0,1,2")
    add("--epochs", type=int, help="instead of the profile's")
    add("--jobs", type=int, help=f"runs side by side (here {default_jobs()})")
    add("--stack", type=int, help="seeds of a run in one process, see seeds=[...] of nclab-train (the profile's, or 1)")
    add("--policy", action="append", default=[], metavar="KEY=VALUE", help="key of every run with an ETF policy")


def run_wing(wing: Wing, args: argparse.Namespace) -> int:
    """Train, draw exactly the runs of the plan, and judge where all parts were asked for; the exit code."""
    overrides = args.override + ([] if args.epochs is None else [f"epochs={args.epochs}"])
    try:
        plan = Plan(wing.conf, wing.name)
        parts = plan.resolve(
            args.part, args.profile, args.dataset, args.seeds, overrides, args.policy, str(args.output)
        )
        configs = {config.folder: config for part in parts for config in part.configs}
        if not _fetched(parts, next(iter(configs.values()))):
            return FAILED
        # Seed by seed: a sweep that is stopped has whole seeds to show.
        outcomes = run_all(
            sorted(configs.values(), key=lambda config: config.seed),
            default_jobs() if args.jobs is None else args.jobs,
            plan.stack(args.profile) if args.stack is None else args.stack,
            instead="a container gets them by --shm-size=1g, or --ipc=host",
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
    failures += draw(wing, args.output, pictures_of((p.name, p.dataset, p.draw, p.finished) for p in parts))
    if not args.part:
        try:
            judge_wing(wing, args.output)
        except (AnalysisError, OSError) as error:
            failures.append(f"not judged: {error}")
    for failure in failures:
        print(failure, file=sys.stderr)
    return FAILED if failures else 0


def _fetched(parts: list[Part], config: RunConfig) -> bool:
    """Whether every dataset that ships with no package is under the data root, fetched if need be."""
    for name in sorted({part.dataset for part in parts} & {*SOURCES}):
        try:
            print(fetch(name, data_root(config.data_root)))
        except (FetchError, OSError) as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            return False
    return True
