"""Hadamard initialisation: gradient flow of two linear layers as a flow of singular values.

Garrod et al. 2025 (arXiv 2512.04006). The formulas below are derived here: the paper's own were not at hand.

The model is logits Z = W H with W (K, K) and free features H (K, K), one sample a class, without penalty, trained by
gradient descent on the mean cross-entropy over the K samples. K = 2^m, Phi the Sylvester-Hadamard matrix. From
    W = K^(-1/2) Phi diag(a),  H = K^(-1/2) diag(a) Phi^T
    Z = (1/K) Phi diag(s) Phi^T,  s = a^2
    softmax(Z) = (1/K) Phi diag(sigma) Phi^T,  sigma = Phi p,  p = softmax(Phi s / K)
the gradient lies in the span of the same matrices, the singular vectors stay what they are, and
    ds_i/dt = (2/K) s_i (1 - sigma_i(s)),  sigma_0 = 1: s_0, of the direction of all ones, never moves.

Time: a step of size lr on both W and H is dt = lr. With n equal samples a class (mean over K n) and W^T W = H H^T the
sample's share of H is smaller by root n, and it is dt = lr / sqrt(n).

The loss is log(1 + E), E = sum_{k >= 1} exp(-u_k), u_k = (2/K) sum of s_i over i with Phi_ik = -1: the margins.
V = -log E / (s_1 + ... + s_{K-1}) never falls. With q_k = exp(-u_k) / E and entropy S(q) >= 0,
    sum_i s_i (1 - sigma_i) = K / (1 + E) sum_k u_k exp(-u_k) = K E / (1 + E) (S(q) - log E),
and with Cauchy's inequality (sum_i s_i (1 - sigma_i))^2 <= sum_i s_i sum_i s_i (1 - sigma_i)^2 this gives dV/dt >= 0.
By Jensen V <= 1/(K-1) - log(K-1) / (s_1 + ... + s_{K-1}); 1/(K-1) is reached in the limit of equal s_i alone, which is
collapse to the simplex ETF.

Faces s_i = 0 are invariant. None of their points attracts: log s_i grows at the rate (2/K) (1 - sigma_i) > 0.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

ACCURACY = 1e-10  # relative, of the integrated log s


def hadamard(classes: int) -> np.ndarray:
    """The Sylvester-Hadamard matrix Phi (K, K), float64: symmetric, entries +-1, Phi Phi^T = K I, row 0 all ones; its
    rows multiply like their numbers under exclusive or. Raises ValueError unless K is 2, 4, 8 ...

    >>> hadamard(2).tolist()
    [[1.0, 1.0], [1.0, -1.0]]
    """
    return _sylvester(classes).copy()


def logits(s: np.ndarray) -> np.ndarray:
    """Z = (1/K) Phi diag(s) Phi^T (K, K) of singular values s (K,), column k that of class k.

    >>> logits(np.array([0.0, 2.0])).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    s = _checked(s)
    phi = _sylvester(len(s))
    return (phi * s) @ phi.T / len(s)


