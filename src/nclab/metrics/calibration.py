"""Calibration of a classifier: do its probabilities say how often it is right?"""

import torch
from torch import Tensor

from nclab.interfaces.targets import within_heads
from nclab.metrics.checks import Array, batch_of, check_label_range
from nclab.metrics.geometry import NAN

BINS = 15


def calibration(logits: Array, labels: Array) -> dict[str, float]:
    """ece, nll and brier of logits (N, C) whose softmax is taken for probabilities, in float64.

    ece: expected calibration error, sum over 15 bins of n_b/N |accuracy_b - confidence_b|, confidence the largest
        probability. The bins hold equally many samples in the order of confidence (equal mass, after Nixon 2019; those
        of Guo 2017 are equally wide), the first ones one more where N is no multiple; of equal confidence the wrong
        come first. 0 where confidence is accuracy.
    nll: mean of -log p_y, natural logarithm: the cross-entropy, whatever was trained on. 0 at certainty that is right.
    brier: mean of sum_c (p_c - [c = y])^2, between 0 and 2 (Brier 1950; some halve it for two classes).

    Args:
        logits: (N, C), float32 or float64.
        labels: (N,), integers in 0..C-1.

    Returns: column -> value; nan where a logit is not finite.
    Raises ValueError for shapes, types or labels that do not fit.

    >>> import torch
    >>> found = calibration(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))
    >>> {name: round(value, 4) for name, value in found.items()}
    {'ece': 0.5, 'nll': 0.6931, 'brier': 0.5}
    """
    logits, labels = batch_of(logits, labels)
    check_label_range(int(labels.min()), int(labels.max()), logits.shape[1])
    return of_samples(sample_scores(logits, labels))


def sample_scores(logits: Tensor, labels: Tensor, others: Tensor | None = None) -> Tensor:
    """(N, 4), float64: 1 - confidence, whether the prediction is wrong, -log p_y and the sum of squared errors.

    With several heads, `others` (`Classes.others`), a sample's probabilities are those within its own head. nan where a
    logit is not finite. What is 1 minus a probability is the sum of the others, which keeps its digits near
    certainty."""
    log_p = torch.log_softmax(within_heads(logits.double(), labels, others), 1)  # (N, C)
    p, own = log_p.exp(), labels[:, None]
    predicted = log_p.argmax(1, keepdim=True)
    doubt = p.scatter(1, predicted, 0).sum(1)
    rest = p.scatter(1, own, 0)
    brier = rest.sum(1).square() + rest.square().sum(1)
    wrong = (predicted != own)[:, 0].double()
    scores = torch.stack([doubt, wrong, -log_p.gather(1, own)[:, 0], brier], 1)
    return scores.where(torch.isfinite(logits).all(1, keepdim=True), NAN)


def of_samples(scores: Tensor) -> dict[str, float]:
    """The columns of `calibration` of what `sample_scores` gives for all samples."""
    scores = scores.cpu()
    if not torch.isfinite(scores).all():
        return dict.fromkeys(("ece", "nll", "brier"), NAN)
    doubt, wrong, nll, brier = scores.T
    order = torch.argsort(wrong, descending=True, stable=True)
    order = order[torch.argsort(doubt[order], descending=True, stable=True)]
    bins = zip(torch.tensor_split(wrong[order], BINS), torch.tensor_split(doubt[order], BINS), strict=True)
    ece = sum(abs(float(w.sum() - d.sum())) for w, d in bins) / len(scores)
    return {"ece": ece, "nll": float(nll.mean()), "brier": float(brier.mean())}
