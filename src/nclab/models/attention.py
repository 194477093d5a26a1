"""Self-attention on torch's scaled_dot_product_attention."""

from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Multi-head self-attention; without `project` the heads' outputs are not mapped once more.

    forward(x (B, T, d), queries, mask): output (B, queries, d) of the first `queries` tokens, which attend to all T or
    to those where mask (B, T) is true.
    """

    def __init__(self, width: int, heads: int, project: bool = True):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width) if project else nn.Identity()

    def forward(self, x: Tensor, queries: int, mask: Tensor | None = None) -> Tensor:
        q = self._split(self.q(x[:, :queries]))  # (B, heads, queries, d / heads)
        k, v = map(self._split, self.kv(x).chunk(2, dim=-1))  # (B, heads, T, d / heads)
        attended = None if mask is None else mask[:, None, None]
        return self.out(functional.scaled_dot_product_attention(q, k, v, attended).transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def patches_of(images: Tensor, patch: int) -> Tensor:
    """Images (B, ch, h, w) as their square patches, row by row: (B, h w / patch^2, ch patch^2)."""
    squares = images.unfold(2, patch, patch).unfold(3, patch, patch)
    return squares.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


def check_patch(patch: int, sides: tuple[int, int]) -> None:
    """Raise ValueError unless the patch divides both sides of the image."""
    if any(side % patch for side in sides):
        valid = ", ".join(str(p) for p in range(1, min(sides) + 1) if not any(side % p for side in sides))
        raise ValueError(f"model.patch must divide the image of {sides[0]} x {sides[1]}: {valid}; got {patch}")


def check_heads(heads: int, width: int) -> None:
    """Raise ValueError unless the heads share the width out evenly."""
    if width % heads:
        raise ValueError(f"model.heads must divide model.width, got {heads} heads and width {width}")