def factors(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The Hadamard initialisation W (K, K) and H (K, K) with Z = W H: balanced, W^T W = H H^T = diag(s)."""
    s = _checked(s)
    w = _sylvester(len(s)) * np.sqrt(s / len(s))
    return w, w.T.copy()


def margins(s: np.ndarray) -> np.ndarray:
    """u_k = (2/K) sum of s_i over Phi_ik = -1, for k = 1 ... K-1: logit of the own class minus that of the k-th other.
    All equal s_i where s_1 = ... = s_{K-1}."""
    s = _checked(s)
    return s @ (1 - _sylvester(len(s))[:, 1:]) / len(s)


def log_excess(s: np.ndarray) -> float:
    """log E, E = sum_k exp(-u_k): the loss is log(1 + E). log(K-1) at s = 0, to minus infinity at collapse."""
    from scipy.special import logsumexp

    return float(logsumexp(-margins(s)))


def lyapunov(s: np.ndarray) -> float:
    """V = -log E / (s_1 + ... + s_{K-1}): never falls along `flow`; below 1/(K-1), its limit at collapse.

    Raises ValueError where s_1 ... s_{K-1} are all 0, or not finite singular values of at least 0.
    """
    return -log_excess(_moving(s)) / float(np.sum(s[1:]))


def etf_cosine(s: np.ndarray) -> float:
    """Cosine of the centred logits and the simplex ETF I - 11^T/K, (s_1 + ... + s_{K-1}) / sqrt((K-1) sum s_i^2).
    1 at collapse. For K >= 8 it may fall along `flow`.

    >>> etf_cosine(np.array([5.0, 2.0, 2.0, 2.0]))
    1.0
    """
    s = _moving(s)[1:]
    return float(s.sum() / np.sqrt(len(s) * np.square(s).sum()))


def diagonal_softmax(s: np.ndarray) -> np.ndarray:
    """sigma (K,) of softmax(Z) = (1/K) Phi diag(sigma) Phi^T; sigma_0 = 1, and all 1 at collapse."""
    return 1 - _lack(_checked(s), 0.0)


def growth_rates(s: np.ndarray) -> np.ndarray:
    """d log s_i / dt = (2/K) (1 - sigma_i), (K,): 0 for i = 0, positive for every other i, also where s_i = 0. There it
    is the rate at which a small s_i leaves the face."""
    return 2 / len(s) * _lack(_checked(s), 0.0)


def jacobian(s: np.ndarray) -> np.ndarray:
    """Derivatives (K, K) of `growth_rates` after log s_j: -(2/K^2) (sigma_{i xor j} - sigma_i sigma_j) s_j."""
    return _jacobian(_checked(s), 0.0)


def flow(s: np.ndarray, log_times: Sequence[float]) -> np.ndarray:
    """Singular values (T, K) along the gradient flow that starts at s (K,).

    log_times: log(1 + t) of the wanted times, rising from 0 or later, such as `np.log1p(t)`. Beyond 700 the time itself
    is no float any more, and the flow still is.

    For K >= 8 collapse comes logarithmically slowly: integrated is y = log s in log(1 + t), by an implicit Runge-Kutta
    method (Radau IIA of order 5) with the exact Jacobian. Singular values of 0 stay 0.

    Raises ValueError for times that do not rise, for s that are no finite numbers of at least 0, and where s_1, s_2 ...
    are all 0.

    >>> flow(np.array([1.0, 2.0, 2.0, 2.0]), np.log1p([0.0, 1.0]))[:, 1].round(6).tolist()
    [2.0, 2.366699]
    """
    from scipy.integrate import solve_ivp

    s = _moving(s)
    log_times = np.asarray(log_times, dtype=np.float64)
    if not (log_times.ndim == 1 and len(log_times) and log_times[0] >= 0 and (np.diff(log_times) > 0).all()):
        raise ValueError(f"flow needs rising log times of at least 0, log(1 + t); got {log_times.tolist()}")
    there = s > 0

    def whole(y: np.ndarray) -> np.ndarray:
        full = np.zeros(len(s))
        full[there] = np.exp(y)
        return full

    solution = solve_ivp(
        lambda v, y: 2 / len(s) * _lack(whole(y), v)[there],
        (0.0, log_times[-1]),
        np.log(s[there]),
        method="Radau",
        t_eval=log_times,
        jac=lambda v, y: _jacobian(whole(y), v)[np.ix_(there, there)],
        rtol=ACCURACY,
        atol=ACCURACY,
    )
    if not solution.success:
        raise ArithmeticError(f"the flow of {len(s)} singular values was not integrated: {solution.message}")
    found = np.zeros((len(log_times), len(s)))
    found[:, there] = np.exp(solution.y.T)
    found[:, 0] = s[0]  # frozen, and not rounded by exp(log s_0)
    return found


def leakage(z: np.ndarray, left: np.ndarray, right: np.ndarray) -> float:
    """|| off-diagonal of L^T Z R ||_F / || Z ||_F for orthogonal frames L, R (K, K): 0 where Z is diagonal in them,
    so that the singular vectors still are those of the start. L = R = Phi / sqrt(K) for Hadamard initialisation."""
    inner = left.T @ z @ right
    return float(np.linalg.norm(inner - np.diag(np.diag(inner))) / np.linalg.norm(z))


@lru_cache
def _sylvester(classes: int) -> np.ndarray:
    """`hadamard`, made once: an integration asks for it thousands of times."""
    from scipy.linalg import hadamard as sylvester

    if classes < 2 or classes & (classes - 1):
        raise ValueError(f"a Sylvester-Hadamard matrix has a power of two of rows, at least 2; got {classes}")
    return sylvester(classes, dtype=np.float64)


def _lack(s: np.ndarray, log_factor: float) -> np.ndarray:
    """exp(log_factor) (1 - sigma_i), (K,), without a difference: 2 sum of p_k over Phi_ik = -1."""
    twice = 1 - _sylvester(len(s))[:, 1:]  # 2 where Phi_ik = -1
    u = s @ twice / len(s)
    return twice @ np.exp(log_factor - u - np.log1p(np.exp(-u).sum()))


def _jacobian(s: np.ndarray, log_factor: float) -> np.ndarray:
    """exp(log_factor) times `jacobian`. With delta = 1 - sigma its bracket is delta_i + delta_j - delta_{i xor j} -
    delta_i delta_j, in which nothing of size 1 cancels."""
    number = np.arange(len(s))
    lack, scaled = _lack(s, 0.0), _lack(s, log_factor)
    both = scaled[:, None] + scaled - scaled[number[:, None] ^ number] - scaled[:, None] * lack
    return -2 / len(s) ** 2 * both * s


def _checked(s: np.ndarray) -> np.ndarray:
    s = np.asarray(s, dtype=np.float64)
    if s.ndim != 1 or len(s) < 2 or len(s) & (len(s) - 1):
        raise ValueError(f"expected K singular values (K,), K a power of two, at least 2; got shape {s.shape}")
    return s


def _moving(s: np.ndarray) -> np.ndarray:
    s = _checked(s)
    if not (np.isfinite(s).all() and (s >= 0).all() and s[1:].any()):
        raise ValueError(
            f"expected finite singular values of at least 0, one of s_1, s_2 ... above it; got {s.tolist()}"
        )
    return s
