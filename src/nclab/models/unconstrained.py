"""model=unconstrained: the unconstrained features model (UFM), free features below one or several weight matrices."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nclab.interfaces.batch import Output
from nclab.interfaces.shapes import CONTENTS, IndexShape, Shape
from nclab.interfaces.valid import OutOfRange, no_choice
from nclab.models.base import MODELS, MOST_LAYERS, MOST_UNITS, Classifier, ModelSettings, Probe, between

ACTIVATIONS = {"relu": torch.relu, "none": None}


@dataclass
class UnconstrainedSettings(ModelSettings):
    name: str = "unconstrained"
    dim: int = 64  # numbers of a free feature, and of every hidden layer
    depth: int = 1  # L, weight matrices, the classifier included; at least 1
    activation: str = "relu"  # behind every hidden layer, not behind features and output: relu | none
    tau: float | None = None  # the classifier reads tau h / |h| instead of h; null: h
    bias: bool = True  # of the classifier; hidden layers have none
    feature_std: float = 1.0  # std of the numbers of the initial features, drawn from a normal distribution
    weight_std: float | None = None  # likewise of every weight matrix; null: 1 / sqrt(dim), which keeps lengths

    @property
    def label(self) -> str:
        hidden = f"_{self.activation}" if self.depth > 1 else ""
        return f"ufm{self.depth}x{self.dim}{hidden}" + ("" if self.tau is None else f"_tau{self.tau:g}")


class Unconstrained(Classifier):
    """Row numbers x (B,) -> free = H[x] -> fc1 -> act1 -> ... -> fc(L-1) -> act(L-1) -> fcL = output (B, C).

    Z = W_L act(W_(L-1) ... act(W_1 H)) + b, H (N, d) one row a sample, W_1 .. W_(L-1) (d, d), W_L (C, d), b (C,).
    With tau the classifier reads `scaled` = tau h / |h| of what would be its input.

    Features: free, fc1, act1, ..., fc(L-1), act(L-1), each (B, d), without act1 .. act(L-1) where activation is none.

    Zhu et al. 2021 (arXiv 2105.02375) has L = 1, Sukenik et al. 2024 (2405.14468) L > 1 with ReLU, Garrod and Keating
    2024 (2410.23169) with both.
    """

    def __init__(self, rows: int, num_classes: int, settings: UnconstrainedSettings):
        super().__init__()
        s = settings
        between("depth", s.depth, 1, MOST_LAYERS)
        between("dim", s.dim, 1, MOST_UNITS)
        if s.activation not in ACTIVATIONS:
            raise no_choice("model.activation", s.activation, ACTIVATIONS)
        for key, may_be_null in (("tau", True), ("feature_std", False), ("weight_std", True)):
            value = getattr(s, key)
            if value is not None and not 0 < value < math.inf:
                null = ", or null" if may_be_null else ""
                raise OutOfRange(f"model.{key} must be above 0 and finite{null}; got {value:g}", f"model.{key}")
        self.num_classes = num_classes
        self.depth, self.tau = s.depth, s.tau
        self.activation = ACTIVATIONS[s.activation]
        # By init and not by a product: arithmetic on the meta device, where a run is first checked, imports torch's
        # compiler, which takes seconds.
        self.free = nn.Parameter(torch.empty(rows, s.dim))  # H
        nn.init.normal_(self.free, std=s.feature_std)
        std = s.dim**-0.5 if s.weight_std is None else s.weight_std
        for i in range(1, s.depth + 1):
            last = i == s.depth
            layer = nn.Linear(s.dim, num_classes if last else s.dim, bias=last and s.bias)
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            setattr(self, f"fc{i}", layer)

    def forward(self, x: Tensor) -> Output:
        h = functional.embedding(x, self.free)  # (B, d)
        features = {"free": h}
        for i in range(1, self.depth):
            features[f"fc{i}"] = h = getattr(self, f"fc{i}")(h)  # (B, d)
            if self.activation is not None:
                features[f"act{i}"] = h = self.activation(h)  # (B, d)
        if self.tau is not None:
            features["scaled"] = h = self.tau * functional.normalize(h, dim=1)  # (B, d)
        return Output(getattr(self, f"fc{self.depth}")(h), features)  # (B, C)

    def free_features(self) -> set[str]:
        """Name of the parameter that holds the features."""
        return {"free"}

    def etf_roles(self) -> dict[str, str]:
        hidden = {f"fc{i}": "hidden" for i in range(1, self.depth)}
        return {**hidden, f"fc{self.depth}": "classifier"}

    def probes(self, kind: str) -> list[Probe]:
        stem = "fc" if kind == "linear" or self.activation is None else "act"
        points = [Probe("free", "free", self._role("free"))]
        points += [Probe(f"{stem}{i}", f"{stem}{i}", "hidden", f"fc{i}", (f"fc{i}",)) for i in range(1, self.depth)]
        if (last := self.inputs()[self.classifier]) not in {point.layer for point in points}:
            points.append(Probe(last, last, "classifier_input"))
        return [*points, Probe(self.classifier, "logits", "classifier", self.classifier, (self.classifier,))]

    def _role(self, layer: str) -> str:
        return "classifier_input" if layer == self.inputs()[self.classifier] else "hidden"

    def inputs(self) -> dict[str, str]:
        stem = "fc" if self.activation is None else "act"
        read = {f"fc{i}": f"{stem}{i - 1}" if i > 1 else "free" for i in range(1, self.depth + 1)}
        return read if self.tau is None else {**read, f"fc{self.depth}": "scaled"}


@MODELS.add("unconstrained", UnconstrainedSettings)
def build_unconstrained(
    settings: UnconstrainedSettings, shape: Shape, num_classes: int, kind: type[Unconstrained] = Unconstrained
) -> Unconstrained:
    """Free features, one a row of the train split, below `depth` weight matrices."""
    if not isinstance(shape, IndexShape):
        raise ValueError(
            "model=unconstrained holds a feature for every row: expected a dataset of row numbers, such as "
            f"dataset=free_features; the dataset holds {CONTENTS.get(type(shape), 'images')}"
        )
    return kind(shape.count, num_classes, settings)
