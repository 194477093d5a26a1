"""The interface of every model: logits, named intermediate features, and the linear maps that may be fixed."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from nclab.registry import Registry

MODELS = Registry("model", "nclab.models")


@dataclass
class ModelSettings:
    """Keys common to all models: the name."""

    name: str = "mlp"

    @property
    def label(self) -> str:
        """Short form for run names."""
        return self.name


class Classifier(nn.Module, ABC):
    """A model that hands out its intermediates instead of being hooked.

    forward(x) -> (logits (B, C), features): features maps names to tensors (B, d), from input to output, each named
    like the layer that made it; the last is the classifier's input.

    A builder registered in `MODELS` is called as build(settings, shape (ch, h, w), num_classes).
    """

    num_classes: int

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """See the class."""

    @abstractmethod
    def etf_sites(self) -> dict[str, nn.Linear]:
        """The linear maps that a policy may fix, by submodule name, from input to output (fixed ones included)."""

    @abstractmethod
    def etf_roles(self) -> dict[str, str]:
        """Role of each site: hidden, ffn_in, ffn_out or classifier."""

    @abstractmethod
    def probes(self, kind: str) -> dict[str, str]:
        """Site -> name of the feature that is measured behind it, in network order.

        kind: `linear` (the map's own output) or `activation` (what follows normalisation and non-linearity). The
        name `logits` stands for the model's output.
        """

    @abstractmethod
    def inputs(self) -> dict[str, str]:
        """Site -> name of the feature that the map reads; `input` stands for the flattened model input."""
