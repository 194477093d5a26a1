"""Run folders of networks as training writes them: numbers that follow a power law of the epoch."""

from fake_folder import write_folder

MIB = 2**20
ETFS = {
    "learnt": {"name": "none"},
    "fixed": {"name": "last_k", "k": 1, "kind": "etf"},
    "nearest": {"name": "nearest", "gradient": True, "delta": 1e-3},
}


def write_network_run(
    root,
    classifier="learnt",
    features="full",
    seed=0,
    epochs=12,
    fitted=6,
    tau=None,
    test=0.9,
    learnable=24058,
    **model,
):
    """A run of a CNN whose train accuracy is 1 - 0.4 / epoch before epoch `fitted` and 0.995 from there on; nc1 is
    (1 + seed) / epoch. Weights, gradients and momentum take 1 MiB each, activations 2."""
    config = {
        "experiment_name": "etf_networks",
        "seed": seed,
        "epochs": epochs,
        "dataset": {"name": "fashion_mnist", "train_size": 2000, "label_noise": 0.0},
        "model": {"name": "cnn", "channels": [16, 32, 64], "features": features, "tau": tau},
        "optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 5e-4},
        "loss": {"name": "cross_entropy", "l2": 0.0},
        "metrics": {"every": 1, "probe": "linear", "suite": ["collapse", "margin"]},
        "etf": ETFS.get(classifier, {"name": classifier}),
    }
    last = "conv3" if tau is None else "scaled"
    lines = []
    for epoch in range(epochs + 1):
        at = max(epoch, 1)
        own = {"nc1": (1 + seed) / at, "nc2_equiangular": 0.4 / at, "nc3": 0.8 / at, "cosine_margin_min": 1 - 1.5 / at}
        train = 0.995 if epoch >= fitted else 1 - 0.4 / at
        lines += [f"{epoch},train,{last},{name},{float(value)!r}" for name, value in own.items()]
        lines += [f"{epoch},train,network,accuracy,{train!r}", f"{epoch},test,network,accuracy,{test!r}"]
    layers = [
        {"layer": last, "role": "classifier_input", "site": None, "stage": []},
        {"layer": "fc", "role": "classifier", "site": "fc", "stage": ["fc"]},
    ]
    kept = ("weights_learnable", "gradients", "optimizer")
    memory = {f"{name}_bytes": MIB for name in kept} | {"weights_fixed_bytes": 0, "activations_bytes": 2 * MIB}
    summary = {"final": {"train": {"accuracy": train}, "test": {"accuracy": test}}, "memory": memory}
    summary |= {"parameters_learnable": learnable, "parameters_total": 24058}
    return write_folder(root, config, layers, lines, summary)
