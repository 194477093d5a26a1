"""Run folders of long-tailed training as it writes them: numbers that follow from class, seed and method."""

from fake_folder import write_folder

ALIGN = {"name": "align", "strategy": "slerp", "amount": 0.3, "every": 2, "equal_norms": False}
FIXED = {"name": "last_k", "k": 1, "kind": "etf", "bias": False}
ORTHOGONAL = FIXED | {"kind": "orthogonal"}
CENTRES = {"name": "multi_center", "centres": 20, "theta": 0.2, "length": 6e-4, "allocation": "class_aware",
           "weights": "sum", "scale": "own"}  # fmt: skip
EQUAL = {"weights": "equal", "scale": "class_aware"}
CE = {"name": "cross_entropy", "l2": 0.0}
METHODS = {  # loss, etf, sampler
    "cross-entropy": (CE, {"name": "none"}, "shuffled"),
    "class-balanced sampling": (CE, {"name": "none"}, "class_balanced"),
    "logit adjustment": ({"name": "logit_adjusted", "temperature": 1.0}, {"name": "none"}, "shuffled"),
    "fixed ETF, dot regression": ({"name": "dot_regression"}, FIXED, "shuffled"),
    **{
        name: (CENTRES | keys, ORTHOGONAL, "shuffled")
        for name, keys in {
            "AL": {"allocation": "equal"},
            "CAL": {},
            "AL at CAL's scale": {"allocation": "equal", **EQUAL},
            "AL, CAL's class weights": {"allocation": "equal", "weights": "class_aware"},
            "CAL, equal class weights": EQUAL,
            "CAL, mean over centres": {"weights": "mean", "scale": "class_aware"},
            "CAL, reversed": {"allocation": "reversed", "scale": "class_aware"},
        }.items()
    },
    "slerp": (CE, ALIGN, "shuffled"),
    "slerp, equal norms": (CE, ALIGN | {"equal_norms": True}, "shuffled"),
    "proj": (CE, ALIGN | {"strategy": "proj", "amount": 1.0}, "shuffled"),
    "reg": (CE, ALIGN | {"strategy": "reg", "amount": 0.1}, "shuffled"),
    "equal norms alone": (CE, ALIGN | {"amount": 0.0, "equal_norms": True}, "shuffled"),
}


def write_tail_run(root, method="cross-entropy", seed=0, imbalance=100.0, shift=0.0, epochs=10, classes=6, **model):
    """Test accuracy of class c is 0.9 - 0.1 c + shift - 0.01 seed, the cosine of its mean and row 0.95 - 0.05 c, the
    length of the row 1 + (2.5 - c) / 10; a tail cosine is 0.4, a head cosine 0.1. Rows of equal length gain 0.02, with
    slerp 0.03, with a projection 0.01."""
    loss, etf, sampler = METHODS[method]
    config = {
        "experiment_name": "long_tail",
        "seed": seed,
        "epochs": epochs,
        "dataset": {"name": "fashion_mnist", "train_size": 3000, "imbalance": imbalance},
        "model": {"name": "mlp", "depth": 4, "width": 256, "head_norm": "batch"} | model,
        "loss": loss,
        "etf": etf,
        "sampler": {"name": sampler},
        "metrics": {"every": 5, "probe": "linear", "suite": ["collapse", "long_tail", "post_hoc"]},
    }
    accuracy = [0.9 - 0.1 * c + shift - 0.01 * seed for c in range(classes)]
    groups = {"balanced": accuracy, "head": accuracy[:2], "middle": accuracy[2:4], "tail": accuracy[4:]}
    test = {f"{name}_accuracy": sum(own) / len(own) for name, own in groups.items()}
    test |= {f"class_accuracy_{c}": own for c, own in enumerate(accuracy)}
    gains = {"equal": 0.02, "slerp": 0.01, "slerp_equal": 0.03, "proj": 0.0, "proj_equal": 0.01}
    for name, gain in gains.items():
        test |= {
            f"post_hoc_{name}": test["balanced_accuracy"] + gain,
            f"post_hoc_tail_{name}": test["tail_accuracy"] + gain,
        }
    layer = {"nc1": 0.2, "nc1_balanced": 0.3, "nc1_unbalanced": 0.1, "row_cosine": 0.825, "nc2_means_orthogonal": 0.5}
    layer |= {"tail_row_cosine": 0.4, "head_row_cosine": 0.1, "tail_mean_cosine": 0.2, "head_mean_cosine": 0.0}
    layer |= {f"row_cosine_{c}": 0.95 - 0.05 * c for c in range(classes)}
    layer |= {f"row_norm_{c}": 1 + (2.5 - c) / 10 for c in range(classes)}
    train = {"accuracy": 0.99, "loss": 0.1} | ({"centre_cosine": 0.97} if loss["name"] == "multi_center" else {})
    lines = []
    for epoch in (0, epochs):
        lines += [f"{epoch},test,network,{name},{value!r}" for name, value in test.items()]
        lines += [f"{epoch},train,network,{name},{value!r}" for name, value in train.items()]
        lines += [f"{epoch},train,normed,{name},{value!r}" for name, value in layer.items()]
    layers = [
        {"layer": "fc3", "role": "hidden", "site": "fc3", "stage": ["fc3"]},
        {"layer": "normed", "role": "classifier_input", "site": None, "stage": None},
        {"layer": "fc4", "role": "classifier", "site": "fc4", "stage": ["fc4"]},
    ]
    final = {"train": {"accuracy": 0.99}, "test": {"accuracy": test["balanced_accuracy"]}}
    return write_folder(root, config, layers, lines, {"final": final})
