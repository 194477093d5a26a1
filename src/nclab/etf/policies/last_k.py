"""etf=last_k: the last k linear maps are simplex ETFs from initialisation on (arXiv 2412.00884, Figure 1)."""

from dataclasses import dataclass

from torch import nn

from nclab.etf.policy import POLICIES, ETFPolicy, FixSettings, Switch, check_fits, switch


@dataclass
class LastKSettings(FixSettings):
    name: str = "last_k"
    k: int = 1  # 1 = the classifier alone; 2 adds the last hidden map; ...

    @property
    def label(self) -> str:
        return f"last{self.k}"


@POLICIES.add("last_k", LastKSettings)
class LastK(ETFPolicy):
    """Fixes the last k maps before training. Raises ValueError for k outside 1..number of maps, for a frame that
    does not fit, and for frame `nearest`: there is nothing learnt yet to be near to."""

    kind = "etf"

    def check(self, model: nn.Module) -> None:
        sites = list(model.etf_sites())
        k = self.settings.k
        if not 1 <= k <= len(sites):
            raise ValueError(
                f"etf.k must be between 1 and {len(sites)}, the linear maps of this model ({', '.join(sites)}); got {k}"
            )
        if self.kind == "etf" and "nearest" in (self.settings.frame, self.settings.classifier_frame):
            raise ValueError(
                "frame 'nearest' follows a learnt weight, and etf=last_k fixes maps before training; "
                "valid here: random, canonical"
            )
        recipes = [self.settings.recipe(model, site, 0, self.kind) for site in sites[-k:]]
        check_fits(model, sites[-k:], recipes)

    def setup(self, model: nn.Module, seed: int) -> list[Switch]:
        super().setup(model, seed)
        sites = list(model.etf_sites())[-self.settings.k :]
        return [switch(model, s, self.settings.recipe(model, s, seed, self.kind), 0) for s in sites]
