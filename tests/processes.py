"""What the processes of a world do for test_distributed.py: `torchrun tests/processes.py FOLDER BROKEN`.

Every process leaves what it found in FOLDER/RANK.pt. Two of them finish the run in BROKEN; of three, the last dies at
the end."""

import os
import signal
import sys
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from conftest import TINY, TINY_MODELS, composed
from run_folders import ADAPTIVE
from torch import distributed

from nclab.bench.by_hand import feed, learner
from nclab.data import Dataset, load_dataset
from nclab.etf import POLICIES, ETFPolicy
from nclab.etf.policies.nearest import Nearest, NearestSettings
from nclab.etf.policies.none import NoPolicy
from nclab.etf.policy import PolicySettings, site_seed
from nclab.interfaces.batch import Output
from nclab.models import MODELS
from nclab.models.cnn import CNNSettings
from nclab.models.mlp import MLPSettings
from nclab.models.resnet import ResNetSettings
from nclab.models.vit import ViTSettings
from nclab.papers.depth.parts.rn import RNSettings
from nclab.parallel.global_norm import globalize
from nclab.parallel.group import ProcessGroup, joined
from nclab.run.execute import train
from nclab.system.signals import Stopped
from nclab.training.evaluate import MetricsSettings, evaluate, refreshed, scores
from nclab.training.objective import CROSS_ENTROPY, MeanSquaredError, MSESettings
from nclab.training.step import train_epoch

VIT = ("model=vit", "etf=transformer_ffn", "etf.blocks=last1", "optimizer=adamw", "optimizer.lr=0.003")
CURVES = {  # metrics.batch_size=70: two, two and one batch of one, two and three processes
    "adaptive": (*ADAPTIVE, "dataset.train_size=201", "metrics.batch_size=70", "epochs=4"),
    "crop_flip": ("dataset.augment=crop_flip", "dataset.train_size=201", "etf=last_k", "etf.k=2"),
    "vit": (*VIT, "dataset.train_size=202", "dataset.augment=crop_flip", "metrics.memory_gib=0"),
    "nearest": ("etf=nearest", "dataset.train_size=201", "metrics.batch_size=70", "epochs=3"),
    "replay": ("phases=tasks", "phases.count=2", "sampler=replay", "sampler.share=0.3", "batch_size=35", "epochs=4"),
    "bf16": ("precision=bf16", "epochs=1", "metrics.every=0", "dataset.label_noise=0.4"),
    "long_tail": (
        "dataset.imbalance=8",
        "dataset.train_size=201",
        "sampler=class_balanced",
        "metrics.suite=[collapse,long_tail]",
        "metrics.batch_size=70",
    ),
    "float64": ("precision=float64", "etf=last_k", "etf.k=1", "metrics.suite=[collapse,spectra]"),
}


@dataclass
class EveryStep(PolicySettings):
    """Of a policy that sets layers at every step; under the name of one that does not, whose builder it replaces."""


class EveryStepPolicy(ETFPolicy):
    def after_step(self, model, batch, out, step):
        raise AssertionError("trained")


def build_policy(settings):
    return (EveryStepPolicy if isinstance(settings, EveryStep) else NoPolicy)(settings)


REFUSED = {
    "compile=true trains with one process": {"compile": True},
    "processes takes the GPU of its LOCAL_RANK: expected device auto, cuda or cpu, got cuda:0": {"device": "cuda:0"},
    "batch_size must be at most 202, the train split; got 203": {"batch_size": 203},
    "etf=none sets layers at every step by the batch, of which each process sees a part": {"etf": EveryStep()},
}
COMMAND = (  # a run of some seconds
    "dataset.train_size=200",
    "dataset.test_size=100",
    "batch_size=10",
    "threads=1",
    "epochs=20",
    "metrics.every=10",
    "model.width=50",
    "etf=last_k",
    "dataset.augment=crop_flip",
    "checkpoint_seconds=0.3",
)
STOPPED = ("etf=last_k", "etf.k=1", "dataset.augment=crop_flip", "metrics.batch_size=30")


def config(root, *overrides):
    model = next((o for o in overrides if o in TINY_MODELS), "model=mlp")
    short = ("epochs=2", "batch_size=50", "dataset.train_size=202", f"output_root={root}", "checkpoint_seconds=1000")
    overrides = {o.split("=")[0]: o for o in (*TINY, *TINY_MODELS[model], *short, *overrides)}  # the last counts
    return composed(*overrides.values())


def sorted_digits():
    """Sorted by label: every process lacks classes; 202 + 100 samples: uneven shares."""
    whole = load_dataset(composed(*TINY, "dataset.train_size=202").dataset, ".")
    splits = {name: split[split.targets.argsort()] for name, split in whole.splits.items()}
    return Dataset(splits, whole.targets, whole.shape, whole.pixel_max)


