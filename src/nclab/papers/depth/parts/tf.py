"""model=tf: the transformers L-T11, L-T12 and L-T22 of arXiv 2505.15239 (Sukenik, Lampert, Mondelli 2025), on images
and texts.

Known of the paper: width 64; attention and MLP of one or two linear layers (the two digits of the name); post-norm on
images, pre-norm in the experiment on IMDB; a linear head on a normalised output. Not known, and here our choice: which
maps attention's digit counts, heads, positions, what is classified, width of the MLP, patches (see `TFSettings`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nclab.interfaces.batch import Output
from nclab.interfaces.shapes import PAD, Shape, TokenShape, images_only
from nclab.interfaces.valid import no_choice
from nclab.models.attention import Attention, check_heads, check_patch, patches_of
from nclab.models.base import MODELS, MOST_LAYERS, MOST_UNITS, Classifier, ModelSettings, Probe, between

NORMS, POOLS = ("post", "pre"), ("cls", "mean")
EMBEDDING_STD = 0.02  # of words, as of positions: from torch's 1.0 a word's place would hardly count at first, and the
# rows of words, used or not, would be nearly all of a penalty on the parameters


@dataclass
class TFSettings(ModelSettings):
    """attention_maps counts the maps that a token's content passes through (values, and output); queries and keys only
    weigh. heads: 1, as the theory has it. affine: false, as in model=rn. pool: the class token, since its features keep
    the norm that LayerNorm gives them, on which the theory stands; a mean over tokens does not."""

    name: str = "tf"
    blocks: int = 5  # L, the blocks of attention and MLP
    width: int = 64  # of a token, and of the MLP's hidden units
    heads: int = 1  # of attention; must divide width
    attention_maps: int = 1  # linear layers of attention: 1 (values) | 2 (values and output)
    mlp_maps: int = 1  # linear layers of the MLP: 1 | 2
    norm: str = "post"  # LayerNorm after each sum (post) | before attention, MLP and head (pre; on texts in the paper)
    affine: bool = False  # whether LayerNorm learns a gain and a shift
    head_bias: bool = True  # whether the head has a bias
    patch: int = 4  # side of a square patch of an image in pixels; must divide it; texts have none
    pool: str = "cls"  # what is classified: cls (a class token) | mean (over the tokens that are no padding)

    @property
    def label(self) -> str:
        return f"t{self.attention_maps}{self.mlp_maps}_{self.blocks}x{self.width}"


class TransformerBlock(nn.Module):
    """post: x <- LN(x + attn(x)), x <- LN(x + mlp(x)); pre: x <- x + attn(LN(x)), x <- x + mlp(LN(x)).

    mlp(x) = relu(W x + b) with one map, W2 relu(W1 x + b1) + b2 with two: as in model=rn.
    """

    def __init__(self, s: TFSettings):
        super().__init__()
        self.pre = s.norm == "pre"
        self.attn = Attention(s.width, s.heads, project=s.attention_maps == 2)
        self.norm1 = nn.LayerNorm(s.width, elementwise_affine=s.affine)
        self.norm2 = nn.LayerNorm(s.width, elementwise_affine=s.affine)
        self.two = s.mlp_maps == 2
        self.ffn_in = nn.Linear(s.width, s.width)
        if self.two:
            self.ffn_out = nn.Linear(s.width, s.width)

    def forward(self, x: Tensor, queries: int, mask: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, T, d) -> the first `queries` tokens (B, queries, d), and what the MLP's maps made of them."""
        x = x[:, :queries] + self.attn(self.norm1(x) if self.pre else x, queries, mask)
        x = x if self.pre else self.norm1(x)
        made = {"ffn_in": self.ffn_in(self.norm2(x) if self.pre else x)}
        added = made["act"] = functional.relu(made["ffn_in"])
        if self.two:
            added = made["ffn_out"] = self.ffn_out(added)
        return (x + added if self.pre else self.norm2(x + added)), made


