"""The one entrypoint: compose, check, build, fit, summarise.

    python -m nclab.train dataset=mnist5k etf=last_k etf.k=2          one run
    python -m nclab.train etf=last_k seeds=[0,1,2]                    three runs as one batched model
    python -m nclab.train --multirun etf=last_k etf.k=1,2,3 seed=0,1  a sweep
    python -m nclab.train --help                                      every group and key

The same command again skips a finished run and resumes an interrupted one.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nclab import checkpoint
from nclab.checkpoint import Progress
from nclab.config import KEPT_ON_RESUME, ConfigError, RunConfig, resolve_machine, to_yaml, typed
from nclab.data import Dataset, MissingDataError, data_root, load_dataset
from nclab.display import Display, SeedsDisplay
from nclab.etf import POLICIES, ETFPolicy
from nclab.etf.policy import learnable, site_seed
from nclab.evaluate import Evaluation
from nclab.fit import FAILURES, Fit, training_forward
from nclab.machine import keep_freed_memory
from nclab.models import MODELS, Classifier, layer_of
from nclab.optim import OPTIMIZERS, SCHEDULES, optimizer_bytes
from nclab.record import RunFolder, provenance, write_atomic
from nclab.together import Member, batched_forward, train_all
from nclab.trackers import TRACKERS, Guarded

HERE = Path(__file__).resolve().parent
CONF = next(p for p in (HERE.parents[1] / "conf", HERE / "conf") if (p / "train.yaml").exists())
BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130


def train(config: RunConfig) -> Path:
    """Train one configuration, or resume or skip it; returns its folder. Nothing is written before all is checked.

    Raises ConfigError, MissingDataError (wrong input), Diverged, RecordError, RunLocked, OSError (a run that failed).
    """
    config = _as_started(config)
    if _skipped(config):
        return config.folder
    dataset = _prepared(resolve_machine(config))
    origin = provenance(config.device, config.threads)  # now: the source tree may change while the run trains
    display = Display(config.folder.name, config.epochs)
    with _opened(config, dataset, display) as fit:
        if fit is not None:
            with display:
                result = fit.run()
            _finish(config, fit, result, origin)
    return config.folder


def train_together(configs: list[RunConfig]) -> dict[Path, Exception | None]:
    """Train configurations that differ in their seed alone as one batched model; returns why each failed, by folder.

    Each is finished, resumed and skipped in its own folder as if it were trained alone, and one that fails (as `train`
    raises it) costs no other. Raises ConfigError and MissingDataError before anything is written.
    """
    ended: dict[Path, Exception | None] = {}
    alike: dict[str, list[RunConfig]] = {}
    for config in map(_as_started, configs):
        if _skipped(config):
            ended[config.folder] = None
        else:  # a run that was begun with other threads, say, goes on with them, and then not beside the others
            machine = {key: vars(resolve_machine(config))[key] for key in KEPT_ON_RESUME}
            alike.setdefault(repr(machine), []).append(config)
    for group in alike.values():
        ended |= _train_alike(group)
    return ended


def _train_alike(configs: list[RunConfig]) -> dict[Path, Exception | None]:
    first = configs[0]
    dataset = _prepared(first)
    origin = provenance(first.device, first.threads)
    display = SeedsDisplay(f"{first.stem}, seeds {', '.join(str(c.seed) for c in configs)}", first.epochs)
    ended: dict[Path, Exception | None] = {}
    runs: dict[Path, tuple[RunConfig, ExitStack]] = {}  # what is open
    members = []

    def failed(config: RunConfig, error: Exception) -> None:
        if config.debug:
            raise error
        display.say(f"  seed {config.seed} failed: {error}")
        ended[config.folder] = error

    with ExitStack() as all_runs:
        for config in configs:
            run = all_runs.enter_context(ExitStack())
            try:
                fit = run.enter_context(_opened(config, dataset, display.of(config.seed)))
            except FAILURES as error:
                failed(config, error)
                continue
            if fit is None:
                ended[config.folder] = None
            else:
                members.append(Member(fit))
                runs[fit.folder.path] = config, run
        if members:
            all_runs.enter_context(display)
        for fit, outcome in train_all(members, batched_forward(first.precision, first.compile), display):
            config, run = runs[fit.folder.path]
            try:
                with run:  # closed now: the others have long to go
                    if isinstance(outcome, Exception):
                        raise outcome
                    _finish(config, fit, outcome, origin)
                ended[config.folder] = None
            except FAILURES as error:
                failed(config, error)
    return ended


def _skipped(config: RunConfig) -> bool:
    """Whether the run is finished already, which is said."""
    done = (config.folder / "DONE").exists() and not config.overwrite
    if done:
        print(f"already finished: {config.folder}")
    return done


def _prepared(config: RunConfig) -> Dataset:
    """Set the process up as the configuration says, and load the dataset."""
    torch.set_num_threads(config.threads)
    keep_freed_memory()
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses to be deterministic
    torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cuda.matmul.fp32_precision = "tf32" if config.tf32 else "ieee"
    return _as_config_error(load_dataset, config.dataset, config.data_root, config.device)


def check(configs: Iterable[RunConfig]) -> None:
    """Raise what `train` would raise for values that do not fit one another or the dataset, without training: each
    dataset is loaded once, models are built without memory for their weights."""
    datasets: dict[str, Dataset] = {}
    for config in configs:
        key = repr((config.dataset, config.data_root))
        if key not in datasets:
            root = str(data_root(config.data_root))
            datasets[key] = _as_config_error(load_dataset, config.dataset, root, "cpu")
        with torch.device("meta"):
            _built(config, datasets[key])


def _built(config: RunConfig, dataset: Dataset) -> tuple[Classifier, ETFPolicy]:
    """Model and policy, checked against the dataset and each other."""
    if config.batch_size > len(dataset.train):
        raise ConfigError(f"batch_size must be at most {len(dataset.train)}, the train split; got {config.batch_size}")
    model = _as_config_error(MODELS[config.model.name].build, config.model, dataset.shape, dataset.num_classes)
    policy = POLICIES[config.etf.name].build(config.etf)
    _as_config_error(policy.check, model)
    return model, policy


@contextmanager
def _opened(config: RunConfig, dataset: Dataset, display: Display) -> Iterator[Fit | None]:
    """The fit of a run where it left off, with its folder locked, its logs open and its tracker started as long as the
    context lasts; None where another process finished it since we looked."""
    torch.manual_seed(config.seed)
    model, policy = _built(config, dataset)
    model.to(config.device)
    with RunFolder(config.folder) as out:
        if out.done and not config.overwrite:
            print(f"already finished: {config.folder}")
            yield None
            return
        if config.overwrite:
            out.clear()
        fit = _fit(config, dataset, model, policy, out, display)
        try:
            yield fit
        except BaseException:
            fit.tracker.abort()
            raise


def _fit(
    config: RunConfig, dataset: Dataset, model: Classifier, policy: ETFPolicy, out: RunFolder, display: Display
) -> Fit:
    total = learnable(model.parameters())
    state = checkpoint.load(out.path)
    out.open_logs(state["lengths"] if state else None)
    switches = []
    if state:
        checkpoint.restore_model(state, model)
    else:
        write_atomic(out.path / "config.yaml", to_yaml(config))
        switches = policy.setup(model, config.seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = OPTIMIZERS[config.optimizer.name].build(config.optimizer, parameters)
    generators = {name: torch.Generator().manual_seed(site_seed(config.seed, name)) for name in ("order", "augment")}
    if state:
        progress = checkpoint.restore_rest(state, policy, optimizer, generators)
        out.event("resume", epoch=progress.epoch)
    else:
        progress = Progress(total_parameters=total)
        probes = model.probes(config.metrics.probe)
        out.event("start", epoch=0, layers=[probe.record() for probe in probes])
        for switch in switches:
            out.event("switch", layer=layer_of(probes, switch.site), **switch.record())

    def tracker_failed(reason: str) -> None:
        out.event("warning", epoch=progress.epoch, text=f"tracker stopped: {reason}")
        print(f"warning: the tracker stopped and the run goes on: {reason}", file=sys.stderr)

    tracker = Guarded(TRACKERS[config.tracker.name].build(config.tracker), tracker_failed)
    tracker.start(out.path, config.identity())
    return Fit(
        model=model,
        dataset=dataset,
        policy=policy,
        optimizer=optimizer,
        schedule=SCHEDULES[config.schedule.name].build(config.schedule, config.epochs),
        base_lr=config.optimizer.lr,
        epochs=config.epochs,
        batch_size=config.batch_size,
        metrics=config.metrics,
        generators=generators,
        folder=out,
        tracker=tracker,
        display=display,
        progress=progress,
        checkpoint_seconds=config.checkpoint_seconds,
        forward=training_forward(model, config.precision, config.compile),
    )


def _finish(config: RunConfig, fit: Fit, result: Evaluation, origin: dict[str, Any]) -> None:
    summary = {**_summary(config, fit, result), **origin}
    fit.folder.event("done", epoch=fit.progress.epoch, seconds=fit.progress.seconds)
    fit.tracker.finish(summary)
    fit.folder.finish(summary)
    fit.display.say(f"finished: {fit.folder.path}")


def _summary(config: RunConfig, fit: Fit, result: Evaluation) -> dict[str, Any]:
    final = {
        split: {
            "accuracy": result.network(split, "accuracy"),
            "loss": result.network(split, "loss"),
            "ncc_accuracy": {layer: v["ncc_accuracy"] for layer, v in layers.items() if "ncc_accuracy" in v},
        }
        for split, layers in result.values.items()
    }
    depth = result.values["train"]["network"].get("effective_depth")
    return {
        "run": config.run_name,
        "experiment_name": config.experiment_name,
        "dataset": config.dataset.name,
        "model": config.model.label,
        "policy": config.etf.label,
        "seed": config.seed,
        "epochs": config.epochs,
        "final": {**final, "effective_depth": depth},
        "parameters_learnable": learnable(fit.model.parameters()),
        "parameters_total": fit.progress.total_parameters,
        "optimizer_bytes": optimizer_bytes(fit.optimizer),
        "wall_seconds": round(fit.progress.seconds, 3),
    }


def _as_started(config: RunConfig) -> RunConfig:
    """The configuration that a run was started with, if it was.

    `resume=FOLDER` takes all of it, whatever conf/ says by now, but for overwrite and a tracker that is named anew.
    A run found by its name has the same identity already; it goes on with the machine keys on which its bits depend.
    """
    stored = config.folder / "config.yaml"
    if config.resume is not None:
        if not stored.exists():
            raise ConfigError(f"resume must name a run folder, one with a config.yaml; got '{config.resume}'")
        started = typed(OmegaConf.load(stored))
        tracker = started.tracker if config.tracker.name == "none" else config.tracker
        return replace(started, resume=config.resume, tracker=tracker, overwrite=config.overwrite)
    if not config.overwrite and (config.folder / checkpoint.NAME).exists() and stored.exists():
        before = yaml.safe_load(stored.read_text())
        for key in KEPT_ON_RESUME:
            setattr(config, key, before[key])
    return config


def _as_config_error(call: Any, *args: Any) -> Any:
    """Values that do not fit one another are the caller's mistake, not ours."""
    try:
        return call(*args)
    except ValueError as error:
        raise ConfigError(str(error)) from None


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def _hydra_main(composed: DictConfig) -> str:
    try:
        config = typed(composed)
        overrides = HydraConfig.get().overrides.task
        if config.resume is not None:
            _only_resume(overrides)
        if config.seeds is None:
            return str(train(config))
        if any(_key(override) == "seed" for override in overrides):
            raise ConfigError("seeds takes the place of seed; leave out one of them")
        ended = train_together([config.of_seed(seed) for seed in config.seeds])
    except (ConfigError, MissingDataError) as error:
        if composed.get("debug") is True:
            raise
        sys.exit(_complain(error, BAD_INPUT))  # wrong input ends a sweep at once
    except FAILURES as error:
        if composed.get("debug") is True:
            raise
        _failures.append(_complain(error, FAILED))  # the other runs of a sweep are tried
        return ""
    _failures.extend(_complain(error, FAILED) for error in ended.values() if error is not None)
    return " ".join(map(str, ended))


