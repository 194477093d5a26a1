"""Run folders over three tasks as training writes them, with accuracies that are stated."""

from fake_folder import write_folder

TASKS, EACH, LAYER = 3, 4, "act2"  # epochs a task
TAUGHT = 0.98  # accuracy of network and probe on a task at its end
OF_TASKS = {
    "name": "tasks",
    "count": TASKS,
    "classes": None,
    "permute": True,
    "optimizer": "restart",
    "schedule": "restart",
}
GEOMETRY = {
    "past_nc1": 0.8,
    "memory_nc1": 0.2,
    "control_nc1": 0.6,
    "memory_norm_ratio": 1.25,
    "control_norm_ratio": 1.1,
    "past_snr": 10.0,
    "past_snr_in_span": 4.0,
    "past_snr_orthogonal": 6.0,
    "past_mean_in_span": 0.25,
    "past_spread_in_span": 0.5,
    "past_rank": 3.0,
    "seen_rank": 5.0,
}


def write_task_run(
    root, share=0.05, seed=0, shallow=0.3, deep=0.05, incremental="class", lr=0.1, present=1.0, **geometry
):
    """A run whose accuracy on every task falls by `shallow` (of the network) and `deep` (of the probe) with each later
    task; `share` None: joint training, with an error of 0.02 and 0.01. What it has of GEOMETRY is that of the end; in
    its first task there is nothing to measure. The last task has a train accuracy of `present`."""
    joint = share is None
    config = {
        "experiment_name": "continual",
        "seed": seed,
        "epochs": TASKS * EACH,
        "dataset": {"name": "fashion_mnist", "train_size": 4000, "test_size": 2000, "label_noise": 0.0},
        "model": {"name": "mlp", "depth": 3, "width": 64},
        "optimizer": {"name": "sgd", "lr": lr, "weight_decay": 1e-4},
        "loss": {"name": "cross_entropy", "l2": 0.0},
        "metrics": {"every": EACH, "probe": "linear", "suite": ["collapse", "seen_probe", "past"]},
        "etf": {"name": "none"},
        "phases": {"name": "single"} if joint else OF_TASKS | {"incremental": incremental},
        "sampler": {"name": "shuffled"} if joint else {"name": "replay", "share": share, "size": None},
    }
    lines = []
    for after in range(1, TASKS + 1):
        epoch = after * EACH
        for task in range(1, TASKS + 1):
            late = after - task
            network = max(0.0, TAUGHT - shallow * late) if late >= 0 else 0.0
            probe = max(0.0, TAUGHT - deep * late) if late >= 0 else 0.0
            lines += [] if joint else [
                f"{epoch},task{task},{LAYER},seen_probe_accuracy,{probe!r}",
                f"{epoch},task{task},network,accuracy,{network!r}",
            ]  # fmt: skip
        own = GEOMETRY | geometry
        lines += [
            f"{epoch},train,{LAYER},{name},{value if after == TASKS else float('nan')!r}" for name, value in own.items()
        ]
        lines += [f"{epoch},train,network,present_accuracy,{present if after == TASKS else 1.0!r}"]
        lines += [f"{epoch},test,{LAYER},seen_probe_accuracy,0.99", f"{epoch},test,network,accuracy,0.98"]
    layers = [
        {"layer": LAYER, "role": "classifier_input", "site": None, "stage": []},
        {"layer": "fc3", "role": "classifier", "site": "fc3", "stage": ["fc3"]},
    ]
    return write_folder(root, config, layers, lines, {"final": {"train": {"accuracy": 0.9}, "test": {"accuracy": 0.9}}})
