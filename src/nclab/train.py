"""`nclab-train`: read the command line, check every run it asks for, train them.

    python -m nclab.train dataset=mnist5k etf=last_k etf.k=2          one run
    python -m nclab.train etf=last_k seeds=[0,1,2]                    three runs in one process
    python -m nclab.train --multirun etf=last_k etf.k=1,2,3 seed=0,1  a sweep
    torchrun --nproc-per-node=4 -m nclab.train model=vit              one run on four GPUs, or four CPU processes
    python -m nclab.train --help                                      every group and key

The same command again skips a finished run and resumes an interrupted one.
"""

import os
import sys
import traceback

import hydra

from nclab.config.checks import as_config_error
from nclab.config.command import arguments, options_first, with_home_quoted
from nclab.config.composing import ROOT, plainly
from nclab.config.place import CONF
from nclab.config.schema import ConfigError
from nclab.config.sweep import Planned, planned
from nclab.parallel.group import refuse_several
from nclab.run.exit import BAD, BAD_INPUT, FAILED, INTERRUPTED, complain
from nclab.run.task import possible, train_jobs
from nclab.system.redact import masked_terminal
from nclab.system.signals import Stopped, StopSignals
from nclab.system.terminal import lasting_terminal
from nclab.system.words import typed_true
from nclab.training.fit import FAILURES


def main() -> None:
    """Console entry: exit code 0 done, 2 wrong input (one line, nothing written), 1 failed, 128 + n stopped by signal
    n (130 Ctrl-C, 143 TERM), after saving."""
    try:
        with lasting_terminal():
            _main()
    except SystemExit as end:
        if end.code and os.environ.get("WORLD_SIZE") not in (None, "1"):
            # At once: with another process gone, libraries that tidy up would wait for it.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else FAILED)
        raise


def _main() -> None:
    # Hydra would print a wrong override in its own way and exit with 1; with this set it raises it to us.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    with masked_terminal():
        code = _command()
    if code:
        sys.exit(code)


def _command() -> int:
    """Do what sys.argv says; returns the exit code. A traceback is printed here, where secrets in it are masked."""
    debug = typed_true("debug", sys.argv)
    try:
        words = with_home_quoted(sys.argv[1:])
        args = arguments(words)
        if args.only_shows:
            sys.argv[1:] = options_first(words, args.overrides)  # which Hydra reads itself
            return _show()
        plan = planned(args, CONF)
        debug = debug or any(job.config.tracebacks for job in plan.jobs)  # a YAML file may say it
        if not plan.sweep:
            return 0 if train_jobs(plan.jobs, tell=True) else FAILED
        as_config_error(refuse_several, "a sweep starts its runs by itself")
        # One for all runs: a signal that comes when one is just through ends the others too.
        with StopSignals():
            return _sweep(plan)
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return INTERRUPTED
    except (*BAD, *FAILURES) as error:
        code = BAD_INPUT if isinstance(error, BAD) else FAILED
        if not debug:
            return complain(error, code)
        traceback.print_exc()
        return code
    except Stopped as stopped:
        return complain(stopped, stopped.exit_code)
    except Exception:
        traceback.print_exc()
        return FAILED


def _sweep(plan: Planned) -> int:
    """Train all runs, once all were checked."""
    if plan.search is not None:
        from nclab.run.search import search_trials

        return 0 if search_trials(plan.search) else FAILED
    if plan.launcher == "basic":
        return 0 if train_jobs(possible(plan)) else FAILED
    from nclab.cluster.launch import SweepFailed, prepared, runs_of
    from nclab.cluster.slurm import SlurmError

    start = prepared(plan.launcher, plan.settings)
    try:
        start(runs_of(possible(plan)))
    except (SweepFailed, SlurmError) as error:
        return complain(error, FAILED)
    return 0


def _show() -> int:
    """What Hydra shows by itself: --help, --cfg, --info, and completion of a shell's words."""
    try:
        with plainly():
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=ROOT)(main)()
    except SystemExit as end:
        return BAD_INPUT if end.code else 0
    except ConfigError:
        raise
    except Exception as error:  # of its completion, say
        raise ConfigError(f"{type(error).__name__}: {error}".splitlines()[0]) from error
    return 0


if __name__ == "__main__":
    main()
