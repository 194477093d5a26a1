"""The typed configuration of a run: what conf/ composes is checked here before any work is done.

Every group's schema is the settings dataclass that its entry registered, so this file knows no dataset, model or
policy by name.
"""

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import MISSING, asdict, dataclass, field, fields, make_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from nclab.config.checks import ConfigError, NeverValid, checked, config_error, literal
from nclab.config.endings import best_number, check_best, check_stop, debug_of
from nclab.config.keys import TRIALS, digest, identity
from nclab.data import DATASETS, DatasetSettings, data_root
from nclab.etf import POLICIES
from nclab.etf.policy import PolicySettings
from nclab.interfaces.plugins import PluginError, load_installed, load_plugins
from nclab.interfaces.registry import Registry
from nclab.interfaces.valid import OutOfRange, unknown
from nclab.models import MODELS, PROBES
from nclab.models.base import ModelSettings
from nclab.parallel.group import local_size
from nclab.runfolder.tracker import TRACKERS, TrackerSettings
from nclab.system.machine import MOST_THREADS, default_threads
from nclab.system.redact import redact, redacted
from nclab.system.words import at_home
from nclab.training.ending import Best
from nclab.training.evaluate import MetricsSettings
from nclab.training.objective import LOSSES, LossSettings
from nclab.training.optim import OPTIMIZERS, SCHEDULES, OptimizerSettings, ScheduleSettings, at_least
from nclab.training.phases import PHASES, PhasesSettings
from nclab.training.sampler import SAMPLERS, SamplerSettings
from nclab.training.step import PRECISIONS


# For keys that fall with another: loss.l2=${over:0.005,${model.blocks}}.
def _over(value: float, by: float) -> float:
    if not by:
        raise ValueError(f"${{over:{value},{by}}} divides by 0")
    return value / by


OmegaConf.register_new_resolver("over", _over, replace=True)

DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")
LARGEST = 2**31 - 1  # torch counts batches, and analysis/ epochs, in 32 bits
LONGEST_NAME = 255  # bytes of a folder's name


def choice(registry: Registry, default: str) -> dict[str, Any]:
    """What makes a field of RunConfig a group: that line, one in conf/train.yaml and, for a group that comes later, one
    in `keys.LATER` are all that a new group needs here."""

    def settings() -> Any:
        return registry[default].settings(name=default)

    return {"default_factory": settings, "metadata": {"registry": registry}}


def own_label(settings: ModelSettings | PolicySettings) -> str:
    """The label of the settings; with their name before it where they inherit the label of another entry."""
    owner = next(kind for kind in type(settings).__mro__ if {"label", "stem"} & vars(kind).keys())
    inherited = owner.__dataclass_fields__["name"].default != settings.name and settings.name not in settings.label
    return f"{settings.name}_{settings.label}" if inherited else settings.label


