"""loss=dot_regression: the cosine of a feature and the fixed row of its class is regressed to 1."""

from dataclasses import dataclass

from torch import Tensor, linalg

from nclab.interfaces.batch import Batch, Output
from nclab.training.objective import LOSSES, CrossEntropy, LossSettings

SMALLEST = 1e-12  # length by which a feature is divided at least


@dataclass
class DotRegressionSettings(LossSettings):
    name: str = "dot_regression"


def last_feature(out: Output) -> Tensor:
    """The classifier's input h (B, d), in the precision of the logits: a bf16 step leaves it in bf16."""
    return next(reversed(out.features.values())).to(out.prediction)


def own_cosine(out: Output, batch: Batch, length: Tensor) -> Tensor:
    """<h/|h|, w_y> (B,) of rows w of length 1 without a bias, from the logits; length: |h| (B,)."""
    return out.prediction.gather(1, batch.targets[:, None])[:, 0] / length


@LOSSES.add("dot_regression", DotRegressionSettings)
class DotRegression(CrossEntropy):
    """1/2 (<w_y, h/|h|> - 1)^2, h the classifier's input, w_y the fixed row of the class (Yang et al. 2022). 0 where h
    points along w_y.

    Its gradient pulls a feature towards its own row and pushes it from no other, so that a large class cannot push the
    small ones. The rows have length 1, are fixed before training and have no bias: etf=last_k etf.bias=false, whose
    rows are a simplex ETF. Features of both signs need model.head_norm=batch, as the paper's code has."""

    rows = ("etf", "orthogonal")

    def each(self, out: Output, batch: Batch) -> Tensor:
        length = linalg.vector_norm(last_feature(out), dim=1).clamp_min(SMALLEST)
        return (own_cosine(out, batch, length) - 1).square() / 2
