"""A classifier without parameters: at every training step the simplex ETF nearest to the running class means."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional

from nclab.etf.frame import haar
from nclab.etf.layer import DenseFixedLinear
from nclab.etf.nearest import nearest_head, require_head
from nclab.etf.recipe import ROWS, Recipe

LEAST_RATE = 1e-4  # of the running means


def alone(sums: Tensor) -> Tensor:
    """The sums of a single process: themselves."""
    return sums


class NearestETFHead(DenseFixedLinear):
    """A linear classifier set from the class means of its input (arXiv 2411.01248, Markou et al. 2024).

    `head(x)` gives the logits x W^T + b of the present head. `head(x, labels)`, for training, first sets the head:

        mean_c <- mean_c + alpha_c (batch mean_c - mean_c),   alpha_c = max(2 / (count_c + 2), 1e-4)

    with count_c the batches before this one that held class c (the first sets the mean), and then W, b by
    `nclab.etf.nearest_head`. A class missing from the batch keeps its mean; one never seen counts as the mean of the
    others. The class sums are taken in float64, the head keeps its own dtype under autocast.

    Args:
        in_features, num_classes: d and K; d >= K.
        delta: weight of the proximal term.
        gradient: let the loss's gradient flow through W, b and the present batch's share of the means into x too;
            False: W and b are constants of the step. The paper finds no difference.
        seed: of the first frame, drawn by Haar measure. None: torch's global generator gives one.
        device, dtype: of the buffers.
        bias: b = -W mu as above; False: the head has none, as a control beside classifiers without one.

    All state are buffers: weight (K, d), bias (K,) or none, means (K, d), counts (K,) int64, frame U_prox (d, K); there
    is no Parameter. Raises ValueError for d < K, fewer than 2 classes, and delta not above 0.

    >>> head = NearestETFHead(16, 4, seed=0)
    >>> x, labels = torch.randn(20, 16, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 4
    >>> head(x, labels).shape, head.counts
    (torch.Size([20, 4]), tensor([1, 1, 1, 1]))
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        delta: float = 1e-3,
        gradient: bool = True,
        seed: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        bias: bool = True,
    ):
        require_head(num_classes, in_features, delta)
        recipe = Recipe(frame="nearest", rank=ROWS, scale=1.0, seed=seed, bias=bias)
        if seed is None:
            seed = int(torch.randint(2**32, ()))
        like = torch.empty(0, device=device, dtype=dtype)
        frame = haar(in_features, num_classes, Generator().manual_seed(seed))
        weight, b, frame = nearest_head(torch.zeros(num_classes, in_features, dtype=torch.float64), frame, delta)
        super().__init__(weight.to(like), b.to(like) if bias else None, recipe)
        self.delta, self.gradient = delta, gradient
        self.register_buffer("means", like.new_zeros(num_classes, in_features))
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.int64, device=like.device))
        self.register_buffer("frame", frame.to(like))

    def extra_repr(self) -> str:
        text = f"{self.in_features}, {self.out_features}, delta={self.delta:g}, gradient={self.gradient}"
        return f"{text}, bias={self.bias is not None}"

    def forward(self, x: Tensor, labels: Tensor | None = None, total: Callable[[Tensor], Tensor] = alone) -> Tensor:
        """Logits (..., K). x (..., d); with labels (B,) of class numbers, x (B, d), the head is set first. `total` sums
        a tensor over the processes that share the batch, and passes gradients on likewise."""
        if labels is None:
            return super().forward(x)
        if x.ndim != 2 or x.shape[1] != self.in_features:
            raise ValueError(f"expected features (B, {self.in_features}) with labels, got {tuple(x.shape)}")
        if labels.shape != x.shape[:1]:
            raise ValueError(f"expected labels ({len(x)},) of class numbers, got {tuple(labels.shape)}")
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.weight.dtype)
            weight, bias = self._follow(x if self.gradient else x.detach(), labels, total)
            return functional.linear(x, weight, bias)

    def _follow(self, x: Tensor, labels: Tensor, total: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor | None]:
        """Set the head from a batch x (B, d); returns W (K, d) and b (K,) or None with their graph."""
        member = functional.one_hot(labels.long(), self.out_features).double()  # (B, K)
        # By a product and not index_add_, which adds in any order on a GPU.
        sums = total(member.T @ torch.cat([x.double(), x.new_ones(len(x), 1).double()], 1))  # (K, d + 1)
        number = sums[:, -1:].detach()
        counts, means = self.counts[:, None], self.means.double()
        present = number > 0
        rate = (2 / (counts + 2)).clamp(min=LEAST_RATE).double()  # (K, 1)
        means = torch.where(present, means + rate * (sums[:, :-1] / number.clamp(min=1) - means), means)
        seen = present | (counts > 0)
        of_seen = torch.where(seen, means, 0.0).sum(0) / seen.sum().clamp(min=1)  # (d,)
        means = means.to(self.means)
        weight, bias, frame = nearest_head(torch.where(seen, means, of_seen.to(means)), self.frame, self.delta)
        with torch.no_grad():
            self.weight.copy_(weight)
            if self.bias is not None:
                self.bias.copy_(bias)
            self.means.copy_(means)
            self.frame.copy_(frame)
            self.counts += present[:, 0]
        return weight, None if self.bias is None else bias

    def _take(self, weight: Tensor) -> str | None:
        refused = super()._take(weight)
        self.scale, self.loaded = 1.0, False  # the frame, which makes the next weight, comes along
        return refused

    def settings(self) -> dict[str, Any]:
        """The arguments that a checkpoint holds besides the buffers."""
        bias = self.bias is not None
        return {"delta": self.delta, "gradient": self.gradient, "seed": self.recipe.seed, "bias": bias}
