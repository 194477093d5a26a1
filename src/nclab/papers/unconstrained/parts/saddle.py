"""model=saddle: one layer on free features that starts at a critical point of the objective, and not at random."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nclab.interfaces.shapes import Shape
from nclab.interfaces.valid import OutOfRange
from nclab.models.base import MODELS
from nclab.models.unconstrained import Unconstrained, UnconstrainedSettings, build_unconstrained
from nclab.theory.critical_points import grouped


@dataclass
class SaddleSettings(UnconstrainedSettings):
    """As model=unconstrained of one matrix; `feature_std` and `weight_std` mean nothing."""

    name: str = "saddle"
    groups: int = 1  # that the logits tell apart, a number that divides the classes; 1: all zero, classes: the minimum
    l2_weight: float = 0.005  # lambda of W in the loss, by which the point is critical: ${loss.l2}
    l2_features: float = 0.005  # likewise of H
    beside: float = 0.0  # std of normal noise on every parameter, which the descent needs to leave a saddle

    @property
    def label(self) -> str:
        return f"saddle{self.groups}x{self.dim}"


class Saddle(Unconstrained):
    """The model of one layer, for the objective by which its start is critical."""

    def __init__(self, rows: int, num_classes: int, settings: SaddleSettings):
        super().__init__(rows, num_classes, settings)
        self.groups = settings.groups
        self.l2 = {"fc1.weight": ("l2_weight", settings.l2_weight), "free": ("l2_features", settings.l2_features)}

    def check(self, targets: Tensor, loss: str, penalties: dict[str, float]) -> None:
        """Raise ValueError where the start would be no critical point of the objective."""
        counts = torch.bincount(targets, minlength=self.num_classes)  # (C,)
        least, most = int(counts.min()), int(counts.max())
        if least != most:
            raise ValueError(f"model=saddle needs as many samples of every class, got {least} to {most}")
        # Where all is zero the gradient of the cross-entropy is zero for every label that sums to 1, smoothed ones too.
        losses = ("cross_entropy", "label_smoothing") if self.groups == 1 else ("cross_entropy",)
        if loss not in losses:
            raise ValueError(
                f"model=saddle starts at a critical point of cross-entropy: expected loss={' or '.join(losses)}, got "
                f"loss={loss}"
            )
        for name, (key, strength) in self.l2.items():
            if strength != (found := penalties.get(name, 0.0)):
                raise ValueError(
                    f"model=saddle starts at a critical point of the penalised loss: expected model.{key} {found:g}, "
                    f"the loss's penalty of {name}; got {strength:g}"
                )


@MODELS.add("saddle", SaddleSettings)
def build_saddle(settings: SaddleSettings, shape: Shape, num_classes: int) -> Unconstrained:
    """Free features below one layer, at a critical point of cross-entropy with penalties (`theory.critical_points`).

    Which classes are a group, and the directions, are drawn by the seed. The classes must be balanced.
    """
    s = settings
    if s.depth != 1 or s.tau is not None:
        raise ValueError(f"model=saddle has one layer without tau, got model.depth={s.depth} and model.tau={s.tau}")
    if s.beside < 0:
        raise OutOfRange(f"model.beside must be at least 0, got {s.beside:g}", "model.beside")
    model = build_unconstrained(s, shape, num_classes, Saddle)
    rows = len(model.free)
    if rows % num_classes:
        raise ValueError(f"model=saddle needs as many samples of every class: got {rows} of {num_classes} classes")
    random = np.random.default_rng(torch.initial_seed() % 2**63)
    try:
        w, h = grouped(num_classes, s.groups, rows // num_classes, s.dim, s.l2_weight, s.l2_features, random)
    except ValueError as error:
        raise ValueError(f"model=saddle: {error}") from None
    if model.free.is_meta:  # a check, without memory
        return model
    with torch.no_grad():
        for parameter, value in ((model.fc1.weight, w), (model.free, h), (model.fc1.bias, np.zeros(num_classes))):
            if parameter is not None:
                noise = s.beside * torch.randn(parameter.shape, dtype=parameter.dtype)
                parameter.copy_(torch.from_numpy(value)).add_(noise)
    return model
