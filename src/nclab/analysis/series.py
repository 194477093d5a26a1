"""The numbers of a claim about a series: one slope a seed, from its runs at every value of `Claim.along`."""

import math

from nclab.analysis.ledger import Claim
from nclab.analysis.pairs import Numbers, Side, seed_list
from nclab.analysis.runs import AnalysisError, Run
from nclab.analysis.trend import LEAST_DEPTHS, line, why_undefined


class Series(Numbers):
    """A seed counts where it has a number at every depth that the series has with any seed.

    A slope over fewer depths than another seed's is another number, and a depth that is lacking because training
    diverged there is the one that would have bent the line: such seeds have no slope, and the note says why.
    """

    def __init__(self, claim: Claim, series: Side):
        self.undefined: list[int] = []  # seeds with a run whose number has no logarithm
        super().__init__(claim, series, None)

    def _add(self, seed: int) -> None:
        if len(self.treatment.depths) < LEAST_DEPTHS:
            return
        by_depth: dict[float, list[Run]] = {}
        for run in self.treatment.runs[seed]:
            by_depth.setdefault(run.settings[self.claim.along], []).append(run)
        found = {depth: self._value(by_depth[depth], None) for depth in sorted(by_depth)}
        points = {depth: value for depth, (run, value) in found.items() if run}
        lost = self.treatment.lost.get(seed, ())
        if reason := why_undefined(points, [depth for depth in self.treatment.depths if depth not in lost]):
            self.missing.setdefault(f"{self.claim.along}: {reason}", []).append(seed)
            if any(not (math.isfinite(value) and value > 0) for value in points.values()):
                self.undefined.append(seed)
        elif not lost:
            self.left[seed], self.right[seed] = line(points)[0], 0.0
            self.read += [run for run, _ in found.values() if run]

    @property
    def scale(self) -> float:
        """A slope of nothing is the rounding of logarithms, which are of order 1."""
        return max(1.0, super().scale)

    @property
    def floor(self) -> float | None:
        """Slopes are not rounded to whole images."""
        return None

    @property
    def flatters(self) -> str:
        """A depth without a number is no better than one that diverged."""
        lost = (
            f"{self.claim.statistic.name} is undefined with seed {seed_list(self.undefined)}" if self.undefined else ""
        )
        return " and ".join(part for part in (super().flatters, lost) if part)

    def note(self) -> list[str]:
        """As of any claim; and where a diverged seed stopped."""
        lost = [
            f"training diverged at {self.claim.along}={'|'.join(f'{depth:g}' for depth in depths)} with seed {seed}"
            for seed, depths in self.treatment.lost.items()
        ]
        return lost + super().note()


def depth_of(claim: Claim, run: Run) -> float:
    """Where a run stands in the series of a claim."""
    value = run.settings[claim.along]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise AnalysisError(f"claim {claim.id}: along {claim.along} takes numbers above 0, got {value} in {run.path}")
    return value
