"""Geometric complexity: how fast the features of a network change with its input; geometric collapse.

Munn, Dherin, Gonzalvo 2024 (arXiv 2405.15706). With plain `torch.autograd.grad`, one call an output or direction for
all samples: it works with every layer, and torch.func has no rules for some (the fixed layers without a matrix,
attention on a CPU). Samples must not act on each other: a model with batch norm is measured in evaluation mode.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from nclab.metrics.checks import FEATURE_DTYPES
from nclab.metrics.collapse import over_distances
from nclab.metrics.geometry import ClassMeans

Embedding = Callable[[Tensor], Tensor]  # inputs (B, ...) -> features (B, d)
DIRECTIONS = 16  # of an estimate, a sample


def sample_complexity(function: Embedding, inputs: Tensor) -> Tensor:
    """|df/dx|_F^2 of every sample, (B,) float64: the sum of squares of its Jacobian (d, d_in).

    Cost: one forward pass and d backward passes of the samples.

    Args:
        function: inputs (B, ...) -> features (B, d), each row of one sample alone.
        inputs: (B, ...), float32 or float64.

    Raises:
        ValueError: for inputs or features of another kind, and for features that do not depend on the inputs.

    >>> sample_complexity(lambda x: x**2, torch.tensor([[1.0, 0.0], [1.0, 2.0]])).tolist()
    [4.0, 20.0]
    """
    x, out = _embedded(function, inputs)
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for k in range(out.shape[1]):
        of_output = torch.zeros_like(out)
        of_output[:, k] = 1
        total += _squares(out, of_output, x)
    return total


def geometric_complexity(function: Embedding, inputs: Tensor) -> float:
    """GC = mean over samples of |df/dx|_F^2, exact. 0 where the features are constant near every sample.

    In units of features^2 / inputs^2. Arguments, cost and errors as `sample_complexity`.

    >>> geometric_complexity(torch.nn.Identity(), torch.zeros(3, 5))
    5.0
    """
    return float(sample_complexity(function, inputs).mean())


def directional_complexity(function: Embedding, inputs: Tensor, directions: int, generator: torch.Generator) -> Tensor:
    """(M, B) float64: d |d(v.f)/dx|^2 for M random unit directions v (d,) of the output, others for every sample.

    The mean over v is |df/dx|_F^2: E v v^T = I/d. Cost: one forward pass and M backward passes."""
    if directions < 2:
        raise ValueError(f"directions must be at least 2, got {directions}")
    x, out = _embedded(function, inputs)
    found = []
    for _ in range(directions):
        v = torch.randn(out.shape, generator=generator, dtype=torch.float64)
        v = (v / v.norm(dim=1, keepdim=True)).to(out)
        found.append(out.shape[1] * _squares(out, v, x))
    return torch.stack(found)


def geometric_complexity_estimate(
    function: Embedding, inputs: Tensor, directions: int = DIRECTIONS, seed: int = 0
) -> tuple[float, float]:
    """(GC, its standard error) by Hutchinson's method, for many features: the mean of `directional_complexity`.

    The error is that of the directions alone, the samples being what they are: sqrt(sum_i s_i^2 / M) / B, s_i^2 the
    variance over the M directions of sample i. Errors as `sample_complexity`, and for fewer than 2 directions.

    >>> geometric_complexity_estimate(torch.nn.Identity(), torch.zeros(3, 1))
    (1.0, 0.0)
    """
    return estimate_of(directional_complexity(function, inputs, directions, torch.Generator().manual_seed(seed)))


def estimate_of(drawn: Tensor) -> tuple[float, float]:
    """(GC, its standard error) of what `directional_complexity` drew, (M, B)."""
    many, samples = drawn.shape
    return float(drawn.mean()), float((drawn.var(0).sum() / many).sqrt() / samples)


def geometric_collapse(complexities: Tensor, m: ClassMeans) -> float:
    """Mean over pairs of classes of (GC_c + GC_c') / (2 ||mu_c - mu_c'||^2). 0 at collapse to features that are
    constant near every sample. In units of 1 / inputs^2: features at another scale have the same.

    It bounds `cdnv` from above up to a constant, where the inputs of every class satisfy a Poincare inequality.

    Args:
        complexities: GC of the samples of each class, (C,); nan for a class without a sample. The pairs are those of
            the other classes.
        m: class means of the same features.

    Returns: nan where two class means coincide, and for fewer than two classes with a sample.
    """
    # distances are those of scale * features
    return over_distances(m, complexities.double() * m.scale**2, ~complexities.isnan())


def _embedded(function: Embedding, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs that gradients are taken for, and their features."""
    if inputs.dtype not in FEATURE_DTYPES:
        raise ValueError(f"inputs must be float32 or float64, got {inputs.dtype}")
    if not len(inputs):
        raise ValueError("inputs must hold a sample at least, got none")
    x = inputs.detach().clone().requires_grad_()
    with torch.enable_grad():
        out = function(x)
    if out.ndim != 2 or len(out) != len(x):
        raise ValueError(f"function must give ({len(x)}, d) of {len(x)} samples, got {tuple(out.shape)}")
    if not out.requires_grad:
        raise ValueError("the features do not depend on the inputs in a way that autograd sees")
    return x, out


def _squares(out: Tensor, direction: Tensor, x: Tensor) -> Tensor:
    """|d(v.f)/dx|^2 of every sample, (B,) float64, along its direction v (B, d)."""
    (gradient,) = torch.autograd.grad(out, x, direction, retain_graph=True)
    return gradient.double().flatten(1).square().sum(1)
