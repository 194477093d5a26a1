"""Run folders of free features as training writes them, whose numbers follow from closed forms."""

from fake_folder import write_folder

LAYERS = {"deep": [("free", "hidden"), ("fc1", "classifier_input"), ("fc2", "classifier")],
          "one": [("free", "classifier_input"), ("fc1", "classifier")]}  # fmt: skip

SOFT = {"label_smoothing": {"smoothing": 0.1}, "focal": {"gamma": 3.0}}


def write_free_run(
    root,
    curve,
    seed=0,
    kind="one",
    optimizer="sgd",
    etf=None,
    singular=None,
    experiment="unconstrained_landscape",
    repeats=50,
    metrics=None,
    classes=4,
    l2=0.01,
    loss="cross_entropy",
    **model,
):
    """A run with the objective curve[epoch]; half of it is the penalty. `singular` are the singular values of the class
    means of every layer, at the last epoch. `metrics`: {(layer, metric): {epoch: value}} besides."""
    suites = ["collapse", *(["singular_values"] if singular else []), *(["curvature"] if metrics else [])]
    depth = {"one": 1, "deep": 2}[kind]
    config = {
        "experiment_name": experiment,
        "seed": seed,
        "epochs": max(curve),
        "precision": "float64" if kind == "one" else "float32",
        "dataset": {"name": "free_features", "classes": classes, "per_class": 2, "imbalance": 1.0},
        "model": {"name": "unconstrained", "dim": 6, "depth": depth, "activation": "none", "tau": None, "bias": True}
        | model,
        "optimizer": {"name": optimizer, "lr": 0.1, "weight_decay": 0},
        "sampler": {"name": "repeated", "repeats": repeats},
        "loss": {"name": loss, "l2": l2, "l2_features": None, "l2_biases": None} | SOFT.get(loss, {}),
        "metrics": {"every": 1, "probe": "linear", "suite": suites},
        "etf": etf or {"name": "none"},
    }
    lines = []
    for epoch, value in curve.items():
        own = {("network", "loss"): value / 2, ("network", "l2_penalty"): value / 2, ("network", "accuracy"): 1.0}
        at_input = next(layer for layer, role in LAYERS[kind] if role == "classifier_input")
        own |= {(at_input, name): 10.0 ** (-epoch - 1) for name in ("nc1", "nc2_gram", "nc3")}
        own |= {key: values[epoch] for key, values in (metrics or {}).items() if epoch in values}
        if singular and epoch == max(curve):
            for layer, _ in LAYERS[kind]:
                own |= {(layer, f"means_singular_{i}"): s for i, s in enumerate(singular, 1)}
        lines += [f"{epoch},train,{layer},{name},{float(v)!r}" for (layer, name), v in own.items()]
    layers = [{"layer": layer, "role": role, "site": None if layer == "free" else layer,
               "stage": None if layer == "free" else [layer]} for layer, role in LAYERS[kind]]  # fmt: skip
    return write_folder(root, config, layers, lines, {"final": {"train": {"accuracy": 1.0}}})