@dataclass
class RunConfig:
    """Everything a run is made of; the comments in conf/train.yaml explain the keys."""

    experiment_name: str = "main"  # folder below output_root
    seed: int = 0  # of the initial weights, the order of samples, augmentation and frames
    # [0,1,2] instead of seed: several runs in one process, as one batched model where that is faster
    seeds: list[int] | None = None
    epochs: int = 60  # passes over the train split
    # training ends before with the first epoch whose batches have at most this mean loss, without penalty; null: never
    stop_at_loss: float | None = None
    # which loss that is: running: the mean over the epoch's batches, while the weights move | evaluated: that of the
    # whole train split after the epoch, the loss of metrics.csv, which costs a forward pass an epoch
    stop_loss: str = "running"
    # the number of the network whose best epoch is kept as checkpoint.best.pt: split/metric, such as valid/accuracy
    best: str | None = None
    best_mode: str | None = None  # max: the largest is the best | min: the smallest
    # training ends before where the best epoch is so many epochs ago; null: never
    stop_patience_epochs: int | None = None
    batch_size: int | None = 128  # samples a step; null: the whole train split at once
    # float32 | bf16 (autocast, in training steps alone) | float64 (weights, inputs, steps and metrics: for theory)
    precision: str = "float32"
    device: str = "auto"  # auto | cpu | cuda | cuda:N
    # CPU threads; null: OMP_NUM_THREADS, else as many as this process may use, at most 4; with several runs on one
    # machine: 1
    threads: int | None = None
    deterministic: bool = False  # true: bit-identical on a GPU too, slower there; a CPU always is
    tf32: bool = False  # true: TF32 for the float32 matrix products of training on a GPU
    compile: bool = False  # true: training steps by torch.compile, on a GPU as CUDA graphs
    # true: tracebacks instead of one-line errors | fast: one epoch of two batches, to see whether a run works |
    # overfit: two batches again and again until they are fitted. fast and overfit make a run of its own, which no
    # figure or claim takes
    debug: bool | str = False
    print_config: bool = True  # a single run shows its configuration as a tree first; a sweep and seeds=[...] do not
    overwrite: bool = False  # true: start again, also a finished run
    # true: a sweep leaves out the runs that cannot be, and keys that an option has not
    skip_invalid: bool = False
    output_root: str = "outputs"  # folder of all experiments
    data_root: str | None = None  # folder of the datasets; null: $NCLAB_DATA, else data/
    checkpoint_seconds: float = 10.0  # least time between checkpoints; the last epoch and every switch are always saved
    resume: str | None = None  # a run folder: go on with the configuration in it, whatever conf/ says by now
    paper: str | None = None  # written by nclab-paper: the wing, profile and parts of the plan that this run belongs to
    # written by resume=FOLDER epochs=N: the run folder beside this one that it goes on from, and the epochs of that run
    parent: str | None = None
    parent_epochs: int | None = None  # written with parent
    # your modules, such as [my_package]: what they register is chosen like an option of conf/
    plugins: list[str] = field(default_factory=list)
    dataset: DatasetSettings = field(**choice(DATASETS, "digits"))  # what is learnt: images or texts
    model: ModelSettings = field(**choice(MODELS, "mlp"))  # the network
    etf: PolicySettings = field(**choice(POLICIES, "none"))  # which linear layers are fixed, and when
    loss: LossSettings = field(**choice(LOSSES, "cross_entropy"))  # what training minimises
    sampler: SamplerSettings = field(**choice(SAMPLERS, "shuffled"))  # the order of samples in an epoch
    phases: PhasesSettings = field(**choice(PHASES, "single"))  # what is trained on when
    optimizer: OptimizerSettings = field(**choice(OPTIMIZERS, "sgd"))  # how the weights follow the gradient
    schedule: ScheduleSettings = field(**choice(SCHEDULES, "constant"))  # the learning rate over epochs
    # what mirrors the run folder elsewhere; its failure never ends a run
    tracker: TrackerSettings = field(**choice(TRACKERS, "none"))
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    # No key, but the keys that were typed for this run: they win over those stored in its folder.
    explicit: frozenset[str] = field(default=frozenset(), repr=False, compare=False)

    def keys(self) -> dict[str, Any]:
        """All keys with their values, groups as dictionaries."""
        return {key: value for key, value in asdict(self).items() if key != "explicit"}

    def identity(self) -> dict[str, Any]:
        """What the run is: all keys but those of the machine, and those that came later where they change nothing."""
        return identity(self.keys())

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A process that is handed a run, such as a worker of a sweep, needs its plug-ins."""
        self.__dict__.update(state)
        load_plugins(self.plugins)

    @property
    def stem(self) -> str:
        """The readable choices but the seed."""
        trial = [f"debug_{self.trial}"] if self.trial else []
        return "-".join((self.dataset.name, own_label(self.model), own_label(self.etf), f"e{self.epochs}", *trial))

    @property
    def trial(self) -> str | None:
        """`fast` or `overfit`: a run of a few batches, which is no evidence."""
        return str(self.debug) if self.debug in TRIALS else None

    @property
    def best_number(self) -> Best | None:
        """The number by which the best epoch is found."""
        return best_number(self.best, self.best_mode, self.stop_patience_epochs)

    @property
    def tracebacks(self) -> bool:
        """Whether errors are shown as tracebacks."""
        return self.debug is True

    @property
    def run_name(self) -> str:
        """Readable choices and a hash of the identity; no time, no job number."""
        return f"{self.stem}-s{self.seed}-{digest(self.keys())}"

    def of_seed(self, seed: int) -> "RunConfig":
        """The same run with this seed: a copy that shares nothing."""
        return replace(deepcopy(self), seed=seed, seeds=None)

    @property
    def folder(self) -> Path:
        return Path(self.resume or Path(self.output_root) / self.experiment_name / self.run_name)


GROUPS: dict[str, Registry] = {f.name: f.metadata["registry"] for f in fields(RunConfig) if "registry" in f.metadata}


def typed(composed: Mapping[str, Any]) -> RunConfig:
    """The checked configuration, of keys and nodes. Raises ConfigError for unknown keys, wrong types and values out of
    range."""
    rest = {key: literal(value) for key, value in composed.items() if key not in GROUPS}  # resolved by items()
    measured = rest.pop("metrics", OmegaConf.create({}))
    if not isinstance(measured, DictConfig):
        raise ConfigError(f"metrics must be keys ({', '.join(vars(MetricsSettings()))}); got metrics={measured}")
    metrics = checked("metrics", MetricsSettings, measured)
    root = checked("", _root_schema(), OmegaConf.create(rest))
    load_named(root.plugins)
    groups = {}
    for group, registry in GROUPS.items():
        node = composed.get(group)
        if not isinstance(node, DictConfig) or not isinstance(node.get("name"), str):
            raise NeverValid(f"{group} must be one of {', '.join(registry.names())}; got {group}={node}")
        try:
            entry = registry[node.name]
        except KeyError as error:
            raise NeverValid(error.args[0]) from None
        groups[group] = checked(group, entry.settings, node)
    config = RunConfig(**vars(root), **groups, metrics=metrics)
    try:
        _check_values(config)
    except ConfigError:
        raise
    except ValueError as error:
        raise config_error(error) from None
    return config


@cache
def _root_schema() -> type:
    """RunConfig without its groups, as a dataclass that OmegaConf can check."""
    plain = [f for f in fields(RunConfig) if f.name not in (*GROUPS, "metrics", "explicit")]
    return make_dataclass(
        "Root",
        [
            (f.name, f.type, field(default_factory=f.default_factory) if f.default is MISSING else f.default)
            for f in plain
        ],
    )


def load_named(plugins: list[str], where: str = "plugins") -> None:
    """Import the plug-ins that a configuration names. Raises ConfigError for one that cannot be imported, also for an
    installed one."""
    try:
        load_plugins(plugins, where)
        load_installed()
    except PluginError as error:
        raise ConfigError(str(error)) from error.__cause__


def _check_values(c: RunConfig) -> None:
    if not 0 <= c.seed < 2**63:
        raise OutOfRange(f"seed must be between 0 and 2^63 - 1, got {c.seed}", "seed")
    if c.seeds is not None:
        if not c.seeds or len(set(c.seeds)) < len(c.seeds) or not all(0 <= seed < 2**63 for seed in c.seeds):
            raise ValueError(f"seeds must be distinct numbers between 0 and 2^63 - 1, such as [0,1,2]; got {c.seeds}")
        if c.resume is not None:
            raise ValueError(
                "resume=FOLDER goes on with one run; leave out seeds (the same command resumes them); "
                f"got resume={c.resume} and seeds={c.seeds}"
            )
    for key, least in (("epochs", 1), ("batch_size", 2), ("checkpoint_seconds", 0)):
        if getattr(c, key) is not None:
            at_least(key, getattr(c, key), least, most=LARGEST)
    for key, least in (("every", 0), ("eps", 0), ("batch_size", 1), ("memory_gib", 0)):
        at_least(f"metrics.{key}", getattr(c.metrics, key), least, most=LARGEST)
    check_stop(c.stop_at_loss, c.stop_loss)
    check_best(c.best, c.best_mode, c.stop_patience_epochs, c.metrics.every)
    if not c.metrics.eps < 1:
        raise OutOfRange(f"metrics.eps is an NCC error and must be below 1, got {c.metrics.eps}", "metrics.eps")
    c.debug = debug_of(c.debug)
    if not DEVICE.fullmatch(c.device):
        raise NeverValid(unknown("device", c.device, ("auto", "cpu", "cuda", "cuda:N")))
    if c.threads is not None:
        at_least("threads", c.threads, 1, most=MOST_THREADS)
    for key, value, valid in (("precision", c.precision, PRECISIONS), ("metrics.probe", c.metrics.probe, PROBES)):
        if value not in valid:
            raise NeverValid(unknown(key, value, valid))
    if c.tf32 and PRECISIONS[c.precision].floats == torch.float64:
        raise ValueError("tf32 has no effect with precision=float64; leave it out (got tf32=true)")
    for key in ("output_root", "data_root", "resume"):
        if getattr(c, key) is not None:
            setattr(c, key, at_home(getattr(c, key)))  # in quotes no shell expands it
    for key, name in (("experiment_name", c.experiment_name), ("parent", c.parent)):
        if name is not None and not _is_plain(name):
            raise ValueError(f"{key} must be a plain folder name, got {name!r}")
        if name is not None and name.startswith("."):
            raise ValueError(f"{key} must not begin with a dot, for tools leave out what is hidden; got {name!r}")
    longer = c.parent is not None and c.parent_epochs is not None and 0 < c.parent_epochs < c.epochs
    if not longer and (c.parent, c.parent_epochs) != (None, None):
        raise ValueError(
            f"parent and parent_epochs are written by resume=FOLDER epochs=N; got parent={c.parent}, "
            f"parent_epochs={c.parent_epochs} and epochs={c.epochs}"
        )
    for key, folder in (("output_root", c.output_root), ("data_root", c.data_root)):
        if folder is not None and (not folder.strip() or "://" in folder or "\0" in folder):
            raise ValueError(f"{key} must be a folder, got {folder!r}")
    for key in ("output_root", "data_root", "experiment_name"):  # these name folders, and are stored as they are
        if getattr(c, key) is not None and redact(getattr(c, key)) != getattr(c, key):
            raise ValueError(f"{key} must hold no secret, such as the value of a variable named ..._TOKEN; got one")
    for key, value in vars(c.tracker).items():  # a tracker carries them elsewhere
        if redacted(value) != value:
            raise ValueError(f"tracker.{key} must hold no secret, such as the value of a variable named ..._KEY")
    decay = getattr(c.optimizer, "weight_decay", 0.0)
    for key in ("l2", "l2_features", "l2_biases"):
        if (value := getattr(c.loss, key)) and decay:
            raise ValueError(
                f"loss.{key} and optimizer.weight_decay both shrink the weights: expected one of them to be 0, got "
                f"loss.{key}={value:g} optimizer.weight_decay={decay:g}"
            )
    c.etf.complete(c.epochs, c.metrics.every)


def _is_plain(name: str) -> bool:
    """Whether it is the name of a folder, and no path."""
    plain = name == Path(name).name == name.strip() and name.isprintable() and len(name.encode()) <= LONGEST_NAME
    return plain and name not in ("", ".", "..")


def resolve_machine(c: RunConfig) -> RunConfig:
    """Fill in what depends on the machine: device, threads, data root. Raises ConfigError for an absent device."""
    if c.device == "auto":
        c.device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=c.device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device '{c.device}' cannot be used ({reason}); valid: auto, cpu, cuda, cuda:N") from None
    if c.threads is None:
        c.threads = threads_by_default(side_by_side=local_size())
    c.data_root = str(data_root(c.data_root))
    return c


def threads_by_default(cores: int | None = None, side_by_side: int = 1) -> int:
    """`default_threads`, raising ConfigError."""
    try:
        return default_threads(cores, side_by_side)
    except ValueError as error:
        raise ConfigError(str(error)) from None