def main() -> None:
    """Console entry: exit code 0 done, 2 wrong input (one line, nothing written), 1 failed, 130 interrupted."""
    # Hydra would print a wrong override in its own way and exit with 1; with this set it raises it to us.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        _hydra_main()
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (HydraException, OmegaConfBaseException) as error:
        if "debug=true" in sys.argv:
            raise
        sys.exit(_complain(error, BAD_INPUT))
    if _failures:
        sys.exit(FAILED)


def _only_resume(overrides: list[str]) -> None:
    """Raise ConfigError for keys that `resume=FOLDER`, whose configuration lies in the folder, would ignore."""
    valid = ("resume", "overwrite", "debug", "tracker")
    ignored = [override for override in overrides if _key(override).split(".")[0] not in valid]
    if ignored:
        raise ConfigError(f"resume=FOLDER takes the folder's configuration; leave out {', '.join(ignored)}")


def _key(override: str) -> str:
    return override.lstrip("+~").split("=")[0]


_failures: list[int] = []  # of this process's runs


def _complain(error: BaseException, code: int) -> int:
    """The message on one line, with the keys that would have been right where Hydra does not name them."""
    lines = [line.strip() for line in str(error).split("Config search path")[0].splitlines() if line.strip()]
    text = "; ".join(lines)
    parent = getattr(error.__cause__, "parent_node", None)
    if isinstance(parent, DictConfig):
        of = f" of '{parent.name}'" if "name" in parent else ""
        text = f"{lines[0]} Valid keys{of}: {', '.join(map(str, parent))}"
    if isinstance(error, OSError) and code == FAILED:
        text += "; what was saved is kept, the same command resumes"
    print(f"error: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
