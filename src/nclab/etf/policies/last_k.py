"""etf=last_k: the last k linear layers are simplex ETFs from initialisation on (arXiv 2412.00884, Figure 1)."""

from dataclasses import dataclass

from torch import nn

from nclab.etf.policy import POLICIES, ETFPolicy, FixSettings, Switch, check_before_training, check_fits, switch


@dataclass
class LastKSettings(FixSettings):
    name: str = "last_k"
    k: int = 1  # 1: the classifier; 2: the last hidden layer too; ... up to all

    @property
    def stem(self) -> str:
        return f"last{self.k}"

    @property
    def fixed_rows(self) -> str | None:
        unit = self.classifier_scale is None and not self.bias
        return self.kind if unit and self.kind in ("etf", "orthogonal") else None


@POLICIES.add("last_k", LastKSettings)
class LastK(ETFPolicy):
    """Fixes the last k layers before training. Raises ValueError for k outside 1..number of layers, for a frame
    that does not fit, and for frame `nearest`."""

    def check(self, model: nn.Module) -> None:
        sites = list(model.etf_roles())
        k = self.settings.k
        if not 1 <= k <= len(sites):
            raise ValueError(
                f"etf.k must be between 1 and {len(sites)}, the linear layers of this model ({', '.join(sites)}); "
                f"got {k}"
            )
        others = {id(p) for p in model.parameters()} - {
            id(p) for layer in model.etf_sites().values() for p in layer.parameters()
        }
        if k == len(sites) and not self.settings.bias and not others:
            raise ValueError(f"etf.k={k} with etf.bias=false leaves this model nothing to learn; lower etf.k")
        check_before_training(self.settings)
        check_fits(model, sites[-k:], self.settings)

    def setup(self, model: nn.Module, seed: int) -> list[Switch]:
        super().setup(model, seed)
        sites = list(model.etf_roles())[-self.settings.k :]
        return [switch(model, site, self.settings.recipe(model, site, seed), 0) for site in sites]
