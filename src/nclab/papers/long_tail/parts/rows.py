"""Rows of a classifier turned to the class means: rotation, projection, and equal lengths alone."""

import torch
from torch import Tensor

from nclab.metrics.passes import unit_rows


def slerp(rows: Tensor, towards: Tensor, amount: float) -> Tensor:
    """The rows (C, d) turned by the share `amount` of their angle to `towards` (C, d), on the great circle between the
    two; lengths stay. amount 0: as they are, 1: along `towards`. A row opposite to its target stays as it is, and so
    does one whose target is 0.

    >>> slerp(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 5.0]]), 0.5).round(decimals=4).tolist()
    [[1.4142, 1.4142]]
    """
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    a, b = unit_rows(rows), unit_rows(towards)
    along = (a * b).sum(1, keepdim=True)
    across = b - along * a  # of length sin of the angle: precise near 0, where arccos is not
    sine = torch.linalg.vector_norm(across, dim=1, keepdim=True)
    angle = amount * torch.atan2(sine, along)
    turned = length * (angle.cos() * a + angle.sin() * across / sine)
    return torch.where(turned.isfinite() & (sine > 1e-9), turned, rows)


def projected(rows: Tensor, means: Tensor) -> Tensor:
    """The rows (C, d) projected on the span of the centred class means (C, d)."""
    _, s, vh = torch.linalg.svd(means, full_matrices=False)
    basis = vh[s > len(means) * torch.finfo(means.dtype).eps * s.max()]  # (rank, d)
    return rows @ basis.T @ basis


def equalised(rows: Tensor) -> Tensor:
    """The rows (C, d) at their mean length: directions stay."""
    return unit_rows(rows) * torch.linalg.vector_norm(rows, dim=1).mean()
