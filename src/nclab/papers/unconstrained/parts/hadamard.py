"""model=hadamard: two linear layers, free features and classifier, that start diagonal in a Hadamard basis."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nclab.etf.frame import haar
from nclab.interfaces.shapes import CONTENTS, IndexShape, Shape
from nclab.interfaces.valid import OutOfRange, no_choice
from nclab.models.base import MODELS, ModelSettings
from nclab.models.unconstrained import Unconstrained, UnconstrainedSettings
from nclab.theory.hadamard import hadamard

DIRECTIONS = ("hadamard", "aligned", "random")


@dataclass
class HadamardSettings(ModelSettings):
    """The directions differ and the singular values do not: with one seed they are the same for all three."""

    name: str = "hadamard"
    # of the singular vectors: hadamard | aligned (one random frame, left and right) | random (two of them)
    directions: str = "hadamard"
    scale: float = 0.1  # median of the singular values s_i at the start
    spread: float = 0.5  # std of log s_i
    face: int = 0  # how many of s_1, s_2 ... start on a face s_i = 0, or beside it
    beside: float = 0.0  # those s_i at the start; 0: on the face

    def __post_init__(self) -> None:
        if self.directions not in DIRECTIONS:
            raise no_choice("model.directions", self.directions, DIRECTIONS)
        for key, strict in (("scale", True), ("spread", False), ("face", False), ("beside", False)):
            value = getattr(self, key)
            if not (value > 0 if strict else value >= 0) or value == math.inf:
                least = "above 0" if strict else "at least 0"
                raise OutOfRange(f"model.{key} must be {least} and finite, got {value:g}", f"model.{key}")
        if self.beside and not self.face:
            raise ValueError(f"model.beside is the start of the s_i that model.face counts: got {self.beside:g} and 0")

    @property
    def label(self) -> str:
        return f"hadamard_{self.directions}" + (f"_face{self.face}_{self.beside:g}" if self.face else "")


def frames(directions: str, classes: int) -> tuple[Tensor, Tensor]:
    """Orthogonal L and R (K, K), float64, random ones drawn from torch's own generator."""
    if directions == "hadamard":
        phi = torch.as_tensor(hadamard(classes)) / classes**0.5
        return phi, phi
    left = haar(classes, classes, None)
    return left, left if directions == "aligned" else haar(classes, classes, None)


class Hadamard(Unconstrained):
    """Logits Z = W H of free features H (K, K), one a class, without bias (Garrod et al. 2025, arXiv 2512.04006).

    W = L diag(s)^(1/2), H = diag(s)^(1/2) R^T with orthogonal L, R: balanced, and with the same s whatever the
    directions. L = R = Phi / sqrt(K) is the Hadamard initialisation, under which L and R stay the singular vectors.
    """

    def __init__(self, num_classes: int, settings: HadamardSettings):
        if settings.face > num_classes - 2:
            raise OutOfRange(
                f"model.face must be at most {num_classes - 2}, all of s_1, s_2 ... but one; got {settings.face}",
                "model.face",
            )
        # Also where a check builds without memory: products of such tensors import torch's compiler, which takes 4 s.
        with torch.device("cpu"):
            super().__init__(num_classes, num_classes, UnconstrainedSettings(dim=num_classes, bias=False))
            s = settings.scale * torch.exp(settings.spread * torch.randn(num_classes, dtype=torch.float64))
            s[1 : settings.face + 1] = settings.beside
            left, right = frames(settings.directions, num_classes)
            self.register_buffer("left", left.clone())  # L (K, K)
            self.register_buffer("right", right.clone())  # R (K, K)
            self.fc1.weight = nn.Parameter(left * s.sqrt())  # W (K, K)
            self.free = nn.Parameter(right * s.sqrt())  # H^T (K, K), one row a class

    def product(self) -> Tensor:
        """Z (K, K), column k the logits of class k."""
        return self.fc1.weight @ self.free.T


@MODELS.add("hadamard", HadamardSettings)
def build_hadamard(settings: HadamardSettings, shape: Shape, num_classes: int) -> Hadamard:
    """Two linear layers on one free feature a class, in float64 until the run casts them."""
    if not isinstance(shape, IndexShape) or shape.count != num_classes:
        rows = shape.count if isinstance(shape, IndexShape) else CONTENTS.get(type(shape), "images")
        raise ValueError(
            "model=hadamard holds one feature a class: expected dataset=free_features dataset.per_class=1; got "
            f"{num_classes} classes and {rows}{' rows' if isinstance(shape, IndexShape) else ''}"
        )
    if num_classes < 2 or num_classes & (num_classes - 1):
        raise ValueError(f"model=hadamard: expected dataset.classes to be a power of two, got {num_classes}")
    return Hadamard(num_classes, settings)
