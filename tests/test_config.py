"""Composition and checks: every group of conf/, names of runs, and what is refused before any work."""

import pytest
import torch
from conftest import composed
from omegaconf import OmegaConf

from nclab.config.options import defaults
from nclab.config.place import CONF
from nclab.config.schema import ConfigError, resolve_machine, typed
from nclab.config.stored import to_yaml
from nclab.data import DATASETS
from nclab.etf import POLICIES
from nclab.models import MODELS
from nclab.run.execute import train
from nclab.runfolder.tracker import TRACKERS
from nclab.system.machine import free_cores, memory_bytes
from nclab.training.optim import OPTIMIZERS, SCHEDULES

GROUPS = ("dataset", "model", "etf", "optimizer", "schedule", "tracker", "experiment")
OPTIONS = [f"{group}={file.stem}" for group in GROUPS for file in sorted((CONF / group).glob("*.yaml"))]


def asked(option):
    """Keys of the option that have no default."""
    node = OmegaConf.load(CONF / f"{option.replace('=', '/')}.yaml")
    return {key: "own" for key in node if OmegaConf.is_missing(node, key)}


def complete(option):
    group = option.split("=")[0]
    return composed(option, *(f"{group}.{key}={value}" for key, value in asked(option).items()))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_shipped_option_composes_to_a_checked_configuration(option):
    group, name = option.split("=")
    config = complete(option)
    if group != "experiment":
        assert getattr(config, group).name == name


@pytest.mark.parametrize("option", [o for o in OPTIONS if not o.startswith("experiment")])
def test_yaml_holds_every_key_of_its_schema_at_the_schemas_default(option):
    group, name = option.split("=")
    node = OmegaConf.load(CONF / group / f"{name}.yaml")
    schema = type(getattr(complete(option), group))
    assert {**OmegaConf.to_container(node), **asked(option)} == {**defaults(name, schema), **asked(option)}


@pytest.mark.parametrize(
    ("registry", "group"),
    [
        (DATASETS, "dataset"),
        (MODELS, "model"),
        (POLICIES, "etf"),
        (OPTIMIZERS, "optimizer"),
        (SCHEDULES, "schedule"),
        (TRACKERS, "tracker"),
    ],
)
def test_registry_and_conf_hold_the_same_names(registry, group):
    """But for the parts of wings, which compose from their settings."""
    of_core = [name for name in registry.names() if not registry[name].build.__module__.startswith("nclab.papers.")]
    assert of_core == sorted(p.stem for p in (CONF / group).glob("*.yaml"))


@pytest.mark.fast
def test_figure1_is_the_papers_setting():
    c = composed("experiment=simplex_etf/figure1")
    assert (c.model.depth, c.model.width, c.model.norm, c.epochs, c.batch_size) == (5, 400, "batch", 400, 128)
    o = c.optimizer
    assert (o.name, o.lr, o.momentum, o.weight_decay) == ("sgd", 0.01, 0.9, 5e-4)
    assert (c.schedule.milestones, c.schedule.gamma) == ([60, 120, 160], 0.1)
    assert (c.dataset.name, c.dataset.augment, c.metrics.probe) == ("fashion_mnist", "none", "linear")
    assert composed("experiment=simplex_etf/figure2").etf.name == "adaptive"


@pytest.mark.fast
def test_name_is_a_function_of_what_the_run_is():
    name = composed("epochs=9").run_name
    assert name.startswith("digits-mlp5x400-none-e9-s0-")
    same = (
        "device=cpu",
        "threads=1",
        "tracker=wandb",
        "output_root=x",
        "overwrite=true",
        "deterministic=true",
        "tf32=true",
        "compile=true",
        "seeds=[1,2]",
    )
    assert all(composed("epochs=9", other).run_name == name for other in same)
    different = (
        "seed=1",
        "optimizer.lr=0.02",
        "metrics.every=2",
        "schedule=cosine",
        "dataset.train_size=500",
        "precision=bf16",
    )
    names = {composed("epochs=9", other).run_name for other in different}
    assert len(names) == len(different)
    assert name not in names


@pytest.mark.parametrize(
    "overrides",
    [
        ["etf=none"],
        ["etf=last_k"],
        ["etf=adaptive"],
        ["etf=last_k", "etf.kind=frozen"],
        ["model=vit", "etf=transformer_ffn", "etf.blocks=[1,3]"],
    ],
)
def test_a_stored_configuration_reads_back_as_the_same_run(overrides):
    config = composed("schedule=cosine", "optimizer=adamw", "tracker=wandb", *overrides)
    assert typed(OmegaConf.create(to_yaml(config))) == config


@pytest.mark.parametrize(
    ("group", "key", "message"),
    [
        ("model", "heads", "unknown key 'model.heads' of model=mlp; valid: depth, width"),
        ("etf", "k", "unknown key 'etf.k' of etf=none; valid: none"),
    ],
)
def test_a_stored_configuration_with_a_key_too_many_is_refused(group, key, message):
    tree = OmegaConf.create(to_yaml(composed()))
    tree[group][key] = 4
    with pytest.raises(ConfigError, match=message):
        typed(tree)


