"""The interface of every model: logits, named intermediate features, and the linear layers that may be fixed."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from nclab.interfaces.batch import Output
from nclab.interfaces.registry import Registry
from nclab.interfaces.valid import OutOfRange, no_choice

MODELS = Registry("model", "nclab.models")
HEAD_NORMS = ("none", "batch")  # of the feature that the classifier reads
PROBES = ("linear", "activation")  # what is measured behind a hidden layer: its own output, or what follows


MOST_LAYERS = 1000
MOST_UNITS = 2**20


def between(key: str, value: int, least: int, most: int) -> None:
    """Raise OutOfRange unless least <= value <= most."""
    if not least <= value <= most:
        bound = f"least {least}" if value < least else f"most {most}"
        raise OutOfRange(f"model.{key} must be at {bound}, got {value}", f"model.{key}")


def norm_of_head(kind: str, dim: int) -> nn.BatchNorm1d | None:
    """What model.head_norm puts before a classifier of `dim` inputs: batch norm, or None. Raises ValueError."""
    if kind not in HEAD_NORMS:
        raise no_choice("model.head_norm", kind, HEAD_NORMS)
    return nn.BatchNorm1d(dim) if kind == "batch" else None


@dataclass
class ModelSettings:
    """Keys common to all models: the name."""

    name: str = "mlp"

    @property
    def label(self) -> str:
        """Short form for run names."""
        return self.name


@dataclass(frozen=True)
class Probe:
    """A point of the network at which collapse is measured.

    layer: its name in the logs. feature: the tensor of `Classifier.forward` that is measured; `logits` stands for the
    model's output. role: hidden, ffn_in, ffn_out, attention, block, classifier_input or classifier. site: the path of
    the linear layer whose output it is, if it is one's. stage: where a step of the network's depth ends, the linear
    layers of that step that a policy may fix (none of them in a block without one); None elsewhere. Effective depth
    counts stages.
    """

    layer: str
    feature: str
    role: str
    site: str | None = None
    stage: tuple[str, ...] | None = None

    def record(self) -> dict[str, Any]:
        """JSON-ready, without what only the model can use."""
        return {key: value for key, value in asdict(self).items() if key != "feature"}


def layer_of(probes: list[Probe], site: str) -> str:
    """Name in the logs of what is measured behind the layer at `site`."""
    return next(probe.layer for probe in probes if probe.site == site)


class Classifier(nn.Module, ABC):
    """A model that hands out its intermediates instead of being hooked.

    forward(x) -> Output(prediction (B, C), features), x what the dataset's `inputs` gives, such as images (B, ch, h, w)
    or tokens (B, T): features maps names to tensors (B, d), from input to output, each named like the layer that made
    it; the last is the classifier's input.

    A builder registered in `MODELS` is called as build(settings, shape, num_classes), shape of `nclab.interfaces`.
    """

    num_classes: int  # C, numbers that the model predicts for a sample

    @abstractmethod
    def forward(self, x: Tensor) -> Output:
        """See the class."""

    @abstractmethod
    def etf_roles(self) -> dict[str, str]:
        """Role of each linear layer that a policy may fix, by submodule name, from input to output: hidden, ffn_in,
        ffn_out, and `classifier` for the last."""

    @abstractmethod
    def probes(self, kind: str) -> list[Probe]:
        """Where to measure, in network order; `kind` is one of PROBES. The classifier's input is among them, and the
        last are the logits."""

    @abstractmethod
    def inputs(self) -> dict[str, str]:
        """Site -> name of the feature that the layer reads, for the layers whose input is among the features; `input`
        stands for the flattened model input."""

    def free_features(self) -> set[str]:
        """Names of the parameters that are features themselves, not weights: `loss.l2_features` is their penalty."""
        return set()

    def check(self, targets: Tensor, loss: str, penalties: dict[str, float]) -> None:
        """Raise ValueError where the model, made for one objective, would be trained by another: `targets` of the train
        split, the name of the loss, and the lambda of each penalised parameter. Most models fit any."""

    @property
    def classifier(self) -> str:
        """The path of the layer that makes the logits."""
        return next(site for site, role in self.etf_roles().items() if role == "classifier")

    def etf_sites(self) -> dict[str, nn.Linear]:
        """The layers of `etf_roles` (fixed ones included)."""
        return {site: self.get_submodule(site) for site in self.etf_roles()}
