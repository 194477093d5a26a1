"""The verdict on a claim in one setting, with all that a report says of it."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nclab.analysis.interval import Estimate
from nclab.analysis.ledger import Claim
from nclab.analysis.runs import Run
from nclab.analysis.verdict import VERDICTS

ALWAYS = ("dataset.name", "epochs")  # named in every setting
POLICY = "policy"  # the treatment's label, named where it differs within a claim


@dataclass(frozen=True)
class Judgement:
    """The verdict on a claim in one setting, and the numbers behind it, one a seed in the order of `seeds`.

    `margin` is what matters in this setting, in the claim's unit, and `margin_reason` where it comes from; None and ''
    where the claim has no margin, or no run says what it is. `provisional` is '' for a verdict that has the seeds the
    claim states, else '5 of 10 seeds'. `p_holds` and `p_fails` are of the one-sided tests that the claim holds, and
    that it fails (nan: nothing was tested); `adjusted` is the verdict that Holm's procedure leaves within the claim's
    family, by `p_adjusted`. `run` is one of its treatment, for what the setting is; `broken` are the errors of runs
    that could not be read.
    """

    claim: Claim
    setting: dict[str, Any]  # the keys worth naming
    verdict: str
    reason: str
    estimate: Estimate | None = None
    seeds: tuple[int, ...] = ()
    treatment: tuple[float, ...] = ()
    baseline: tuple[float, ...] = ()
    note: str = ""
    run: Run | None = None
    broken: tuple[str, ...] = ()
    margin: float | None = None
    margin_reason: str = ""
    provisional: str = ""
    p_holds: float = math.nan
    p_fails: float = math.nan
    adjusted: str = ""
    p_adjusted: float = math.nan
    absent: bool = False  # one side has no run at all in this setting

    @property
    def arithmetic(self) -> bool:
        """Whether the configuration alone decides the number: the verdict is then no evidence of training."""
        return self.claim.deterministic

    @property
    def where(self) -> str:
        """The setting for people: 'mnist, 30 epochs, etf.k=1'."""
        parts = [f"{key}={_shown(value)}" for key, value in self.setting.items() if key not in (*ALWAYS, POLICY)]
        if POLICY in self.setting:
            parts.insert(0, self.setting[POLICY])
        if "dataset.name" in self.setting:
            parts = [str(self.setting["dataset.name"]), f"{self.setting['epochs']} epochs", *parts]
        return ", ".join(parts) or "no runs"


def count(judgements: Iterable[Judgement], arithmetic: bool = False, provisional: bool = False) -> dict[str, int]:
    """How many have each verdict, in the order of VERDICTS. Never counted together are three kinds: empirical ones with
    all the seeds that their claim states; `provisional` ones, with fewer; those that are `arithmetic`."""
    kind = (arithmetic, provisional)
    counts = Counter(one.verdict for one in judgements if (one.arithmetic, bool(one.provisional)) == kind)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def _shown(value: Any) -> str:
    """0.000384615 and not all sixteen digits of it."""
    return f"{value:g}" if isinstance(value, float) else str(value)
