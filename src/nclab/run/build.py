"""One run: the process set up, network and policy built, its folder opened."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from nclab.config.checks import as_config_error
from nclab.config.schema import ConfigError, RunConfig
from nclab.data import Dataset
from nclab.data.few import few
from nclab.data.outside import load_with_outside
from nclab.etf import POLICIES, ETFPolicy
from nclab.etf.layer import FixedLinear
from nclab.etf.policy import learnable, site_seed
from nclab.models import MODELS, Classifier, layer_of
from nclab.parallel.agreed_stop import AgreedStop
from nclab.parallel.global_norm import globalize
from nclab.parallel.group import SINGLE, PeerLost, ProcessGroup, own_gpu
from nclab.run.begun import begun, make_folder_of
from nclab.run.compatible import require_compatible
from nclab.run.longer import parent_of
from nclab.run.pictures import pictures_of
from nclab.run.trial import as_trial, trial_size
from nclab.runfolder import checkpoint
from nclab.runfolder.display import Display
from nclab.runfolder.folder import RunFolder
from nclab.runfolder.follower import Follower
from nclab.runfolder.recorder import Recorder
from nclab.runfolder.tracker import TRACKERS, TrackerObserver
from nclab.system.machine import keep_freed_memory, memory_bytes, needs_memory
from nclab.system.redact import redact
from nclab.system.signals import StopSignals
from nclab.training.evaluate import suites_of
from nclab.training.feed import Feed
from nclab.training.fit import Diverged, Fit, FitSettings
from nclab.training.headline import check_number, headline_of
from nclab.training.objective import LOSSES, Objective
from nclab.training.observer import Guarded, Observer, Observers, Start
from nclab.training.optim import OPTIMIZERS, learning_rate
from nclab.training.phases import PHASES, Phase, checked, rate_of_phases
from nclab.training.progress import Progress, restore_model, restore_rest
from nclab.training.sampler import SAMPLERS, Sampler
from nclab.training.step import PRECISIONS, Learner, Run, set_products, training_run


def prepared(config: RunConfig, world: ProcessGroup = SINGLE) -> Dataset:
    """Set the process up as the configuration says, and load the dataset. Raises ConfigError where a process
    would have nothing to measure."""
    torch.set_num_threads(config.threads)
    keep_freed_memory()
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses to be deterministic
    if config.deterministic != torch.are_deterministic_algorithms_enabled():  # the call imports torch's compiler: 2 s
        torch.use_deterministic_algorithms(config.deterministic)
    set_products(config.tf32)
    with needs_memory("loading the dataset", "keep fewer samples (dataset.train_size, dataset.test_size)"):
        dataset = loaded(config, config.data_root, config.device)
    if world.size > 1:
        seen = as_phases_see(config, dataset)
        fewest = min(map(len, [*seen.splits.values(), *([] if seen.outside is None else [seen.outside])]))
        if fewest < world.size:
            most = f"at most {fewest} processes, one a sample of the smallest split"
            raise ConfigError(f"expected {most}; got {world.size}")
    return dataset


def loaded(config: RunConfig, root: str, device: str) -> Dataset:
    """The dataset of a run in the run's precision, whole on the device. Raises ConfigError, MissingDataError."""
    floats = PRECISIONS[config.precision].floats
    whole = as_config_error(load_with_outside, config.dataset, root, device, config.metrics.ood_dataset, floats)
    return few(whole, trial_size(config)) if config.trial else whole


def as_phases_see(config: RunConfig, dataset: Dataset) -> Dataset:
    """The dataset of a run as its phases see it. Raises ConfigError."""
    return as_config_error(config.phases.data, dataset, config.seed)


def network(config: RunConfig, dataset: Dataset) -> Classifier:
    """The untrained network of a run, on the default device, before any layer is fixed. Raises ConfigError.

    Its random numbers are drawn in the precision of the builder, by default float32, and cast to that of the run. So a
    float64 run begins where the float32 run of its seed begins: two precisions differ in rounding alone. A fixed layer
    is made in float64 and rounded to the dtype of the layer that it replaces, so that in float64 nothing is lost.
    """
    build = MODELS[config.model.name].build
    model = as_config_error(build, config.model, dataset.shape, dataset.targets.dim)
    return model.to(PRECISIONS[config.precision].floats)


def fit_for_several(config: RunConfig, world: ProcessGroup) -> None:
    """Take this process's GPU. Raises ConfigError for what several processes cannot do."""
    if world.size == 1:
        return
    if config.compile:
        raise ConfigError(f"compile=true trains with one process, got {world.size}; leave it out")
    if config.optimizer.closure:
        raise ConfigError(f"optimizer={config.optimizer.name} trains with one process, got {world.size}")
    if config.loss.complexity:
        raise ConfigError(f"loss.complexity trains with one process, got {world.size}")
    if config.device.startswith("cuda:"):
        raise ConfigError(
            f"each of {world.size} processes takes the GPU of its LOCAL_RANK: expected device auto, cuda or cpu, got "
            f"{config.device}"
        )
    if config.batch_size is not None and config.batch_size < world.size:
        raise ConfigError(f"batch_size must be at least {world.size}, one sample a process; got {config.batch_size}")
    if config.device != "cpu" and torch.cuda.is_available():
        as_config_error(own_gpu)


