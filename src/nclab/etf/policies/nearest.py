"""etf=nearest: at every step the classifier is the simplex ETF nearest to the class means (arXiv 2411.01248)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from nclab.etf.layer import in_place_of, replace
from nclab.etf.nearest import require_head
from nclab.etf.nearest_head import NearestETFHead, alone
from nclab.etf.policy import POLICIES, ETFPolicy, PolicySettings, Switch, learnable, site_seed
from nclab.interfaces.batch import Batch, Output
from nclab.interfaces.valid import OutOfRange


@dataclass
class NearestSettings(PolicySettings):
    name: str = "nearest"
    delta: float = 1e-3  # weight of the term that keeps the frame near to that of the step before
    gradient: bool = True  # of the loss through the class means into the features; false: the head is a constant
    bias: bool = True  # b = -W mu, mu the mean of the class means; false: no bias

    def __post_init__(self) -> None:
        if not (self.delta > 0 and math.isfinite(self.delta)):
            raise OutOfRange(f"etf.delta must be above 0 and finite, got {self.delta}", "etf.delta")

    @property
    def label(self) -> str:
        return "_".join([self.name, *["constant"] * (not self.gradient), *["no_bias"] * (not self.bias)])

    @property
    def needs_classes(self) -> bool:
        return True


@POLICIES.add("nearest", NearestSettings)
class Nearest(ETFPolicy):
    """Puts a `nclab.etf.NearestETFHead` in the classifier's place before training. In every training step, between
    forward pass and loss, the head is set from the running class means of its input, the present batch included, and
    the logits are made anew by it. Weight and bias are no parameters; evaluation uses the last head. Several processes
    set it from the sums over their shares.

    Raises ValueError where the classifier reads fewer dimensions than there are classes, and where nothing else is
    learnable.
    """

    settings: NearestSettings

    def check(self, model: nn.Module) -> None:
        site = model.classifier
        head = model.get_submodule(site)
        try:
            require_head(head.out_features, head.in_features, self.settings.delta)
        except ValueError as error:
            shape = f"{head.in_features} -> {head.out_features}"
            raise ValueError(f"etf=nearest does not fit layer '{site}' ({shape}): {error}") from None
        own = {id(p) for p in head.parameters()}
        if all(id(p) in own for p in model.parameters()):
            raise ValueError("etf=nearest leaves this model nothing to learn: it has no layer before its classifier")

    def setup(self, model: nn.Module, seed: int) -> list[Switch]:
        super().setup(model, seed)
        site = model.classifier
        linear, s = model.get_submodule(site), self.settings
        like = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        shape = linear.in_features, linear.out_features
        head = NearestETFHead(*shape, s.delta, s.gradient, site_seed(seed, site), bias=s.bias, **like)
        replace(model, site, in_place_of(linear, head))
        return [Switch(site, 0, head.recipe, head.scale, learnable(linear.parameters()))]

    def before_loss(
        self, model: nn.Module, batch: Batch, out: Output, total: Callable[[Tensor], Tensor] = alone
    ) -> Output:
        head = model.get_submodule(model.classifier)
        features = out.features[model.inputs()[model.classifier]]  # (B, d)
        return Output(head(features, batch.targets, total).to(out.prediction), out.features)
