"""What the meters accept: tensors and numpy arrays of the right shape, with errors that say what came instead."""

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nclab.metrics.geometry import ClassMeans, geometry

Array = Tensor | np.ndarray
FEATURE_DTYPES = (torch.float32, torch.float64)


def class_count(num_classes: int) -> int:
    """The number of classes. Raises ValueError for fewer than 2, and for what is no integer."""
    try:
        count = operator.index(num_classes)
    except TypeError:
        raise ValueError(f"num_classes must be an integer, got {num_classes!r}") from None
    if count < 2:
        raise ValueError(f"neural collapse needs at least 2 classes, got {count}")
    return count


def tensor_of(value: Array, name: str) -> Tensor:
    """A dense tensor as it is; a numpy array as a tensor. Raises ValueError for anything else."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_nested:
            raise ValueError(f"{name} must be a dense tensor, got {value.layout}{' nested' if value.is_nested else ''}")
        return value
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name} must be a torch tensor or a numpy array, got {type(value).__name__}")
    if value.dtype.kind not in "biufc":
        raise ValueError(f"{name} must hold numbers, got a numpy array of {value.dtype}")
    own = np.require(value, value.dtype.newbyteorder("="), ["C", "W"])  # torch reads no other layout without a warning
    try:
        return torch.from_numpy(own)
    except TypeError:
        raise ValueError(f"{name} must be of a type that torch has, got a numpy array of {value.dtype}") from None


def batch_of(features: Array, labels: Array) -> tuple[Tensor, Tensor]:
    """Features (N, d) float32 or float64, and labels (N,) as int64, on one device. Raises ValueError."""
    h, y = tensor_of(features, "features"), tensor_of(labels, "labels")
    if h.ndim != 2 or y.ndim != 1 or len(h) != len(y) or not h.numel():
        raise ValueError(
            "features must have shape (N, d) and labels (N,) with N > 0 and d > 0, "
            f"got {tuple(h.shape)} and {tuple(y.shape)}"
        )
    if h.dtype not in FEATURE_DTYPES:
        raise ValueError(f"features must be float32 or float64 (metrics never run in half), got {h.dtype}")
    if y.dtype == torch.bool or y.is_floating_point() or y.is_complex():
        raise ValueError(f"labels must be integers, the class of every sample, got {y.dtype}")
    if h.device != y.device:
        raise ValueError(f"features and labels must be on one device, got {h.device} and {y.device}")
    return h, y.long()


def matrix_of(value: Array, name: str, shape: tuple[int, ...]) -> Tensor:
    """A floating-point tensor of the given shape. Raises ValueError."""
    tensor = tensor_of(value, name)
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
    if not tensor.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {tensor.dtype}")
    return tensor


def class_means_of(value: Any, num_classes: int) -> ClassMeans:
    """Class means as a meter reads them, of a `ClassMeans` or of an array (C, d). Raises ValueError."""
    means = value.means if isinstance(value, ClassMeans) else tensor_of(value, "class_means")
    if means.ndim != 2 or len(means) != num_classes or not means.numel():
        raise ValueError(f"class_means must have shape ({num_classes}, d), got {tuple(means.shape)}")
    if isinstance(value, ClassMeans):
        return value
    means = matrix_of(means, "class_means", tuple(means.shape)).detach().cpu()
    return geometry(means, means.dtype)


def check_label_range(low: int, high: int, num_classes: int) -> None:
    """Raises ValueError for labels from `low` to `high` that are not all in 0..C-1."""
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels must lie in 0..{num_classes - 1}, got {low}..{high}")


def in_host_memory(tensor: Tensor) -> bool:
    """Whether its numbers can be read without waiting for a device."""
    return tensor.device.type == "cpu"