@dataclass(frozen=True)
class Parts:
    """What a run is made of, built from its configuration and checked against the dataset and each other. dataset: as
    the phases see it."""

    dataset: Dataset
    model: Classifier
    policy: ETFPolicy
    objective: Objective
    sampler: Sampler
    phases: list[Phase]
    optimizer: Callable[[list[Parameter]], Optimizer]
    learning_rate: Callable[[int], float]  # of an epoch, counted from 0
    closure: bool  # whether a step of the optimizer asks for the objective several times
    run: Callable[[Classifier], Run]  # how a training step runs the model
    batch_size: int
    settings: FitSettings


def built(config: RunConfig, dataset: Dataset, device: str = "cpu") -> Parts:
    """The parts of a run, the model on `device` (`meta`: without memory for its weights). Raises ConfigError where they
    do not fit the dataset or each other."""
    phases = as_config_error(PHASES[config.phases.name].build(config.phases, config.seed), dataset, config.epochs)
    dataset = as_phases_see(config, dataset)
    as_config_error(checked, phases, dataset, config.epochs)
    if config.batch_size is not None and config.batch_size > len(dataset.train):
        raise ConfigError(f"batch_size must be at most {len(dataset.train)}, the train split; got {config.batch_size}")
    with torch.device(device):
        model = network(config, dataset)
        policy = POLICIES[config.etf.name].build(config.etf)
        as_config_error(policy.check, model)
    objective = LOSSES[config.loss.name].build(config.loss)
    as_config_error(objective.check, model, dataset)
    as_config_error(model.check, dataset.train.targets, config.loss.name, objective.penalties(model))
    suites = as_config_error(suites_of, model, dataset, config.metrics, objective) if config.metrics.every else []
    sampler = SAMPLERS[config.sampler.name].build(config.sampler)
    as_config_error(sampler.check, dataset)
    require_compatible(config, dataset, policy, objective, sampler, phases)
    batch_size = config.batch_size or len(dataset.train)
    as_config_error(sampler.setup, dataset, phases, batch_size)
    split, metric = headline_of(objective, config.metrics.headline, dataset.splits)
    if split not in (splits := phases[-1].splits or tuple(dataset.splits)):
        raise ConfigError(f"metrics.headline: expected a split that is measured ({', '.join(splits)}), got {split}")
    where = bool(config.metrics.every), objective, dataset, suites, splits
    if config.metrics.headline is not None:
        as_config_error(check_number, "metrics.headline", split, metric, *where)
    best = config.best_number
    if best is not None:
        as_config_error(check_number, "best", best.split, best.metric, *where)
    rates = as_config_error(rate_of_phases, phases, partial(learning_rate, config.optimizer, config.schedule))
    stop = config.stop_at_loss, config.stop_loss
    settings = FitSettings(config.epochs, config.metrics, config.checkpoint_seconds, *stop, best=best)
    if config.trial:
        phases, rates, settings = as_trial(config, phases, rates, settings)
    return Parts(
        dataset=dataset,
        model=model,
        policy=policy,
        objective=objective,
        sampler=sampler,
        phases=phases,
        optimizer=partial(OPTIMIZERS[config.optimizer.name].build, config.optimizer),
        learning_rate=rates,
        closure=config.optimizer.closure,
        run=partial(training_run, precision=config.precision, compiled=config.compile),
        batch_size=batch_size,
        settings=settings,
    )


def require_tracker(config: RunConfig) -> None:
    """Raise ConfigError for a tracker that cannot be had here."""
    as_config_error(TRACKERS[config.tracker.name].build(config.tracker).check)


def _require_memory(config: RunConfig, dataset: Dataset) -> None:
    """Raise ConfigError for a model whose weights and gradients alone no memory holds: the process would be killed."""
    model = built(config, dataset, "meta").model
    needed = 2 * sum(p.numel() * p.element_size() for p in model.parameters())
    cuda = config.device.startswith("cuda")
    there = torch.cuda.get_device_properties(config.device).total_memory if cuda else memory_bytes()
    if needed > there:
        size, room = (f"{number / 2**30:,.1f} GiB" for number in (needed, there))
        raise ConfigError(
            f"model {config.model.label} needs {size} for its weights and gradients, and {config.device} has {room}"
        )


