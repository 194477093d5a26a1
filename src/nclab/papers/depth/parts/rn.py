"""model=rn: the post-norm residual networks L-RN1 and L-RN2 of arXiv 2505.15239 (Sukenik, Lampert, Mondelli 2025).

Known of the paper: width 64; a block adds the ReLU of one linear layer with bias (RN1) and LayerNorm follows the sum;
the head is one linear layer on the last LayerNorm's output. Not known, and here our choice: that of RN2's two layers a
block the inner one has the ReLU (`maps`), how an image enters (`embed_norm`), LayerNorm's own weights (`affine`).
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from nclab.interfaces.batch import Output
from nclab.interfaces.shapes import Shape, flat_size
from nclab.models.base import MODELS, MOST_LAYERS, MOST_UNITS, Classifier, ModelSettings, Probe, between


@dataclass
class RNSettings(ModelSettings):
    """affine: false, since the theory's features have mean 0 and one common norm, as LayerNorm without weights of its
    own makes them; with them the penalty would also shrink the norm's gain. embed_norm: true, so that the first block
    reads what every other reads. head_bias: true; without it MSE's optimum is an orthogonal frame, not a simplex."""

    name: str = "rn"
    blocks: int = 5  # L, the residual blocks
    width: int = 64  # units of every layer
    maps: int = 1  # linear layers of a block: 1 (RN1) | 2 (RN2)
    affine: bool = False  # whether LayerNorm learns a gain and a shift
    embed_norm: bool = True  # LayerNorm between the map that reads the pixels and the first block
    head_bias: bool = True  # whether the head has a bias

    @property
    def label(self) -> str:
        return f"rn{self.maps}_{self.blocks}x{self.width}"


class ResidualBlock(nn.Module):
    """x (B, d) -> LN(x + relu(W x + b)), or with two maps LN(x + W2 relu(W1 x + b1) + b2).

    Two maps as in a residual network before its ReLU is moved behind the sum: a ReLU on the outer map as well would let
    a block add nothing but positive numbers to features of mean 0.
    """

    def __init__(self, width: int, maps: int, affine: bool):
        super().__init__()
        self.maps = maps
        for i in range(1, maps + 1):
            setattr(self, f"map{i}", nn.Linear(width, width))
        self.norm = nn.LayerNorm(width, elementwise_affine=affine)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The block's output, what its maps made, and the ReLU of the first."""
        made = {"map1": self.map1(x)}
        added = made["act1"] = functional.relu(made["map1"])
        if self.maps == 2:
            added = made["map2"] = self.map2(added)
        return self.norm(x + added), made


class ResNet(Classifier):
    """x (B, ch, h, w) -> embed -> LN -> block1 -> ... -> blockL -> head = logits (B, C).

    Features: embed (what block 1 reads), for each block block1.map1, block1.act1 (its ReLU), of two maps block1.map2,
    and block1, the output after LayerNorm; each (B, width). The last block's output is the classifier's input.
    """

    def __init__(
        self,
        shape: Shape,
        num_classes: int,
        blocks: int = 5,
        width: int = 64,
        maps: int = 1,
        affine: bool = False,
        embed_norm: bool = True,
        head_bias: bool = True,
    ):
        super().__init__()
        between("blocks", blocks, 1, MOST_LAYERS)
        between("width", width, 2, MOST_UNITS)  # LayerNorm of one unit is 0
        between("maps", maps, 1, 2)
        self.num_classes = num_classes
        self.blocks, self.maps = blocks, maps
        self.embed = nn.Linear(flat_size(shape, "rn"), width)
        self.embed_norm = nn.LayerNorm(width, elementwise_affine=affine) if embed_norm else nn.Identity()
        for i in range(1, blocks + 1):
            setattr(self, f"block{i}", ResidualBlock(width, maps, affine))
        self.head = nn.Linear(width, num_classes, bias=head_bias)

    def forward(self, x: Tensor) -> Output:
        features = {"embed": self.embed_norm(self.embed(x.flatten(1)))}  # (B, d)
        x = features["embed"]
        for i in range(1, self.blocks + 1):
            x, made = getattr(self, f"block{i}")(x)
            features |= {f"block{i}.{name}": t for name, t in made.items()}
            features[f"block{i}"] = x  # (B, d)
        return Output(self.head(x), features)

    def etf_roles(self) -> dict[str, str]:
        maps = [f"block{i}.map{j}" for i in range(1, self.blocks + 1) for j in range(1, self.maps + 1)]
        return {**dict.fromkeys(maps, "hidden"), "head": "classifier"}

    def probes(self, kind: str) -> list[Probe]:
        points = [Probe("embed", "embed", "embedding")]
        for block in (f"block{i}" for i in range(1, self.blocks + 1)):
            sites = tuple(f"{block}.map{j}" for j in range(1, self.maps + 1))
            first = {"linear": "map1", "activation": "act1"}[kind]
            layers = (f"{block}.{first}", f"{block}.map2")  # nothing but the sum follows the second
            points += [Probe(layer, layer, "hidden", site) for layer, site in zip(layers, sites, strict=False)]
            points.append(Probe(block, block, "block", stage=sites))
        return [*points, Probe("head", "logits", "classifier", "head", ("head",))]

    def inputs(self) -> dict[str, str]:
        read = {}
        for i in range(1, self.blocks + 1):
            read[f"block{i}.map1"] = f"block{i - 1}" if i > 1 else "embed"
            if self.maps == 2:
                read[f"block{i}.map2"] = f"block{i}.act1"
        return {**read, "head": f"block{self.blocks}"}


@MODELS.add("rn", RNSettings)
def build_rn(settings: RNSettings, shape: Shape, num_classes: int) -> ResNet:
    """Residual network of a depth study (arXiv 2505.15239): pixels -> embed -> post-norm blocks -> head."""
    s = settings
    return ResNet(shape, num_classes, s.blocks, s.width, s.maps, s.affine, s.embed_norm, s.head_bias)
