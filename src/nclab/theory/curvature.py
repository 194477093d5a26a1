"""Curvature of an objective at a point, without the Hessian: products with it, and its least eigenvalue."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor
from torch.func import grad, vjp

Objective = Callable[[dict[str, Tensor]], Tensor]  # parameters by name -> ()
Point = dict[str, Tensor]
DENSE = 12  # numbers up to which Lanczos has no room, and the Hessian is formed


def hessian_product(objective: Objective, point: Point, direction: Point) -> Point:
    """H v at `point` along v = `direction`, by name and of the shapes of `point`: the gradient of v . gradient.

    >>> point = {"x": torch.tensor([1.0, 2.0])}
    >>> hessian_product(lambda p: (p["x"] ** 3).sum(), point, {"x": torch.tensor([1.0, 0.0])})["x"].tolist()
    [6.0, 0.0]
    """
    return vjp(grad(objective), point)[1](direction)[0]


def gradient_norm(objective: Objective, point: Point) -> float:
    """|gradient| at `point`, Euclidean over all parameters."""
    return float(torch.sqrt(sum(part.square().sum() for part in grad(objective)(point).values())))


def least_eigenvalue(objective: Objective, point: Point) -> float:
    """The least eigenvalue of the Hessian of `objective` at `point`, by Lanczos (`scipy.sparse.linalg.eigsh`).

    At a minimum it is 0 or more, up to rounding; below 0 at a strict saddle. The start of Lanczos is fixed.

    Args:
        objective: parameters by name -> ().
        point: float64, of any shapes.

    Raises:
        TypeError: A parameter is not float64.
        scipy.sparse.linalg.ArpackNoConvergence: Lanczos found no eigenvalue.

    >>> point = {"x": torch.zeros(20, dtype=torch.float64)}
    >>> curvatures = torch.arange(-3.0, 17.0, dtype=torch.float64)
    >>> round(least_eigenvalue(lambda p: (curvatures * p["x"] ** 2).sum() / 2, point), 6)
    -3.0
    """
    if wrong := [f"{name} is {part.dtype}" for name, part in point.items() if part.dtype != torch.float64]:
        raise TypeError(f"expected float64 parameters, got {', '.join(wrong)}")
    sizes = [part.numel() for part in point.values()]
    total = sum(sizes)

    _, products = vjp(grad(objective), point)  # once: every call of it is one product

    def product(flat: np.ndarray) -> np.ndarray:
        parts = torch.as_tensor(flat.reshape(-1).copy()).split(sizes)
        direction = {name: part.view(own.shape) for (name, own), part in zip(point.items(), parts, strict=True)}
        (found,) = products(direction)
        return torch.cat([found[name].flatten() for name in point]).numpy()

    if total <= DENSE:
        return float(np.linalg.eigvalsh(np.stack([product(row) for row in np.eye(total)]))[0])
    start = np.random.default_rng(0).normal(size=total)
    operator = LinearOperator((total, total), matvec=product, dtype=np.float64)
    return float(eigsh(operator, k=1, which="SA", v0=start, tol=1e-8, return_eigenvectors=False)[0])
