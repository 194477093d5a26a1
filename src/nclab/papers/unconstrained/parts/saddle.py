"""model=saddle: one layer on free features that starts at a critical point of the objective, and not at random."""

from dataclasses import dataclass

import numpy as np
import torch

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
    model = build_unconstrained(s, shape, num_classes)
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
