"""etf=none: the baseline, every layer learnable."""

from nclab.etf.policy import POLICIES, ETFPolicy, PolicySettings


@POLICIES.add("none", PolicySettings)
class NoPolicy(ETFPolicy):
    """Fixes nothing."""