def test_every_seed_of_several_is_stored_as_its_single_run():
    config = composed("seeds=[3,4]", "optimizer=adamw")
    assert [config.of_seed(s) for s in config.seeds] == [composed(f"seed={s}", "optimizer=adamw") for s in (3, 4)]
    assert to_yaml(config) == to_yaml(composed("optimizer=adamw"))
    one = config.of_seed(3)
    one.optimizer.betas.append(0.5)
    assert len(config.optimizer.betas) == 2


@pytest.mark.fast
def test_adaptive_starts_after_a_third():
    assert composed("etf=adaptive", "epochs=30").etf.start == 10
    assert composed("etf=adaptive", "epochs=30", "etf.start=4").etf.start == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+model.heads=4"], "unknown key 'model.heads' of model=mlp; choose one of model=tf, vit"),
        (["etf=none", "+etf.k=2"], "unknown key 'etf.k' of etf=none; choose one of etf=clock, last_k"),
        (["epochs=many"], "epochs: .*expected int"),
        (["model.width=wide"], "model.width: .*expected int"),
        (["optimizer.nesterov=3.7"], "optimizer.nesterov"),
        (["schedule=multistep", "schedule.milestones=[1,x]"], "schedule.milestones"),
        (["model.name=forest"], "unknown model 'forest'; .*mlp, resnet, rn, .*tf, unconstrained, vgg, vit"),
        (["seeds=[]"], r"seeds must be distinct numbers between 0 and .*, such as \[0,1,2\]; got \[\]"),
        (["seeds=[0,-1]"], r"seeds must be distinct numbers between 0 .*got \[0, -1\]"),
        (["seeds=[9223372036854775808]"], "seeds must be distinct numbers between 0 and"),
        (["seeds=[0,x]"], "seeds.*expected list"),
        (["seeds=3"], "seeds.*expected list"),
        (["optimizer.lr=-1"], "optimizer.lr must be above 0"),
        (["etf=adaptive", "epochs=6", "etf.patience=50"], "could never switch: .*none before 50"),
        (["etf=adaptive", "epochs=20", "metrics.every=7", "etf.start=15"], "last decision is after epoch 14"),
        (["etf=last_k", "etf.kind=frozen", "etf.frame=canonical"], "etf.frame has no effect with etf.kind=frozen"),
        (["etf=adaptive", "etf.kind=frozen", "etf.classifier_scale=2"], "etf.classifier_scale has no effect"),
        (["etf=transformer_ffn", "etf.kind=frozen", "etf.in_scale=2"], "etf.in_scale has no effect"),
        (["etf=transformer_ffn", "etf.blocks=some"], r"etf.blocks must be all, firstN, lastN or a list .*got some"),
        (["etf=transformer_ffn", "etf.blocks=last0"], "etf.blocks must be all"),
        (["etf=transformer_ffn", "etf.blocks=[0]"], "etf.blocks must be all"),
        (["etf=transformer_ffn", "etf.blocks=[]"], "etf.blocks must be all"),
        (["device=meta"], "unknown device 'meta'; valid: auto, cpu, cuda, cuda:N"),
        (["tracker=wandb", "tracker.timeout=-3"], "tracker.timeout must be above 0"),
        (["etf=adaptive", "etf.frame=haar"], "unknown etf.frame 'haar'; did you mean hadamard"),
    ],
)
def test_wrong_configuration_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        composed(*overrides)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["etf=last_k", "etf.k=5"], r"etf.k must be between 1 and 4, .*\(fc1, fc2, fc3, fc4\); got 5"),
        (["dataset.train_size=5"], "train split: expected images of every class, got none of class"),
        (["resume=nowhere"], "resume must name a run folder"),
    ],
)
def test_impossible_combinations_stop_before_anything_is_written(tiny, tmp_path, overrides, message):
    root = tmp_path / "out"
    with pytest.raises(ConfigError, match=message):
        train(tiny(*overrides, root=root))
    assert not root.exists()


def test_free_cores_respect_the_share_of_a_container(monkeypatch, tmp_path):
    everything = free_cores()
    for text, cores in (("max 100000", everything), ("100000 100000", 1), ("50000 100000", 1), ("9900000 100000", 99)):
        (tmp_path / "cpu.max").write_text(text)
        monkeypatch.setattr("nclab.system.machine.CPU_SHARE", tmp_path / "cpu.max")
        assert free_cores() == min(everything, cores)


def test_memory_is_the_share_of_a_container(monkeypatch, tmp_path):
    everything = memory_bytes()
    for text, share in (("max\n", everything), ("1048576\n", 2**20), (f"{2**60}\n", everything)):
        (tmp_path / "memory.max").write_text(text)
        monkeypatch.setattr("nclab.system.machine.MEMORY_SHARE", tmp_path / "memory.max")
        assert memory_bytes() == min(everything, share)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_an_absent_gpu_is_named():
    with pytest.raises(ConfigError, match="device 'cuda' cannot be used"):
        resolve_machine(composed("device=cuda"))
