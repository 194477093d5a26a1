"""Run folders of the terminal phase as training writes them: numbers that follow a power law of the epoch."""

import zlib

import numpy as np
from fake_folder import write_folder

CE = {"name": "cross_entropy", "l2": 0.0}
MSE = {"name": "mse", "l2": 0.0005}
EVERY = 5
ENDS = {"nc2_cosine_std": 0.1, "nc2_weight_cosine_std": 0.08, "nc2_weight_equinorm": 0.06, "nc3": 0.5,
        "nc1": 0.4, "nc2_equinorm": 0.2, "nc2_equiangular": 0.15, "nc2_weight_equiangular": 0.1}  # fmt: skip


def write_terminal_run(
    root,
    seed=0,
    loss=CE,
    decay=0.0005,
    noise=0.0,
    imbalance=None,
    experiment="terminal_cross_entropy",
    slope=-0.5,
    epochs=60,
    full=30,
    top=1.0,
    off=0.05,
    test=(0.8, 0.85),
    mismatch=0.002,
    factor=1.0,
):
    """A run of an MLP. Every metric m of ENDS is a_m epoch^slope times `factor`, train accuracy reaches `top` at epoch
    `full`, test accuracy goes from one value of `test` at that epoch to the other; L_perp is `off` L_LS."""
    suites = ["collapse", "angles", "projection", *(["central_path"] if loss["name"] == "mse" else [])]
    config = {
        "experiment_name": experiment,
        "seed": seed,
        "epochs": epochs,
        "dataset": {"name": "fashion_mnist", "train_size": 2000, "label_noise": noise, "imbalance": imbalance},
        "model": {"name": "mlp", "depth": 6, "width": 256},
        "optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": decay},
        "loss": loss,
        "metrics": {"every": EVERY, "probe": "activation", "suite": suites},
        "etf": {"name": "none"},
    }
    rng = np.random.default_rng([seed, zlib.crc32(experiment.encode())])
    lines = []
    for epoch in range(0, epochs + 1, EVERY):
        reached = epoch >= full
        train = top if reached else top * 0.99 * (epoch / full) ** 0.1
        share = (epoch - full) / max(1, epochs - full)
        tested = test[0] + (test[1] - test[0]) * share if reached else test[0] * train
        network = {"accuracy": train, "loss": 0.5 / (1 + epoch)}
        own = {name: factor * a * max(epoch, 1) ** slope * 10 ** rng.normal(0, 0.003) for name, a in ENDS.items()}
        own |= {"nc4_mismatch": mismatch if reached else 0.1}
        if loss["name"] == "mse":
            parts = {"least_squares_nc1": 0.02 / (1 + epoch), "least_squares_nc23": 0.01 / (1 + epoch)}
            least = sum(parts.values())
            own |= parts | {"least_squares_loss": least, "central_path_distance": off * least}
        for c in range(3):
            angle = np.deg2rad(90 + 120 * c)
            at = {f"mean_{c}": 2.0, f"row_{c}": 0.5, f"sample_{c}_0": 2 + 1 / (1 + epoch), f"sample_{c}_1": 1.9}
            for name, length in at.items():
                own[f"plane_{name}_x"], own[f"plane_{name}_y"] = length * np.cos(angle), length * np.sin(angle)
        lines += [f"{epoch},train,act5,{name},{float(value)!r}" for name, value in own.items()]
        lines += [f"{epoch},train,network,{name},{float(value)!r}" for name, value in network.items()]
        lines.append(f"{epoch},test,network,accuracy,{tested!r}")
    layers = [_layer("act5", "hidden", "fc5"), _layer("fc6", "classifier", "fc6")]
    return _write(root, config, layers, lines, {"train": {"accuracy": top}, "test": {"accuracy": test[1]}})


def write_last_layer_run(root, seed=0, dataset="digits", epochs=1000, power=-1.0, nc3=0.04):
    """A run of the classifier alone: its distance to the max-margin solution is (log t)^power."""
    config = {
        "experiment_name": "terminal_last_layer",
        "seed": seed,
        "epochs": epochs,
        "dataset": {"name": dataset} | ({"noise": 0.0} if dataset == "etf_features" else {"train_size": 300}),
        "model": {"name": "linear", "bias": False},
        "optimizer": {"name": "sgd", "lr": 1.0, "weight_decay": 0, "momentum": 0},
        "loss": CE,
        "metrics": {"every": 10, "probe": "linear", "suite": ["collapse", "max_margin"]},
        "etf": {"name": "none"},
    }
    lines = []
    for t in range(0, epochs + 1, 10):
        own = {"max_margin_distance": np.log(t) ** power if t else 1.4, "margin_share": 1 - 1 / (2 + t), "nc3": nc3}
        lines += [f"{t},train,features,{name},{float(value)!r}" for name, value in own.items()]
        lines.append(f"{t},train,network,accuracy,1.0")
    layers = [_layer("features", "classifier_input", None), _layer("head", "classifier", "head")]
    return _write(root, config, layers, lines, {"train": {"accuracy": 1.0}, "test": {"accuracy": 0.9}})


def _layer(layer, role, site):
    return {"layer": layer, "role": role, "site": site, "stage": [site] if site else None}


def _write(root, config, layers, lines, final):
    return write_folder(root, config, layers, lines, {"final": final | {"effective_depth": 3}})