@contextmanager
def opened(
    config: RunConfig, dataset: Dataset, display: Display, stop: StopSignals, world: ProcessGroup = SINGLE
) -> Iterator[Fit | None]:
    """The fit of a run where it left off, with its folder locked, its logs open and its tracker started as long as the
    context lasts; None where another process finished it since we looked. An error that ends the context is noted in
    events.jsonl. Of several processes the first locks and writes."""
    with world.raise_everywhere(), _building():
        if world.first:
            require_tracker(config)
        parent = parent_of(config) if world.first else None
        _require_memory(config, dataset)
        torch.manual_seed(config.seed)
        parts = built(config, dataset)
        parts.model.to(config.device)
        if world.size > 1 and type(parts.policy).after_step is not ETFPolicy.after_step:
            raise ConfigError(
                f"etf={config.etf.name} sets layers at every step by the batch, of which each process sees a part: "
                f"expected one process, got {world.size}"
            )
    globalize(parts.model, world)
    with ExitStack() as stack:
        out = RunFolder(config.folder) if world.first else Follower(config.folder)
        with world.raise_everywhere():
            if world.first:
                make_folder_of(config)
            stack.enter_context(out)
        if world.broadcast_call(lambda: out.done and not config.overwrite):
            print(f"already finished: {config.folder}")
            yield None
            return
        observers = Observers()
        with _building():
            state = world.broadcast_call(lambda: begun(config, out, dataset, parent))
            if world.first:
                observers.observers += _observers(config, out, display)
            check = AgreedStop(stop, world).check if world.size > 1 else stop.check
            fit, start = fit_of(parts, config.seed, state, observers, check, world)
            observers.begin(replace(start, folder=config.folder))
        try:
            with needs_memory("working on this run", "make the model smaller (model.*), or keep fewer samples"):
                yield fit
        except BaseException as error:
            if isinstance(error, Diverged) and checkpoint.exists(out.path):
                error.args = (f"{error}. The last good checkpoint stays in {out.path}",)
            with suppress(OSError):  # a full disk may be the very reason
                observers.failed(error)
            if isinstance(error, PeerLost) and isinstance(out, Follower):
                error.said = not out.speak_for_the_first(str(error))
            raise


def _building() -> AbstractContextManager[None]:
    return needs_memory("building the network", "make the model smaller (model.*)")


def _observers(config: RunConfig, out: RunFolder, display: Display) -> list[Observer]:
    """Who watches: the run folder first; what tracker and terminal raise is said and ends nothing."""

    def failed(what: str, epoch: int, reason: str) -> None:
        with suppress(OSError):  # of a full disk the run folder will speak itself
            out.event("warning", epoch=epoch, text=f"{what} stopped: {reason}")
        print(f"warning: the {what} stopped and the run goes on: {redact(reason)}", file=sys.stderr)

    tracker = TRACKERS[config.tracker.name].build(config.tracker)
    return [
        Recorder(out),
        *(
            Guarded(TrackerObserver(each, out.path, config.identity(), pictures_of), partial(failed, "tracker"))
            for each in tracker.members
        ),
        Guarded(display, partial(failed, "terminal")),
    ]


def fit_of(
    parts: Parts,
    seed: int,
    state: dict[str, Any] | None,
    observer: Observer,
    check: Callable[[], None],
    world: ProcessGroup,
) -> tuple[Fit, Start]:
    """The fit where `state` left off, or a new one, and how it starts."""
    model, policy, dataset = parts.model, parts.policy, parts.dataset
    total = learnable(model.parameters())
    parts.objective.setup(model, dataset)  # on the network as it is built, also of a run that goes on
    switches = []
    if state:
        restore_model(state, model)
    else:
        switches = policy.setup(model, seed)
    world.align([*model.parameters(), *model.buffers()])  # hosts may differ in their rounding
    parts.objective.follow(model)
    optimizer = parts.optimizer([p for p in model.parameters() if p.requires_grad])
    run = parts.run(model)
    learner = Learner(model, parts.objective, policy, optimizer, parts.learning_rate, run, parts.closure)
    generators = {name: torch.Generator().manual_seed(site_seed(seed, name)) for name in ("order", "augment")}
    feed = Feed(dataset, parts.sampler, parts.batch_size, generators, parts.phases, world)
    progress = Progress(total_parameters=total)
    if state:
        progress = restore_rest(state, policy, optimizer, feed.sampler, generators)
    probes = model.probes(parts.settings.metrics.probe)
    start = Start(
        epoch=progress.epoch,
        layers=[probe.record() for probe in probes],
        switches=[(layer_of(probes, switch.site), switch) for switch in switches],
        processes=world.size,
        saved_by=progress.processes if state else None,
        fixed=[(name, layer.recipe) for name, layer in model.named_modules() if isinstance(layer, FixedLinear)],
        candidates=policy.candidates(model),
        may_switch=policy.may_switch,
        epochs=parts.settings.epochs,
    )
    progress.processes = world.size
    return Fit(learner, feed, parts.settings, progress, observer, check), start
