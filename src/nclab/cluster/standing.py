"""What a launcher says of its jobs: how many wait or run, why they wait, and what to do where they never begin."""

import sys
import time
from collections import Counter
from collections.abc import Collection

from nclab.runs.queue import Queue
from nclab.runs.waiting import ORDINARY, SECONDS_TO_ADVISE, advice


class Standing:
    """Prints a line where it changed, and once for each reason a warning with what to do."""

    def __init__(self) -> None:
        self.shown: object = None
        self.since: dict[tuple[str, str], float] = {}  # (job, reason) -> when it was first seen
        self.said: set[str] = set()

    def look(self, queue: Queue, jobs: Collection[str]) -> None:
        """Say how the jobs stand now: `jobs` has one entry a run."""
        states = Counter(queue.jobs.get(job, "ENDING").lower() for job in jobs)
        pending = [job for job in jobs if queue.jobs.get(job) == "PENDING"]
        reasons = sorted({queue.reasons.get(job, "") for job in pending} - {*ORDINARY})
        if (states, reasons) != self.shown:
            self.shown = (states, reasons)
            waits = {"pending": f" ({', '.join(reasons)})"} if reasons else {}
            print("  " + ", ".join(f"{n} {state}{waits.get(state, '')}" for state, n in sorted(states.items())),
                  flush=True)  # fmt: skip
        self._advise(queue, jobs)

    def _advise(self, queue: Queue, jobs: Collection[str]) -> None:
        now = time.monotonic()
        there = ((job, queue.reasons.get(job, "")) for job in jobs if job in queue.jobs)
        self.since = {one: self.since.get(one, now) for one in there}
        late = [
            job for job in jobs if now - self.since.get((job, queue.reasons.get(job, "")), now) >= SECONDS_TO_ADVISE
        ]
        for standing, line in advice(queue, late).items():
            if standing not in self.said:
                self.said.add(standing)
                print(f"warning: {line}", file=sys.stderr, flush=True)
