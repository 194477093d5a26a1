"""Which keys of a configuration make a run what it is: imported by the typed schema and, as it is torch-free, by
analysis/. Keys in groups are dotted."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

# Keys that say where and how a run is executed, not what it is: they leave its name alone.
MACHINE_KEYS = (
    "device",
    "threads",
    "deterministic",
    "tf32",
    "compile",
    "debug",
    "output_root",
    "data_root",
    "overwrite",
    "skip_invalid",
    "print_config",
    "checkpoint_seconds",
    "experiment_name",
    "tracker",
    "resume",
    "seeds",
    "dataset.download",  # whose files are the same ones
    "paper",
    "metrics.memory_gib",  # which pass makes the features changes no number
)
# Of these, the ones that bits may depend on: a resumed run keeps those it started with, but for those that are typed.
KEPT_ON_RESUME = ("device", "threads", "deterministic", "tf32", "compile")
# What may be typed beside resume=FOLDER, whose configuration lies in the folder: it makes no other run.
BESIDE_RESUME = (
    "resume",
    *KEPT_ON_RESUME,
    "checkpoint_seconds",
    "data_root",
    "metrics.memory_gib",
    "tracker",
    "overwrite",
    "debug",
    "print_config",
    "epochs",  # more of them are a longer run, in a folder of its own
)

# Keys and groups that came later, with the value that every run had before. A run with this value has the name that it
# had then, and a configuration stored then is read with it. The value stays as it is when a default changes.
LATER: dict[str, Any] = {
    "loss": {"name": "cross_entropy", "l2": 0.0, "l2_skip": "none"},
    "loss.l2_features": None,
    "loss.l2_biases": None,
    "loss.complexity": 0.0,
    "plugins": [],
    "sampler": {"name": "shuffled"},
    "phases": {"name": "single"},
    "metrics.suite": ["collapse"],
    "metrics.headline": None,
    "metrics.ood_dataset": None,
    "dataset.valid_size": None,
    "dataset.imbalance": None,
    "dataset.imbalance_profile": "exponential",
    "dataset.label_noise": 0.0,
    "dataset.source_classes": None,
    "dataset.class_split": 0,
    "dataset.source_list": None,
    "etf.bias": True,
    "stop_at_loss": None,
    "stop_loss": "running",
    "best": None,
    "best_mode": None,
    "stop_patience_epochs": None,
    "parent": None,
    "parent_epochs": None,
    "model.head_norm": "none",
}
# Of these the keys that came later to some options of their group alone, with their names.
LATER_OF = {"etf.bias": frozenset({"nearest"}), "model.head_norm": frozenset({"mlp", "cnn", "resnet", "vgg"})}

# Values of `debug` that make another run: a few batches, which show whether a run works and are no evidence.
TRIALS = ("fast", "overfit")

NAMED = re.compile(r"-s\d+-([0-9a-f]{8})$")  # how the name of a run folder ends: seed and hash

# Keys in which the runs of one figure may differ: what is averaged over, and where and how a run was executed. Longer
# runs of several seeds have a parent each, of as many epochs.
# Of `etf` see `nclab.analysis.runs.differences`.
AVERAGED = ("seed", "etf.name", "plugins", "parent", *MACHINE_KEYS)
MAY_DIFFER = re.compile(rf"({'|'.join(map(re.escape, AVERAGED))})(\..+)?$")

# Policies that never look at what is measured. In runs of every other, one of a plug-in too, `metrics.*` may have a say
# in training.
IGNORE_MEASURES = frozenset({"none", "last_k", "transformer_ffn", "clock", "nearest", "align"})


def is_trial(keys: dict[str, Any]) -> bool:
    """Whether a run is a trial (`TRIALS`), which no figure, claim or table may count."""
    return keys.get("debug") in TRIALS


def ends_early(keys: dict[str, Any]) -> bool:
    """Whether a run may end before the last of its `epochs`, which its summary then says by `ended_by`."""
    return is_trial(keys) or any(keys.get(key) is not None for key in ("stop_at_loss", "stop_patience_epochs"))


def without(tree: dict[str, Any], key: str) -> dict[str, Any]:
    """The tree without a dotted key.

    >>> without({"metrics": {"every": 1, "eps": 0.01}, "seed": 0}, "metrics.eps")
    {'metrics': {'every': 1}, 'seed': 0}
    """
    head, _, rest = key.partition(".")
    if not rest:
        return {name: value for name, value in tree.items() if name != head}
    return {**tree, head: without(tree[head], rest)} if isinstance(tree.get(head), dict) else tree


def identity(keys: dict[str, Any]) -> dict[str, Any]:
    """What a run is: of all its keys those that are not of the machine, nor came later and change nothing."""
    trial = {"debug": keys["debug"]} if is_trial(keys) else {}
    for key in MACHINE_KEYS:
        keys = without(keys, key)
    keys = keys | trial
    return before_later_keys(keys)


def digest(keys: dict[str, Any]) -> str:
    """The hash of the identity by which a run's folder is named: 8 hexadecimal digits."""
    return hashlib.sha256(json.dumps(identity(keys), sort_keys=True).encode()).hexdigest()[:8]


def not_of_its_folder(file: Path, keys: dict[str, Any]) -> str | None:
    """What is wrong with the keys of a config.yaml that was changed since its run began, None if nothing is. A folder
    that someone gave a name of another form cannot tell."""
    named = NAMED.search(file.parent.name)
    if named is None or named[1] == (found := digest(keys)):
        return None
    return (
        f"{file} was changed since its run began: expected the configuration with the hash {named[1]}, by which its "
        f"folder is named, got one with {found}; restore it, or give the folder the name of no run"
    )


def before_later_keys(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree without those of LATER that have the value of before, keys inside a group first.

    >>> before_later_keys({"seed": 0, "plugins": [], "loss": {"name": "mse", "l2": 0.0, "l2_skip": "none"}})
    {'seed': 0, 'loss': {'name': 'mse', 'l2': 0.0, 'l2_skip': 'none'}}
    """
    for key in sorted(LATER, key=lambda key: -key.count(".")):
        group, inner = _group_of(key, tree)
        if group is not None and inner in group and group[inner] == LATER[key]:
            tree = without(tree, key)
    return tree


def _group_of(key: str, tree: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """What holds a key of LATER in this tree, the tree itself or a group, and its name in there; None where there is no
    such group, or an option of it to which the key did not come."""
    name, _, inner = key.rpartition(".")
    group = tree.get(name) if name else tree
    there = isinstance(group, dict) and (key not in LATER_OF or group.get("name") in LATER_OF[key])
    return (group if there else None), inner


def with_later_keys(tree: dict[str, Any]) -> dict[str, Any]:
    """A stored configuration, with the keys and groups of LATER that it is too old to have.

    A key inside a group is filled in where the group is there, and one of LATER_OF in the options that have it.

    >>> stored = with_later_keys({"seed": 0, "loss": {"name": "mse"}})
    >>> stored["plugins"], stored["loss"]
    ([], {'complexity': 0.0, 'l2_biases': None, 'l2_features': None, 'name': 'mse'})
    """
    for key, value in sorted(LATER.items(), key=lambda item: item[0].count(".")):
        group, inner = _group_of(key, tree)
        if group is not None and inner not in group:
            name = key.rpartition(".")[0]
            tree = {**tree, name: {inner: value, **group}} if name else {inner: value, **tree}
    return tree
