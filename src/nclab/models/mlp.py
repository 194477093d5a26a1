"""model=mlp: the multilayer perceptron of arXiv 2412.00884."""

from dataclasses import dataclass

from torch import Tensor, nn

from nclab.interfaces.batch import Output
from nclab.interfaces.shapes import Shape, flat_size
from nclab.interfaces.valid import no_choice
from nclab.models.base import MODELS, MOST_LAYERS, MOST_UNITS, Classifier, ModelSettings, Probe, between, norm_of_head

NORMS = {"batch": nn.BatchNorm1d, "none": nn.Identity}
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "leaky_relu": nn.LeakyReLU}


@dataclass
class MLPSettings(ModelSettings):
    name: str = "mlp"
    depth: int = 5  # linear layers, the classifier included; at least 2
    width: int = 400  # units of every hidden layer
    norm: str = "batch"  # between a hidden layer and its activation: batch | none
    activation: str = "relu"  # relu | gelu | tanh | leaky_relu
    head_norm: str = "none"  # of the classifier's input, behind the last activation: none | batch

    @property
    def label(self) -> str:
        return f"mlp{self.depth}x{self.width}" + ("" if self.head_norm == "none" else f"_{self.head_norm}_head")


class MLP(Classifier):
    """x (B, ch, h, w) -> fc1 -> norm -> activation (= act1) -> fc2 -> ... -> act(L-1) -> fcL = logits (B, C).

    Features: fc1, act1, ..., fc(L-1), act(L-1), each (B, width). With head_norm `normed` comes behind them, batch norm
    of act(L-1), and is the classifier's input: a feature of both signs, which a fixed classifier can be read from.
    """

    def __init__(
        self,
        d_in: int,
        num_classes: int,
        depth: int,
        width: int,
        norm: str = "batch",
        activation: str = "relu",
        head_norm: str = "none",
    ):
        super().__init__()
        between("depth", depth, 2, MOST_LAYERS)
        between("width", width, 1, MOST_UNITS)
        for key, value, valid in (("norm", norm, NORMS), ("activation", activation, ACTIVATIONS)):
            if value not in valid:
                raise no_choice(f"model.{key}", value, valid)
        self.num_classes = num_classes
        self.depth = depth
        sizes = [d_in] + [width] * (depth - 1) + [num_classes]
        for i in range(1, depth + 1):
            setattr(self, f"fc{i}", nn.Linear(sizes[i - 1], sizes[i]))
            if i < depth:
                setattr(self, f"norm{i}", NORMS[norm](width))
        self.activation = ACTIVATIONS[activation]()
        self.head_norm = norm_of_head(head_norm, width)

    def forward(self, x: Tensor) -> Output:
        h = x.flatten(1)  # (B, d_in)
        features = {}
        for i in range(1, self.depth):
            features[f"fc{i}"] = h = getattr(self, f"fc{i}")(h)  # (B, width)
            features[f"act{i}"] = h = self.activation(getattr(self, f"norm{i}")(h))  # (B, width)
        if self.head_norm is not None:
            features["normed"] = h = self.head_norm(h)  # (B, width)
        return Output(getattr(self, f"fc{self.depth}")(h), features)  # (B, C)

    def etf_roles(self) -> dict[str, str]:
        hidden = {f"fc{i}": "hidden" for i in range(1, self.depth)}
        return {**hidden, f"fc{self.depth}": "classifier"}

    def probes(self, kind: str) -> list[Probe]:
        stem = {"linear": "fc", "activation": "act"}[kind]
        points = [Probe(f"{stem}{i}", f"{stem}{i}", "hidden", f"fc{i}", (f"fc{i}",)) for i in range(1, self.depth)]
        if (last := self.inputs()[self.classifier]) not in {point.layer for point in points}:
            points.append(Probe(last, last, "classifier_input"))
        return [*points, Probe(f"fc{self.depth}", "logits", "classifier", f"fc{self.depth}", (f"fc{self.depth}",))]

    def inputs(self) -> dict[str, str]:
        read = {f"fc{i}": f"act{i - 1}" if i > 1 else "input" for i in range(1, self.depth + 1)}
        return read if self.head_norm is None else {**read, f"fc{self.depth}": "normed"}


@MODELS.add("mlp", MLPSettings)
def build_mlp(settings: MLPSettings, shape: Shape, num_classes: int) -> MLP:
    s = settings
    return MLP(flat_size(shape, "mlp"), num_classes, s.depth, s.width, s.norm, s.activation, s.head_norm)
