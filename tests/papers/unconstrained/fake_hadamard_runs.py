"""Run folders of model=hadamard as training writes them: numbers of the flow itself, or of one that turns."""

from functools import lru_cache

import numpy as np
import torch
from fake_folder import write_folder

from nclab.papers.unconstrained.parts.hadamard_flow import of_product
from nclab.theory.hadamard import flow, hadamard

EPOCHS, GAMMA = 24, 1.6


@lru_cache
def path_of(start):
    """The flow from `start` (K,) at all epochs, (epochs, K)."""
    return flow(np.array(start), np.log1p((GAMMA ** np.arange(EPOCHS + 1) - 1) / (GAMMA - 1)))


def write_hadamard_run(
    root,
    seed=0,
    classes=4,
    directions="hadamard",
    face=0,
    beside=0.0,
    turn=0.0,
    off=0.0,
    spread=0.5,
    held=None,
):
    """A run whose product is L diag(s(t)) R^T, s(t) that of the flow, times 1 + `off` at the end, with R turned away
    from its start by up to `turn`. L and R are Phi / sqrt(K) for all directions: `directions` is what the run says.
    held: what those on or beside a face are from epoch 1 on. spread: std of log s at the start."""
    config = {
        "experiment_name": "unconstrained_hadamard",
        "seed": seed,
        "epochs": EPOCHS,
        "precision": "float64",
        "batch_size": None,
        "dataset": {"name": "free_features", "classes": classes, "per_class": 1, "imbalance": 1.0},
        "model": {"name": "hadamard", "directions": directions, "face": face, "beside": beside},
        "optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 0, "momentum": 0.0},
        "schedule": {"name": "log_time", "gamma": GAMMA},
        "sampler": {"name": "repeated", "repeats": 20},
        "loss": {"name": "cross_entropy", "l2": 0.0},
        "metrics": {"every": 1, "suite": ["hadamard"]},
        "etf": {"name": "none"},
    }
    start = 0.1 * np.exp(spread * np.random.default_rng([seed, classes]).normal(size=classes))
    start[1 : face + 1] = beside
    path = path_of(tuple(start)).copy()
    path[-1] *= 1 + off
    if held is not None:
        path[1:, 1 : face + 1] = held
    frame = torch.from_numpy(hadamard(classes) / classes**0.5)
    axis = torch.randn(classes, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    lines = []
    for epoch, s in enumerate(path):
        turned = frame @ torch.linalg.matrix_exp(turn * epoch / EPOCHS * (axis - axis.T))
        own = of_product(frame * torch.from_numpy(s) @ turned.T, frame, frame)
        own |= {"loss": np.log1p(np.exp(own["log_excess"])), "accuracy": 1.0}
        lines += [f"{epoch},train,network,{name},{float(value)!r}" for name, value in own.items()]
    layers = [{"layer": "free", "role": "classifier_input", "site": None, "stage": None},
              {"layer": "fc1", "role": "classifier", "site": "fc1", "stage": ["fc1"]}]  # fmt: skip
    return write_folder(root, config, layers, lines, {"final": {"train": {"accuracy": 1.0}}})
