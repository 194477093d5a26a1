"""model=vit: a small pre-norm vision transformer (Dosovitskiy et al. 2021), the body of ETF-Transformer in
arXiv 2412.00884. That paper publishes none of its ViT's settings; every default here is our choice."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nclab.interfaces.batch import Output
from nclab.interfaces.shapes import Shape, images_only
from nclab.interfaces.valid import no_choice
from nclab.models.attention import Attention, check_heads, check_patch, patches_of
from nclab.models.base import MODELS, MOST_LAYERS, MOST_UNITS, Classifier, ModelSettings, Probe, between

POOLS = ("cls", "mean")
FFN_NORMS = {"none": lambda width: nn.Identity(), "layer": nn.LayerNorm}


@dataclass
class ViTSettings(ModelSettings):
    name: str = "vit"
    patch: int = 4  # side of a square patch in pixels; must divide the image (8 x 8: 1, 2, 4, 8)
    width: int = 64  # of a token
    heads: int = 4  # of attention; must divide width
    blocks: int = 2  # blocks of attention and feed-forward part
    ratio: float = 4.0  # units of the feed-forward part a unit of width; 0: blocks without a feed-forward part
    ffn_norm: str = "none"  # between the first feed-forward layer and its GELU: none | layer (a learnable LayerNorm)
    pool: str = "cls"  # what is classified: cls (a class token) | mean (over the patches' tokens)

    @property
    def label(self) -> str:
        return f"vit{self.blocks}x{self.width}" + ("" if self.ratio else "_noffn")


class Block(nn.Module):
    """x <- x + attn(norm1(x)); x <- x + ffn_out(gelu(ffn_norm(ffn_in(norm2(x))))), the second only with hidden > 0."""

    def __init__(self, width: int, heads: int, hidden: int, ffn_norm: str):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.hidden = hidden
        if hidden:
            self.norm2 = nn.LayerNorm(width)
            self.ffn_in = nn.Linear(width, hidden)
            self.ffn_norm = FFN_NORMS[ffn_norm](hidden)
            self.ffn_out = nn.Linear(hidden, width)

    def forward(self, x: Tensor, tokens: int) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, T, d) -> the first `tokens` tokens (B, tokens, d) and every intermediate of theirs."""
        made = {"attn": self.attn(self.norm1(x), tokens)}
        x = x[:, :tokens] + made["attn"]
        if self.hidden:
            made["norm2"] = self.norm2(x)
            made["ffn_in"] = self.ffn_in(made["norm2"])  # (B, tokens, hidden)
            made["act"] = functional.gelu(self.ffn_norm(made["ffn_in"]))  # (B, tokens, hidden)
            made["ffn_out"] = self.ffn_out(made["act"])
            x = x + made["ffn_out"]
        return x, made


class ViT(Classifier):
    """x (B, ch, h, w) -> patches -> tokens (B, T, d) with learnt positions -> block1 ... blockL -> norm -> head (B, C).

    Features, all on the token that is classified (pool=mean: the mean over tokens): for each block block1.attn,
    block1.norm2, block1.ffn_in (B, ratio d), block1.act, block1.ffn_out and block1, the block's output after both
    residual sums; then norm, the classifier's input.

    With a class token nothing after the last block reads another token, so that block makes its outputs for that one
    alone: the same function and gradient, at a fraction of the work.
    """

    def __init__(
        self,
        shape: Shape,
        num_classes: int,
        patch: int = 4,
        width: int = 64,
        heads: int = 4,
        blocks: int = 2,
        ratio: float = 4.0,
        ffn_norm: str = "none",
        pool: str = "cls",
    ):
        super().__init__()
        for key, value in (("patch", patch), ("width", width), ("heads", heads)):
            between(key, value, 1, MOST_UNITS)
        between("blocks", blocks, 1, MOST_LAYERS)
        channels, *sides = images_only(shape, "vit")
        check_patch(patch, sides)
        check_heads(heads, width)
        if not (ratio == 0 or 1 <= ratio * width <= MOST_UNITS):
            end = f"at most {MOST_UNITS} units" if ratio * width > MOST_UNITS else "at least one unit"
            raise ValueError(f"model.ratio must be 0 (no feed-forward part) or give {end}, got {ratio}")
        for key, value, valid in (("ffn_norm", ffn_norm, FFN_NORMS), ("pool", pool, POOLS)):
            if value not in valid:
                raise no_choice(f"model.{key}", value, valid)
        self.num_classes = num_classes
        self.patch, self.pool, self.ratio = patch, pool, ratio
        self.blocks = blocks
        tokens = sides[0] // patch * (sides[1] // patch)
        self.embed = nn.Linear(channels * patch**2, width)
        self.cls = nn.Parameter(torch.empty(1, 1, width)) if pool == "cls" else None
        self.position = nn.Parameter(torch.empty(1, tokens, width))
        for i in range(1, blocks + 1):
            setattr(self, f"block{i}", Block(width, heads, round(ratio * width), ffn_norm))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)
        for parameter in (self.cls, self.position):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Output:
        x = self.embed(patches_of(x, self.patch)) + self.position  # (B, T, d)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        classified: Callable[[Tensor], Tensor] = (lambda t: t[:, 0]) if self.pool == "cls" else (lambda t: t.mean(1))
        features = {}
        for i in range(1, self.blocks + 1):
            tokens = 1 if self.pool == "cls" and i == self.blocks else x.shape[1]
            x, made = getattr(self, f"block{i}")(x, tokens)
            features |= {f"block{i}.{name}": classified(t) for name, t in made.items()}
            features[f"block{i}"] = classified(x)  # (B, d)
        features["norm"] = classified(self.norm(x))
        return Output(self.head(features["norm"]), features)

    def etf_roles(self) -> dict[str, str]:
        maps = [f"block{i}.{role}" for i in range(1, self.blocks + 1) for role in ("ffn_in", "ffn_out") if self.ratio]
        return {**{site: site.partition(".")[2] for site in maps}, "head": "classifier"}

    def probes(self, kind: str) -> list[Probe]:
        first = {"linear": "ffn_in", "activation": "act"}[kind]
        points = []
        for block in (f"block{i}" for i in range(1, self.blocks + 1)):
            points.append(Probe(f"{block}.attn", f"{block}.attn", "attention"))
            stage = (f"{block}.ffn_in", f"{block}.ffn_out") if self.ratio else ()
            for layer, site in zip((f"{block}.{first}", f"{block}.ffn_out"), stage, strict=bool(stage)):
                points.append(Probe(layer, layer, self.etf_roles()[site], site))
            points.append(Probe(block, block, "block", stage=stage))
        points.append(Probe("norm", "norm", "classifier_input"))
        return [*points, Probe("head", "logits", "classifier", "head", ("head",))]

    def inputs(self) -> dict[str, str]:
        read = {"ffn_in": "norm2", "ffn_out": "act"}
        maps = {
            site: f"{site.partition('.')[0]}.{read[role]}" for site, role in self.etf_roles().items() if role in read
        }
        return {**maps, "head": "norm"}


@MODELS.add("vit", ViTSettings)
def build_vit(settings: ViTSettings, shape: Shape, num_classes: int) -> ViT:
    s = settings
    return ViT(shape, num_classes, s.patch, s.width, s.heads, s.blocks, s.ratio, s.ffn_norm, s.pool)
