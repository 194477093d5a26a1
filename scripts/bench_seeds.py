"""Whether seeds=[...] pays: seconds a training epoch of S seeds as one batched model and one after another.

    python scripts/bench_seeds.py --threads 1           writes outputs/bench/seeds.json

On a CPU `seeds=[...]` batches the small ones of these settings only (`seeds.least_to_pay`); here all are.
"""

import statistics
import sys
from functools import partial

from nclab.bench.harness import arguments, limits, ratio, rounds, save
from nclab.bench.seeds_timed import SETTINGS, as_one, fits, in_turns
from nclab.training.seeds import least_to_pay


def main() -> int:
    args = arguments(__doc__.splitlines()[0], "seeds", seeds=[1, 2, 4, 8, 16], settings=[*SETTINGS], images=0)
    machine, rows = limits(args.device), []
    for name in args.settings:
        for seeds in args.seeds:
            of_seeds = fits(name, seeds, args.device, args.images)
            of_turns, of_stack = rounds(
                args.repeats,
                partial(in_turns, of_seeds),
                partial(as_one, of_seeds),
                device=args.device,
            )
            turns, stacked = statistics.median(of_turns), statistics.median(of_stack)
            row = {"setting": name, "seeds": seeds, "in_turns_seconds": turns, "stacked_seconds": stacked}
            rows.append(
                row | {**ratio("gain", of_turns, of_stack), "batched_by_default": seeds >= least_to_pay(of_seeds[0])}
            )
            print(f"{name}, {seeds} seeds: in turns {turns:.3f} s, stacked {stacked:.3f} s, gain {turns / stacked:.2f}")
    save(args.out, {"limits": machine, "rows": rows}, args.device, args.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
