"""Shared by all tests: one thread (busy machines) of torch and of BLAS, and runs composed from the real conf/."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# Before numpy and scipy load it. On a busy machine two threads wait for each other at every small product, which takes
# ten times the processor time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
import torch
from fake_slurm import FakeSlurm
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from nclab.config.composing import Composer, composing, run_config
from nclab.config.place import CONF
from nclab.config.schema import GROUPS, RunConfig, load_named
from nclab.interfaces import plugins
from nclab.interfaces.plugins import conf_folders
from nclab.metrics.suite import METRICS
from nclab.training.step import set_products

torch.set_num_threads(1)

# A shell without job control starts commands in the background with Ctrl-C ignored. So would be what the tests send,
# here and in the processes that they start, which inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored

TINY = (
    "dataset.train_size=200",
    "dataset.test_size=100",
    "optimizer.lr=0.05",
    "threads=1",
    "checkpoint_seconds=0",
)
TINY_MODELS = {
    "model=cnn": ("model.channels=[4,12]",),
    "model=mlp": ("model.depth=4", "model.width=24"),
    "model=resnet": ("model.depth=8", "model.width=4", "model.stem=cifar"),
    "model=rn": ("model.width=24",),
    "model=tf": ("model.width=24", "model.heads=2"),
    "model=vgg": ("model.depth=11", "model.width=2", "model.image_side=32"),
    "model=vit": ("model.width=24", "model.heads=2", "model.ratio=2"),
}


class OwnComposer(Composer):
    """Initialises Hydra only for what no line chose before, as that takes longer than all else."""

    def chosen(self, words: Sequence[str]) -> DictConfig:
        with composing(CONF):
            return super().chosen(words)


_composers: dict[tuple, OwnComposer] = {}  # by what is registered: plug-ins of a test are options in it alone


def composed(*overrides: str) -> RunConfig:
    """The checked configuration of a command line."""
    load_named([])
    entries = frozenset((group, *entry) for group, of in GROUPS.items() for entry in of._entries.items())
    return run_config(_composers.setdefault((entries, *conf_folders()), OwnComposer())(overrides))


@pytest.fixture
def own_products() -> Iterator[None]:
    """The precision of products that a test sets of the process is undone."""
    conv = torch.backends.cudnn.conv.fp32_precision
    yield
    set_products(tf32=False)
    torch.backends.cudnn.conv.fp32_precision = conv


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., RunConfig]:
    """tiny("etf=last_k", ...) -> configuration of a run on a few digits that takes a fraction of a second."""

    def make(*overrides: str, root: Path = tmp_path) -> RunConfig:
        model = next((o for o in overrides if o in TINY_MODELS), "model=mlp")
        return composed(*TINY, *TINY_MODELS[model], f"output_root={root}", "epochs=6", *overrides)

    return make


@pytest.fixture
def own_registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What plug-ins register during a test is forgotten after it."""
    with registries_of_their_own(monkeypatch):
        yield


@contextmanager
def registries_of_their_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is registered within is forgotten by Hydra, which is offered it, and, as monkeypatch undoes, by us."""
    modules, ours = set(sys.modules), {group: set(registry.names()) for group, registry in GROUPS.items()}
    for registry in (*GROUPS.values(), METRICS):
        registry.names()  # all of ours, before the copy
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(plugins, "_named", dict(plugins._named))
    yield
    for group, registry in GROUPS.items():
        for name in set(registry._entries) - ours[group]:
            ConfigStore.instance().repo.get(group, {}).pop(f"{name}.yaml", None)
    for name in set(sys.modules) - modules:
        if name in plugins._named:
            del sys.modules[name]  # so that it registers again where it is named again


@pytest.fixture
def without_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A PATH without squeue, whatever the machine has."""
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("bin")))


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    fake = FakeSlurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{fake.folder}:{os.environ['PATH']}")
    return fake
