"""Names that other libraries give to keys: what their users type first."""

from collections.abc import Mapping, Sequence

# What it is here, as KEY, GROUP or KEY=VALUE: the names elsewhere. A name may stand in several lines.
NAMES_ELSEWHERE = {
    "batch_size": "batch bs batchsize minibatch train_batch_size",
    "dataset": "data",
    "dataset.imbalance": "imb_factor imbalance_factor imbalance_ratio imb_ratio",
    "dataset.imbalance_profile": "imb_type imbalance_type",
    "dataset.label_noise": "noise noise_rate noise_level label_noise_rate",
    "dataset.train_size": "subset size n_train num_train n_samples num_samples",
    "device": "gpu gpus cuda accelerator",
    "epochs": "num_epochs n_epochs max_epochs",
    "etf": "policy",
    "experiment_name": "name exp exp_name run_name",
    "hydra.launcher.jobs": "jobs n_jobs num_jobs",
    "hydra/launcher": "launcher",
    "metrics.every": "eval_every eval_interval",
    "metrics.suite": "metrics.metrics",
    "model": "arch architecture net network",
    "model.depth": "layers n_layers num_layers",
    "model.blocks": "layers n_layers num_layers",
    "model.heads": "n_heads num_heads",
    "model.patch": "patch_size",
    "model.width": "hidden_size hidden_dim hidden d_model embed_dim",
    "optimizer": "opt optim",
    "optimizer.lr": "learning_rate",
    "optimizer.weight_decay": "wd",
    "output_root": "output_dir out_dir out output outdir",
    "precision=bf16": "amp fp16 bf16 mixed_precision",
    "precision=float64": "float64 fp64 double",
    "schedule": "scheduler lr_scheduler",
    "seed": "random_seed random_state",
    "tracker=wandb": "wandb use_wandb",
}
# Names elsewhere of what is not here, and why.
NOT_HERE = dict.fromkeys(
    ("num_workers", "n_workers", "workers", "pin_memory"),
    "leave it out: the data lie in the memory of the device, and no process loads them",
)


def named_elsewhere(name: str, keys: Mapping[str, Sequence[str]], chosen: Mapping[str, str]) -> str | None:
    """What a name of other libraries is here: of several keys the one that the chosen option of its group has.

    Args:
        name: such as learning_rate.
        keys: key -> the options of its group that have it.
        chosen: group -> option.

    >>> keys = {"model.depth": ["mlp"], "model.blocks": ["vit"]}
    >>> [named_elsewhere("n_layers", keys, {"model": model}) for model in ("mlp", "vit")]
    ['model.depth', 'model.blocks']
    """
    found = [here for here, names in NAMES_ELSEWHERE.items() if name in names.split()]
    fitting = [here for here in found if chosen.get(here.partition(".")[0]) in keys.get(here, ())]
    return next(iter([*fitting, *found]), None)
