"""Cosine margins of a classifier: by how much a sample's direction prefers its own class."""

import torch
from torch import Tensor

from nclab.metrics.checks import Array, batch_of, check_label_range, matrix_of
from nclab.metrics.geometry import NAN


def cosine_margin(features: Array, labels: Array, weight: Array, mean: Array | None = None) -> dict[str, float]:
    """How far the directions of features (N, d) are from where another class would win, whatever their lengths.

    The margin of a sample is cos(w_y, h - mu_G) - max_{c != y} cos(w_c, h - mu_G), w_c the rows of W as they are and
    mu_G the unweighted mean of the class means. 1 + 1/(C-1) at collapse, the largest that all samples can have; above 0
    where the nearest row by angle is the own. Some codes leave the features uncentred. After the cosine margin of
    Markou 2024 (arXiv 2411.01248).

    Args:
        features: classifier's input, (N, d).
        labels: (N,), integers in 0..C-1.
        weight: W (C, d).
        mean: mu_G (d,); of a test split that of the train split. None: of these features, which then need every class.

    Returns: `cosine_margin_min`, the least of all samples, and `cosine_margin_mean`; nan where a feature is mu_G, a row
    of W is 0, or a number is not finite.
    Raises ValueError for shapes, types or labels that do not fit, and an absent class where mean is None.

    >>> import torch
    >>> found = cosine_margin(torch.eye(3), torch.arange(3), torch.eye(3) - 1 / 3)
    >>> {name: round(value, 6) for name, value in found.items()}
    {'cosine_margin_min': 1.5, 'cosine_margin_mean': 1.5}
    """
    h, y = batch_of(features, labels)
    classes = len(weight)
    check_label_range(int(y.min()), int(y.max()), classes)
    w = matrix_of(weight, "weight", (classes, h.shape[1]))
    if mean is None:
        counts = torch.bincount(y, minlength=classes)
        if empty := (counts == 0).nonzero().flatten().tolist():
            raise ValueError(f"class {', '.join(map(str, empty))} has no sample: its mean does not exist")
        member = torch.nn.functional.one_hot(y, classes).double()
        mu = (member.T @ h.double() / counts[:, None]).mean(0)
    else:
        mu = matrix_of(mean, "mean", (h.shape[1],))
    return of_samples(sample_margins(h, y, w, mu))


def sample_margins(features: Tensor, labels: Tensor, weight: Tensor, mean: Tensor) -> Tensor:
    """(N, 1), float64: the margin of every sample; nan where it is undefined."""
    centred = features.detach().double() - mean.to(features.device).double()
    rows = weight.detach().to(features.device).double()
    cosines = (centred / centred.norm(dim=1, keepdim=True)) @ (rows / rows.norm(dim=1, keepdim=True)).T  # (N, C)
    own = cosines.gather(1, labels[:, None])
    others = cosines.scatter(1, labels[:, None], -torch.inf).amax(1, keepdim=True)
    return torch.where(cosines.isfinite().all(1, keepdim=True), own - others, NAN)


def of_samples(margins: Tensor) -> dict[str, float]:
    """The columns of `cosine_margin` of what `sample_margins` gives for all samples."""
    return {"cosine_margin_min": float(margins.min()), "cosine_margin_mean": float(margins.mean())}
