"""loss.complexity: the geometric complexity of the classifier's input as a term of the objective.

The causal test of the claim that networks of lower complexity collapse further (Munn, Dherin, Gonzalvo 2024, arXiv
2405.15706): everything else that lowers it changes the training in other ways too.
"""

import torch
from torch import Tensor

from nclab.interfaces.batch import Batch, Output


def complexity_term(factor: float, batch: Batch, out: Output) -> Tensor:
    """factor * d / B * sum_i |d(v_i . f_i)/dx|^2, (): an unbiased estimate of factor * GC of a batch, as Hutchinson's.

    f (B, d) are the features that the classifier reads, v_i random unit directions, drawn anew by torch's generator of
    the device: a run that goes on draws what it would have drawn. In training mode: where batch norm lets samples act
    on each other, this is the complexity of the map of the whole batch, whose mixed derivatives vanish as 1 / B.

    Cost: a backward pass to the inputs, of which the step's own backward pass takes the gradient. On one CPU core a
    step of 64 images takes 2.3 times as long in an MLP of four layers of 256, 4.5 times in the small CNN.

    Args:
        factor: `loss.complexity`, in units of loss * inputs^2 / features^2.
        batch: inputs (B, ...) that autograd follows.
        out: of the model, in training mode.
    """
    features = list(out.features.values())[-1]  # (B, d)
    directions = torch.randn_like(features)
    directions = directions / directions.norm(dim=1, keepdim=True)
    (gradient,) = torch.autograd.grad(features, batch.inputs, directions, create_graph=True)
    return factor * features.shape[1] / batch.of * gradient.square().sum()
