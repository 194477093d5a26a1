"""Curvature of an objective at a point, without the Hessian: products with it, and its least eigenvalue."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vjp, vmap

Objective = Callable[[dict[str, Tensor]], Tensor]  # parameters by name -> ()
Point = dict[str, Tensor]
LEAST = 12  # numbers below which Lanczos has no room
DENSE = 600  # up to here all products at once are faster than Lanczos, which is slow where many eigenvalues are 0


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


def least_eigenvalue(objective: Objective, point: Point, most_dense: int = DENSE) -> float:
    """The least eigenvalue of the Hessian of `objective` at `point`, from Hessian-vector products alone.

    By Lanczos (`scipy.sparse.linalg.eigsh`), or of the matrix of all products where there are few numbers.

    At a minimum it is 0 or more, up to rounding; below 0 at a strict saddle. The start of Lanczos is fixed.

    Args:
        objective: parameters by name -> ().
        point: float64, of any shapes.
        most_dense: so many numbers in all up to which the whole matrix is formed.

    Raises:
        TypeError: A parameter is not float64.
        scipy.sparse.linalg.ArpackNoConvergence: Lanczos found no eigenvalue.

    >>> point = {"x": torch.zeros(20, dtype=torch.float64)}
    >>> curvatures = torch.arange(-3.0, 17.0, dtype=torch.float64)
    >>> round(least_eigenvalue(lambda p: (curvatures * p["x"] ** 2).sum() / 2, point, most_dense=0), 6)
    -3.0
    """
    if wrong := [f"{name} is {part.dtype}" for name, part in point.items() if part.dtype != torch.float64]:
        raise TypeError(f"expected float64 parameters, got {', '.join(wrong)}")
    sizes = [part.numel() for part in point.values()]
    total = sum(sizes)

    _, products = vjp(grad(objective), point)  # once: every call of it is one product

    def flat_product(flat: Tensor) -> Tensor:
        parts = flat.split(sizes)
        direction = {name: part.view(own.shape) for (name, own), part in zip(point.items(), parts, strict=True)}
        (found,) = products(direction)
        return torch.cat([found[name].flatten() for name in point])

    def product(flat: np.ndarray) -> np.ndarray:
        return flat_product(torch.as_tensor(flat.reshape(-1).copy())).numpy()

    if total <= max(LEAST, most_dense):
        return float(torch.linalg.eigvalsh(vmap(flat_product)(torch.eye(total, dtype=torch.float64)))[0])
    start = np.random.default_rng(0).normal(size=total)
    from scipy.sparse.linalg import LinearOperator, eigsh  # not above: every training would hold 100 MiB more

    operator = LinearOperator((total, total), matvec=product, dtype=np.float64)
    return float(eigsh(operator, k=1, which="SA", v0=start, tol=1e-8, return_eigenvectors=False)[0])
