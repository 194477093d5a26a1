"""A block of ours as torch's own encoder layer, with the same weights."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def as_torch_block(
    block: nn.Module, width: int, heads: int, activation: Callable[[Tensor], Tensor], norm_first: bool = True
) -> nn.TransformerEncoderLayer:
    """Of a block with norm1, attn (q, kv, out), norm2, ffn_in and ffn_out, in double precision."""
    hidden = block.ffn_in.out_features
    other = nn.TransformerEncoderLayer(width, heads, hidden, 0.0, activation, batch_first=True, norm_first=norm_first)
    other.norm1, other.norm2, other.linear1, other.linear2 = block.norm1, block.norm2, block.ffn_in, block.ffn_out
    attn = block.attn
    with torch.no_grad():
        other.self_attn.in_proj_weight.copy_(torch.cat([attn.q.weight, attn.kv.weight]))
        other.self_attn.in_proj_bias.copy_(torch.cat([attn.q.bias, attn.kv.bias]))
    other.self_attn.out_proj = attn.out
    return other.double()