class Transformer(Classifier):
    """Images (B, ch, h, w) as patches, or tokens (B, T), with learnt positions -> block1 ... blockL (-> norm, of
    pre-norm) -> head = logits (B, C). Padding is never attended to.

    Features, all of what is classified: for each block block1.ffn_in, block1.act (its ReLU), of two maps
    block1.ffn_out, and block1, the block's output; of pre-norm then norm; each (B, width). The last is the classifier's
    input.

    With a class token nothing after the last block reads another one: that block makes its output for it alone.
    """

    def __init__(self, settings: TFSettings, shape: Shape, num_classes: int):
        super().__init__()
        s = settings
        for key, value in (("heads", s.heads), ("patch", s.patch)):
            between(key, value, 1, MOST_UNITS)
        between("width", s.width, 2, MOST_UNITS)  # LayerNorm of one unit is 0
        between("blocks", s.blocks, 1, MOST_LAYERS)
        for key, value in (("attention_maps", s.attention_maps), ("mlp_maps", s.mlp_maps)):
            between(key, value, 1, 2)
        for key, value, valid in (("norm", s.norm, NORMS), ("pool", s.pool, POOLS)):
            if value not in valid:
                raise no_choice(f"model.{key}", value, valid)
        check_heads(s.heads, s.width)
        self.num_classes = num_classes
        self.blocks, self.patch, self.pool = s.blocks, s.patch, s.pool
        self.pre, self.two = s.norm == "pre", s.mlp_maps == 2
        self.text = isinstance(shape, TokenShape)
        if self.text:
            if s.patch != TFSettings.patch:
                raise ValueError(
                    f"model.patch cuts images, and the dataset holds texts; leave out model.patch={s.patch}"
                )
            tokens = shape.length
            self.embed: nn.Module = nn.Embedding(shape.vocabulary, s.width, padding_idx=PAD)
            with torch.no_grad():
                self.embed.weight *= EMBEDDING_STD
        else:
            channels, *sides = images_only(shape, "tf")
            check_patch(s.patch, sides)
            tokens = sides[0] // s.patch * (sides[1] // s.patch)
            self.embed = nn.Linear(channels * s.patch**2, s.width)
        self.cls = nn.Parameter(torch.empty(1, 1, s.width)) if s.pool == "cls" else None
        self.position = nn.Parameter(torch.empty(1, tokens, s.width))
        for parameter in (self.cls, self.position):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=EMBEDDING_STD)
        for i in range(1, s.blocks + 1):
            setattr(self, f"block{i}", TransformerBlock(s))
        self.norm = nn.LayerNorm(s.width, elementwise_affine=s.affine) if self.pre else nn.Identity()
        self.head = nn.Linear(s.width, num_classes, bias=s.head_bias)

    def forward(self, x: Tensor) -> Output:
        mask = (x != PAD) if self.text else None  # (B, T)
        x = self.embed(x if self.text else patches_of(x, self.patch)) + self.position  # (B, T, d)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
            mask = None if mask is None else functional.pad(mask, (1, 0), value=True)
        features = {}
        for i in range(1, self.blocks + 1):
            queries = 1 if self.pool == "cls" and i == self.blocks else x.shape[1]
            x, made = getattr(self, f"block{i}")(x, queries, mask)
            features |= {f"block{i}.{name}": self._classified(t, mask) for name, t in made.items()}
            features[f"block{i}"] = self._classified(x, mask)
        if self.pre:
            features["norm"] = self._classified(self.norm(x), mask)
        return Output(self.head(features[self._last]), features)

    def _classified(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, d) -> (B, d): the class token, or the mean over all tokens but padding."""
        if self.pool == "cls":
            return x[:, 0]
        if mask is None:
            return x.mean(1)
        weight = mask[:, :, None].to(x.dtype)
        return (x * weight).sum(1) / weight.sum(1)

    @property
    def _last(self) -> str:
        return "norm" if self.pre else f"block{self.blocks}"

    def etf_roles(self) -> dict[str, str]:
        # A single layer adds to the stream by itself, through a ReLU: it is hidden, not one of a feed-forward pair.
        roles = {"ffn_in": "ffn_in", "ffn_out": "ffn_out"} if self.two else {"ffn_in": "hidden"}
        maps = {f"block{i}.{name}": role for i in range(1, self.blocks + 1) for name, role in roles.items()}
        return {**maps, "head": "classifier"}

    def probes(self, kind: str) -> list[Probe]:
        roles, points = self.etf_roles(), []
        for block in (f"block{i}" for i in range(1, self.blocks + 1)):
            sites = tuple(site for site in roles if site.startswith(f"{block}."))
            first = {"linear": "ffn_in", "activation": "act"}[kind]
            layers = (f"{block}.{first}", f"{block}.ffn_out")  # nothing but the sum follows the second
            points += [Probe(layer, layer, roles[site], site) for layer, site in zip(layers, sites, strict=False)]
            points.append(Probe(block, block, "block", stage=sites))
        points += [Probe("norm", "norm", "classifier_input")] if self.pre else []
        return [*points, Probe("head", "logits", "classifier", "head", ("head",))]

    def inputs(self) -> dict[str, str]:
        # What the first map reads is not handed out: of post-norm it lies between two sums.
        second = {f"block{i}.ffn_out": f"block{i}.act" for i in range(1, self.blocks + 1) if self.two}
        return {**second, "head": self._last}


@MODELS.add("tf", TFSettings)
def build_tf(settings: TFSettings, shape: Shape, num_classes: int) -> Transformer:
    """Transformer of a depth study (arXiv 2505.15239), of images and texts: L-T11 by default, where attention_maps and
    mlp_maps are the two digits."""
    return Transformer(settings, shape, num_classes)
