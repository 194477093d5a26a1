"""A longer training: `resume=FOLDER epochs=N` goes on from a run, finished or not, in a new folder beside it.

The new folder begins with what the run knew at its latest checkpoint: weights, optimizer, policy and random states, and
its logs up to there. From then on it is an ordinary run. Where nothing depends on the number of epochs it is, bit for
bit, the run that N epochs at once would have been: its figures show the whole curve, from epoch 0. Two things differ at
the end of a shorter run, and are set right:

- its policy does not act after the last epoch, as nothing would be trained any more: the longer run begins with that
  (`Progress.due`);
- its last epoch is always measured: rows of an epoch that N epochs at once would not have measured (`metrics.every`)
  are left out.

What depends on the number of epochs (a cosine schedule, tasks that share the epochs) is that of the parent up to the
split and that of N epochs from there on, which a warning says. Values that the parent filled in by its own length, such
as `etf.start`, stay.
"""

from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from nclab.config.schema import ConfigError, RunConfig
from nclab.config.stored import stored_run, to_yaml
from nclab.data import Dataset
from nclab.run.moved import changes, said
from nclab.runfolder import checkpoint
from nclab.runfolder.folder import RecordError, RunFolder, note
from nclab.runfolder.logs import Log, disagreement, marks
from nclab.system.atomic import write_atomic
from nclab.system.written import LOGS
from nclab.training.optim import learning_rate
from nclab.training.phases import PHASES, rate_of_phases
from nclab.training.progress import Progress


def longer(folder: Path, started: RunConfig, config: RunConfig) -> RunConfig:
    """The run of more epochs that goes on from the one in `folder`.

    Args:
        folder: of the parent.
        started: the parent, as it is stored there.
        config: the same with what was typed.

    Raises ConfigError where the epochs are fewer than the parent's, or it has no checkpoint.
    """
    if config.epochs < started.epochs:
        raise ConfigError(
            f"epochs must be at least the {started.epochs} of {folder} (more go on from it in a new folder); got "
            f"{config.epochs}"
        )
    if started.trial:
        raise ConfigError(f"{folder} is a run of debug={started.trial}, which has no longer one; leave out epochs")
    if not checkpoint.exists(folder):
        raise ConfigError(f"{folder} has no checkpoint to go on from with epochs={config.epochs}")
    place, stored = folder.resolve(), Path(started.output_root) / started.experiment_name
    moved = stored.resolve() != place.parent
    here = {"output_root": str(place.parent.parent), "experiment_name": place.parent.name} if moved else {}
    return replace(config, resume=None, parent=place.name, parent_epochs=started.epochs, **here)


@dataclass(frozen=True)
class Parent:
    """What a longer run needs of the run that it goes on from: all of it in memory."""

    config: RunConfig
    state: dict[str, Any]  # its checkpoint
    logs: dict[str, bytes]  # up to there
    best: dict[str, Any] | None  # the checkpoint of its best epoch


def parent_of(config: RunConfig) -> Parent | None:
    """What the run will begin with; None where it needs no parent: it is no longer run, or was begun already.

    Raises ConfigError where the parent is gone or damaged. To be called before anything is cleared.
    """
    folder = config.folder
    if config.parent is None or (checkpoint.exists(folder) and not config.overwrite):
        return None
    parent = folder.parent / config.parent
    stored = parent / "config.yaml"
    try:
        state = checkpoint.load(parent, fault=disagreement) if stored.exists() else None
        if state is None:
            raise RecordError("it has no checkpoint")
        best = checkpoint.load_best(parent) if config.best is not None else None
        logs = {name: (parent / name).read_bytes()[:length] for name, length in state["lengths"].items()}
    except (RecordError, OSError) as error:
        reason = str(error).partition("; overwrite=true")[0]
        raise ConfigError(f"{folder} begins with what {parent} left, which cannot be had: {reason}") from None
    return Parent(stored_run(stored), state, logs, best)


def begin_longer(config: RunConfig, out: RunFolder, dataset: Dataset, parent: Parent) -> dict[str, Any]:
    """Write the beginning of a longer run into its folder, the checkpoint last; returns that."""
    state = parent.state
    progress = state["progress"]
    epoch = progress["epoch"]
    write_atomic(out.path / "config.yaml", to_yaml(config))
    for name, log in parent.logs.items():
        write_atomic(out.path / name, log)
    ended = Progress.of(progress).ended_by is not None  # before its last epoch: nothing acts after that
    progress |= {"split": epoch, "due": epoch >= config.parent_epochs and not ended}
    every = config.metrics.every
    if progress["due"] and not (every and epoch % every == 0):
        _leave_out(out.path / "metrics.csv", epoch)
    note(out.path, "longer", parent=config.parent, epoch=epoch, epochs=config.epochs)
    warnings = depends_on_length(config, dataset, epoch)
    if changed := changes(parent.config, config):
        warnings.append(f"{out.path.name} {said(parent.config, changed)}")
    for text in warnings:
        note(out.path, "warning", epoch=epoch, text=text)
        checkpoint.to_stderr(text)
    with ExitStack() as opened:
        own = marks({name: opened.enter_context(closing(Log(out.path / name))) for name in LOGS})
    if parent.best is not None:
        checkpoint.save_best(out.path, _without(parent.best, own), own)
        progress["best"] = parent.best["progress"]["best"]
    state = _without(state, own)
    checkpoint.save(out.path, state, own)
    return {**state, **own}


def _without(state: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint without its format and the marks of its logs: the state of the training."""
    return {key: value for key, value in state.items() if key not in ("format", *own)}


def depends_on_length(config: RunConfig, dataset: Dataset, epoch: int) -> list[str]:
    """What is to be said of a run that goes on at this epoch: a line each for a schedule and for phases that would have
    been others up to here in a run of its length."""
    before, now = config.parent_epochs, config.epochs
    texts = []
    build = PHASES[config.phases.name].build(config.phases, config.seed)
    phases = {epochs: build(dataset, epochs) for epochs in (before, now)}
    rates = [
        rate_of_phases(of_length, partial(learning_rate, config.optimizer, config.schedule))
        for of_length in phases.values()
    ]
    if any(rates[0](e) != rates[1](e) for e in range(before)):
        texts.append(
            f"schedule={config.schedule.name} depends on the number of epochs: up to epoch {epoch} it was that of "
            f"{before}, from there on it is that of {now} (learning rate {rates[0](max(epoch - 1, 0)):g}, then "
            f"{rates[1](epoch):g})"
        )
    names = [[p.name for p in of_length for _ in range(p.epochs)][:before] for of_length in phases.values()]
    if names[0] != names[1]:
        texts.append(
            f"phases={config.phases.name} depends on the number of epochs: up to epoch {epoch} they were those of "
            f"{before}, from there on they are those of {now}"
        )
    return texts


def _leave_out(metrics: Path, epoch: int) -> None:
    lines = metrics.read_bytes().splitlines(keepends=True)
    write_atomic(metrics, b"".join(line for line in lines if not line.startswith(b"%d," % epoch)))
