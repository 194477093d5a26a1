"""Run folders of a regression as training writes them, with stated matrices."""

import numpy as np
from fake_folder import write_folder

S = np.array([[1.0, 0.2], [0.2, 0.5]])
EVERY = 10


def entries(name, matrix):
    n = len(matrix)
    return {f"{name}_{i + 1}_{j + 1}": matrix[i, j] for i in range(n) for j in range(i, n)}


def root_of(s):
    values, vectors = np.linalg.eigh(s)
    return (vectors * np.sqrt(values)) @ vectors.T


def write_network_run(
    root,
    seed=0,
    decay=0.002,
    rate=-1.0,
    epochs=100,
    s=S,
    permuted=False,
    dataset="teacher",
    r2=0.9,
    repeats=1,
    batch=None,
):
    """A network whose NRC1 and NRC2 are 0.7 and 0.9 (1 + t)^rate (up to the seed), and whose W W^T goes from I to
    S^(1/2) as 1/(1 + t)."""
    config = {
        "experiment_name": "regression_network",
        "seed": seed,
        "epochs": epochs,
        "dataset": {"name": dataset, "samples": 200, "permute_targets": permuted},
        "model": {"name": "mlp", "depth": 4, "width": 64},
        "optimizer": {"name": "sgd", "lr": 1.0, "momentum": 0, "weight_decay": decay},
        "loss": {"name": "mse", "l2": 0.0, "l2_skip": "none"},
        "metrics": {"every": EVERY, "probe": "activation", "suite": ["regression_collapse"]},
        "etf": {"name": "none"},
    }
    if repeats > 1:
        config |= {"batch_size": batch, "sampler": {"name": "repeated", "repeats": repeats}}
    lines, n = [], len(s)
    for t in range(0, epochs + 1, EVERY):
        fall = (1 + t) ** rate * (1 + 0.01 * seed)
        gram = root_of(s) + (np.eye(n) - root_of(s)) / (1 + t)
        own = {
            "nrc1": 0.7 * fall,
            "nrc2": 0.9 * fall,
            **entries("weight_gram", gram),
            **entries("target_covariance", s),
        }
        rest = 0.5 * fall
        own |= {f"explained_variance_{i}": (1 - rest) / n if i <= n else rest / (5 - n) for i in range(1, 6)}
        lines += [f"{t},train,act3,{name},{float(value)!r}" for name, value in own.items()]
        for split, last in (("train", r2), ("test", r2 - 0.1)):
            value = last if t else last - 0.5
            lines += [f"{t},{split},network,{name},{v!r}" for name, v in (("r2", value), ("mse", 1 - value))]
            lines.append(f"{t},{split},network,loss,{(1 - value) * n / 2!r}")
    layers = [_layer("act3", "hidden", "fc3"), _layer("fc4", "classifier", "fc4")]
    return _write(root, config, layers, lines)


def write_ufm_run(root, seed=0, l2=0.01, off=0.0, epochs=100, s=S, samples=100):
    """Unconstrained features whose W W^T is the closed form plus `off` I, at (1 + off) times the least objective."""
    config = {
        "experiment_name": "regression_ufm",
        "seed": seed,
        "epochs": epochs,
        "dataset": {"name": "free_values", "samples": samples, "spectrum": [1.0, 0.5]},
        "model": {"name": "unconstrained", "dim": 16, "depth": 1},
        "optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.9, "weight_decay": 0},
        "loss": {"name": "mse", "l2": l2, "l2_skip": "biases" if l2 else "none"},
        "metrics": {"every": EVERY, "probe": "linear", "suite": ["regression_collapse"]},
        "etf": {"name": "none"},
    }
    c, lines = samples * l2**2, []
    values, vectors = np.linalg.eigh(s)
    kept = np.maximum(np.sqrt(values) - np.sqrt(c), 0)
    gram = samples**0.5 * (vectors * kept) @ vectors.T + off * np.eye(len(s))
    least = sum((c * v) ** 0.5 - c / 2 if v > c else v / 2 for v in values)
    for t in range(0, epochs + 1, EVERY):
        own = {"nrc1": 0.7 if t == 0 or not l2 else 1e-20, "nrc2": 0.8 if t == 0 or not l2 else 1e-20}
        now = gram if t else np.eye(len(s))
        own |= entries("weight_gram", now) | entries("target_covariance", s)
        own |= {"explained_variance_1": 0.6, "explained_variance_2": 0.4, "explained_variance_3": 0.0}
        lines += [f"{t},train,free,{name},{float(value)!r}" for name, value in own.items()]
        loss = float(least * (1 + off)) if t else 1.0
        lines += [f"{t},train,network,{name},{v!r}" for name, v in (("loss", loss), ("r2", 0.9), ("mse", 0.1))]
        lines += [f"{t},train,network,l2_penalty,0.0"] if l2 else []
    layers = [_layer("free", "classifier_input", None), _layer("fc1", "classifier", "fc1")]
    return _write(root, config, layers, lines)


def _layer(layer, role, site):
    return {"layer": layer, "role": role, "site": site, "stage": [site] if site else None}


def _write(root, config, layers, lines):
    return write_folder(root, config, layers, lines, {"final": {"train": {"loss": 0.1}}})