def trained(dataset, settings, world, loss, policy=None):
    """Two epochs of SGD in float64, where no rounding hides a mistake. 202 = 5 x 40 + 2: a third process has nothing of
    the last batch."""
    torch.manual_seed(0)
    model = MODELS[settings.name].build(settings, dataset.shape, dataset.targets.dim).double()
    globalize(model, world)
    if policy:
        policy.setup(model, 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    seeds = (site_seed(0, "order"), site_seed(0, "augment"))
    one = learner(model, optimizer, loss, lambda x: Output(*model(x.double())), policy)
    data = feed(dataset, 40, seeds, world)
    losses = [train_epoch(one, data) for _ in range(2)]
    return model, losses


def measured(world):
    """Weights and all that is measured of them, of one process or of a world."""
    data, found = sorted_digits(), {}
    penalised = MeanSquaredError(MSESettings(l2=0.02, l2_skip="head_bias"))
    for name, settings, loss, *policy in (
        ("mlp", MLPSettings(depth=4, width=24), CROSS_ENTROPY),
        ("vit", ViTSettings(width=24, heads=2, ratio=2), CROSS_ENTROPY),
        ("rn", RNSettings(blocks=2, width=24, maps=2), penalised),
        ("cnn", CNNSettings(channels=[4, 12], tau=5.0), CROSS_ENTROPY, Nearest(NearestSettings())),
        ("resnet", ResNetSettings(depth=8, width=4, stem="cifar", features="classes"), CROSS_ENTROPY),
        ("nearest", MLPSettings(depth=4, width=24), CROSS_ENTROPY, Nearest(NearestSettings())),
    ):
        model, losses = trained(data, settings, world, loss, *policy)
        found[f"{name}/losses"] = torch.tensor(losses)
        found |= {f"{name}/{key}": value.clone() for key, value in model.state_dict().items()}
        exact = _Exact(data)
        for memory in (0.0, 1.0):
            values = evaluate(
                model, exact, MetricsSettings(batch_size=33, memory_gib=memory), world=world, objective=loss
            ).values
            found |= {
                f"{name}/{memory}/{split}/{layer}/{metric}": torch.tensor(value, dtype=torch.float64)
                for split, layers in values.items()
                for layer, metrics in layers.items()
                for metric, value in metrics.items()
            }
        found[f"{name}/accuracy"] = torch.tensor(scores(model, exact, data.splits["test"], 33, world=world)["accuracy"])
        fresh = refreshed(model, exact, 40, world)
        found |= {f"{name}/refreshed/{key}": value.clone() for key, value in fresh.state_dict().items()}
    return found


class _Exact:
    """A dataset whose images a float64 network sees."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __getattr__(self, name):
        return getattr(self.dataset, name)

    def inputs(self, images, *_):
        return self.dataset.inputs(images).double()


class AskedOnce:
    """The process of this rank alone gets a signal, at its n-th look for one."""

    def __init__(self, rank, at, number=signal.SIGTERM):
        self.rank, self.at, self.number, self.count = rank, at, number, 0

    def __enter__(self):
        start = ProcessGroup.start_most

        def counted(world, number):
            self.count += 1
            if self.count == self.at and world.rank == self.rank:
                os.kill(os.getpid(), self.number)
                number = self.number
            return start(world, number)

        self.start, ProcessGroup.start_most = start, counted
        return self

    def __exit__(self, *_):
        ProcessGroup.start_most = self.start


def at(root, run):
    """The same run elsewhere."""
    return replace(deepcopy(run), output_root=str(root))


def stopped_and_resumed(root, run, world):
    """A run whose last process is asked to stop while it measures, and another while it trains; how often they
    stopped."""
    with AskedOnce(0, -1) as count:
        train(at(root / "whole", run))
    stops = 0
    for moment in (1, count.count // 2):
        with AskedOnce(world.size - 1, moment):
            try:
                train(at(root / f"at{moment}", run))
            except Stopped:
                stops += 1
        train(at(root / f"at{moment}", run))
    return stops


def said(call):
    """The error of `call`, as text."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def main(out: Path, broken: Path) -> None:
    distributed.init_process_group("gloo")
    POLICIES._entries["none"] = replace(POLICIES["none"], build=build_policy)
    found = {}
    with joined() as world:
        found["measured"] = measured(world)
        for name in CURVES if world.size == 2 else ("adaptive",):
            train(config(out / "curves" / name, *CURVES[name]))
        run = config(out, *STOPPED)
        if world.size == 2:
            command = composed(*COMMAND)
            train(at(out / "command", command))
            train(at(broken, command))
        else:
            found["stops"] = stopped_and_resumed(out / "stops", run, world)
        found["refused"] = {
            text: said(lambda wrong=wrong: train(replace(at(out / "no", run), **wrong)))
            for text, wrong in REFUSED.items()
        }

        def only_second():
            with world.raise_everywhere():
                if world.rank == 1:
                    raise FileNotFoundError("no data here")

        def only_first():
            raise OSError(28, "No space left", "there")

        found["agreed"], found["told"] = said(only_second), said(lambda: world.broadcast_call(only_first))
        found["value"] = world.broadcast_call(lambda: world.rank + 7)
        if world.size == 3:
            torch.save(found, out / f"{world.rank}.pt")
            with AskedOnce(2, 9, signal.SIGKILL):
                found["died"] = said(lambda: train(at(out / "died", run)))
    torch.save(found, out / f"{world.rank}.pt")
    os._exit(0)  # as nclab-train does where a process is gone


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*map(Path, sys.argv[1:]))
