"""etf=transformer_ffn: both feed-forward layers of chosen blocks are simplex ETFs from initialisation on
(ETF-Transformer, arXiv 2412.00884, Figures 3 and 4)."""

import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from nclab.etf.policy import POLICIES, ETFPolicy, FixSettings, Switch, check_before_training, check_fits, switch

CHOICE = re.compile(r"all|(first|last)([1-9]\d*)")


@dataclass
class TransformerFFNSettings(FixSettings):
    """Which blocks, and the factors on their two layers; `scale` sets both, the other two one each."""

    name: str = "transformer_ffn"
    blocks: Any = "all"  # all | firstN | lastN | a list such as [1,3]; counted from 1 at the input
    classifier: bool = False  # true: the head too
    in_scale: float | None = None  # factor on the first layer (d -> m) alone
    out_scale: float | None = None  # factor on the second layer (m -> d) alone

    def __post_init__(self) -> None:
        super().__post_init__()
        listed = isinstance(self.blocks, list) and self.blocks and all(type(b) is int and b > 0 for b in self.blocks)
        if not listed and not (isinstance(self.blocks, str) and CHOICE.fullmatch(self.blocks)):
            raise ValueError(f"etf.blocks must be all, firstN, lastN or a list such as [1,3], got {self.blocks}")
        if listed:
            self.blocks = sorted(set(self.blocks))  # one choice, one run name
        if not self.classifier:
            self._refuse_idle(("classifier_scale", "classifier_frame"), "etf.classifier=false")
        if self.scale is not None and not (self.in_scale is None and self.out_scale is None):
            raise ValueError(
                "etf.scale sets the factor of both layers; leave it out beside etf.in_scale and etf.out_scale "
                f"(got {self.scale}, {self.in_scale} and {self.out_scale})"
            )

    @property
    def stem(self) -> str:
        blocks = "+".join(map(str, self.blocks)) if isinstance(self.blocks, list) else self.blocks
        return f"ffn_{blocks}" + ("_head" if self.classifier else "")

    def scale_of(self, role: str) -> float | None:
        return {"ffn_in": self.in_scale, "ffn_out": self.out_scale}.get(role) or super().scale_of(role)


@POLICIES.add("transformer_ffn", TransformerFFNSettings)
class TransformerFFN(ETFPolicy):
    """Fixes the layers d -> m and m -> d of the chosen blocks before training, whatever the ratio m / d. Raises
    ValueError for a model without feed-forward layers, blocks that it has not, a frame that does not fit, and frame
    `nearest`."""

    def check(self, model: nn.Module) -> None:
        check_before_training(self.settings)
        check_fits(model, self._sites(model), self.settings)

    def setup(self, model: nn.Module, seed: int) -> list[Switch]:
        super().setup(model, seed)
        return [switch(model, site, self.settings.recipe(model, site, seed), 0) for site in self._sites(model)]

    def _sites(self, model: nn.Module) -> list[str]:
        """The layers to fix, in network order."""
        s = self.settings
        roles = model.etf_roles()
        layers: dict[str, list[str]] = {}  # block -> its feed-forward layers
        for site, role in roles.items():
            if role in ("ffn_in", "ffn_out"):
                layers.setdefault(site.rpartition(".")[0], []).append(site)
        if not layers:
            raise ValueError(
                "etf=transformer_ffn needs a model with feed-forward layers, such as model=vit with model.ratio above 0"
            )
        blocks = list(layers)
        if isinstance(s.blocks, list):
            numbers, asked = s.blocks, s.blocks[-1]
        else:
            end, n = CHOICE.fullmatch(s.blocks).groups()
            asked = int(n or len(blocks))
            numbers = range(1, asked + 1) if end != "last" else range(len(blocks) - asked + 1, len(blocks) + 1)
        if asked > len(blocks):
            raise ValueError(
                f"etf.blocks={s.blocks} asks for block {asked}; the model has {len(blocks)}: {', '.join(blocks)}"
            )
        chosen = [site for number in numbers for site in layers[blocks[number - 1]]]
        return chosen + ([model.classifier] if s.classifier else [])
