"""Run folders of networks on source classes as training writes them: numbers that follow the swept key."""

from fake_folder import write_folder

KNOBS = {"l2": ("loss", "l2"), "lr": ("optimizer", "lr"), "complexity": ("loss", "complexity")}


def write_transfer_run(
    root,
    split=0,
    seed=0,
    end=30,
    complexity=10.0,
    few=0.6,
    source=0.1,
    target=1.0,
    reached=True,
    stop=0.05,
    loss=0.04,
    **knobs,
):
    """A run that ended in epoch `end` of 300 at complexity `complexity`, reached from twice of it as a power of the
    epoch; geometric collapse is a hundredth of it. Its running loss ends at 0.04, its train loss at `loss`."""
    config = {
        "experiment_name": "transfer" if stop else "transfer_fixed_length",
        "seed": seed,
        "epochs": 300 if stop else end,
        "stop_at_loss": stop,
        "batch_size": knobs.get("batch", 64),
        "dataset": {
            "name": "fashion_mnist",
            "train_size": 2000,
            "label_noise": 0.0,
            "source_classes": 6,
            "class_split": split,
            "source_list": None,
        },
        "model": {"name": "mlp", "depth": 4, "width": 128, "norm": "none"},
        "optimizer": {"name": "sgd", "lr": knobs.get("lr", 0.05), "weight_decay": 0.0},
        "loss": {"name": "cross_entropy", "l2": knobs.get("l2", 1e-4), "complexity": knobs.get("penalty", 0.0)},
        "metrics": {"every": 10, "probe": "linear", "suite": ["collapse", "complexity", "few_shot"]},
        "etf": {"name": "none"},
    }
    lines = []
    for epoch in sorted({0, *range(10, end, 10), end}):
        at = max(epoch, 1)
        own = {
            "geometric_complexity": complexity * (2 - at / end),
            "geometric_collapse": complexity * (2 - at / end) / 100,
            "cdnv": source,
            "target_cdnv": target,
            "few_shot_accuracy_1": few - 0.1,
            "few_shot_accuracy_5": few,
            "target_linear_accuracy": 0.75,
        }
        lines += [f"{epoch},train,act3,{name},{float(value)!r}" for name, value in own.items()]
        losses = {"loss": loss + (1 - at / end), "running_loss": 0.04 + (1 - at / end)}
        lines += [f"{epoch},train,network,{name},{value!r}" for name, value in losses.items()]
        lines += [f"{epoch},{name},network,accuracy,0.9" for name in ("train", "test")]
    layers = [
        {"layer": "fc1", "role": "hidden", "site": "fc1", "stage": ["fc1"]},
        {"layer": "act3", "role": "classifier_input", "site": None, "stage": None},
        {"layer": "fc4", "role": "classifier", "site": "fc4", "stage": ["fc4"]},
    ]
    summary = {"final": {"train": {"accuracy": 0.99}, "test": {"accuracy": 0.9}}, "epochs": end}
    if stop:
        summary["ended_by"] = "stop_at_loss" if reached else "epochs"
    return write_folder(root, config, layers, lines, summary)
