"""measure: collapse metrics of features that are at hand."""

from collections.abc import Callable

from torch import Tensor

from nclab.metrics.checks import Array, batch_of, class_count, matrix_of
from nclab.metrics.geometry import power_of_two
from nclab.metrics.meter import CollapseMeter


def measure(
    features: Array,
    labels: Array,
    num_classes: int,
    weight: Array | None = None,
    bias: Array | None = None,
    class_means: Array | None = None,
) -> dict[str, float]:
    """Collapse metrics of the features of one layer, all at hand as tensors or numpy arrays.

    The formula of every column stands in `nclab.metrics.collapse`. At collapse nc1, nc1_trace_ratio, cdnv, the nc2,
    nc3 and nc4 columns are 0 (nc2_weight_orthogonal and nc2_means_orthogonal at the collapse to an orthogonal frame),
    ncc_accuracy is 1 and rank is C - 1. After Papyan et al. 2020 (arXiv 2008.08186); the source of each column stands
    beside its formula.

    Args:
        features: (N, d), float32 or float64.
        labels: (N,), integers in 0..C-1.
        num_classes: C >= 2.
        weight: (C, d), of the classifier that reads these features. Adds nc2_weight_equinorm, nc2_weight_equiangular,
            nc2_weight_gram, nc2_weight_orthogonal, nc2_means_orthogonal, nc3, nc3_gram, nc3_cosine and nc4_mismatch.
        bias: (C,), of that classifier; only with a weight. Adds classifier_bias_collapse; without it the logits of
            nc4_mismatch are h W^T.
        class_means: (C, d), of the train split, where the features are those of a test split, which may then lack
            classes: cdnv is the mean over the pairs of classes with samples. By default the means of the features.

    Returns:
        column -> value; nan where the column is undefined, e.g. with one vector for all classes.

    Raises:
        ValueError: for shapes, types, devices or labels that do not fit, and for an empty class without `class_means`.

    >>> import torch
    >>> from nclab.metrics import measure
    >>> features = torch.tensor([[1.0, 0], [3, 0], [-1, 1], [-1, 3], [-1, -1], [-1, -3]])
    >>> labels = torch.tensor([0, 0, 1, 1, 2, 2])
    >>> values = measure(features, labels, num_classes=3)
    >>> print(f"{values['nc1_trace_ratio']:.4f} {values['ncc_accuracy']:.0f} {values['rank']:.0f}")
    0.2143 1 2
    >>> weight = torch.tensor([[1.0, 0], [-1, 1], [-1, -1]])
    >>> sorted(set(measure(features, labels, 3, weight)) - set(values))  # doctest: +NORMALIZE_WHITESPACE
    ['nc2_means_orthogonal', 'nc2_weight_equiangular', 'nc2_weight_equinorm', 'nc2_weight_gram',
     'nc2_weight_orthogonal', 'nc3', 'nc3_cosine', 'nc3_gram', 'nc4_mismatch']
    """
    features, labels = batch_of(features, labels)
    shape = (class_count(num_classes), features.shape[1])
    meter = CollapseMeter(num_classes, None if class_means is None else matrix_of(class_means, "class_means", shape))
    if bias is not None and weight is None:
        raise ValueError("a bias without a weight makes no logits; give both")
    logits = None
    if weight is not None:
        weight = matrix_of(weight, "weight", shape)
        bias = None if bias is None else matrix_of(bias, "bias", shape[:1])
    if class_means is None:
        meter.add_means(features, labels)
    if weight is not None:
        logits = _logits(features, weight, bias, meter.class_means.scale)
    meter.add_spread(features, labels, logits, weight)
    return meter.compute(weight, bias)


def _logits(like: Tensor, weight: Tensor, bias: Tensor | None, scale: float) -> Callable[[Tensor], Tensor]:
    """What makes h W^T + b (n, C) of features h (n, d), times a power of two that keeps them in range.

    `scale` * features are of order 1; `like`: their type and device."""
    w = weight.detach().double()
    factor = scale * power_of_two(w)
    if bias is None or not bias.any():
        columns = (factor * w).T.to(like)
        return lambda features: features @ columns
    factor = min(factor, power_of_two(bias))
    columns, offset = (factor * w).T.to(like), (factor * bias.detach().double()).to(like)
    return lambda features: (features @ columns).add_(offset)
