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
from contextlib import nullcontext

import hydra

from nclab.config.command import arguments, sweep, with_home_quoted
from nclab.config.place import CONF
from nclab.parallel.group import refuse_several
from nclab.run.build import as_config_error
from nclab.run.execute import check, is_done
from nclab.run.exit import BAD, BAD_INPUT, FAILED, INTERRUPTED, complain
from nclab.run.started import as_started, requested
from nclab.run.task import Task
from nclab.system.redact import masked_terminal
from nclab.system.signals import Stopped, StopSignals
from nclab.system.terminal import lasting_terminal
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
    try:
        sys.argv[1:] = with_home_quoted(sys.argv[1:])  # which Hydra reads too
        args = arguments(sys.argv[1:])
        if args.multirun:
            as_config_error(refuse_several, "--multirun starts its runs by itself")
        planned = sweep(args, CONF)
        task = Task(planned.configs)
        # All, before the first is trained.
        runs = (run for words, c in planned.configs.items() for run in map(as_started, requested(c, words)))
        check((run for run in runs if not is_done(run)), here=planned.launcher != "slurm")
        # One for all runs of a sweep: a signal that comes when one is just through ends the others too.
        with StopSignals() if args.multirun else nullcontext():
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")(task)()
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return INTERRUPTED
    except BAD as error:
        if "debug=true" not in sys.argv:
            return complain(error, BAD_INPUT)
        traceback.print_exc()
        return BAD_INPUT
    except FAILURES as error:
        if "debug=true" not in sys.argv:
            return complain(error, FAILED)
        traceback.print_exc()
        return FAILED
    except Stopped as stopped:
        return complain(stopped, stopped.exit_code)
    except Exception:
        traceback.print_exc()
        return FAILED
    return FAILED if task.failures else 0


if __name__ == "__main__":
    main()
