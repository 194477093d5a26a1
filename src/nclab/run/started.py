"""What a command asks for, and what a run that was begun before keeps of its start.

What is typed wins over what is stored in the run folder where it makes no other run (`keys.BESIDE_RESUME`), and where
bits may depend on it the run's events and the terminal say so.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from nclab.config.keys import BESIDE_RESUME, KEPT_ON_RESUME
from nclab.config.schema import ConfigError, RunConfig, resolve_machine
from nclab.config.stored import stored_keys, stored_run
from nclab.run.longer import longer
from nclab.runfolder import checkpoint
from nclab.runfolder.tracker import TrackerSettings
from nclab.system.words import key_of


def requested(config: RunConfig, overrides: Iterable[str]) -> list[RunConfig]:
    """The runs that a command line asks for, which remember what was typed: one, or one for each of `seeds`. Raises
    ConfigError."""
    overrides = list(overrides)
    typed = frozenset(map(key_of, overrides))
    if config.resume is not None:
        _only_beside_resume(overrides)
    if config.seeds is not None and "seed" in typed:
        came = f"seed={config.seed} and seeds={config.seeds}"
        raise ConfigError(f"seeds takes the place of seed; leave out one of them; got {came}")
    config = replace(config, explicit=typed)
    return [config] if config.seeds is None else [config.of_seed(seed) for seed in config.seeds]


def as_started(config: RunConfig) -> RunConfig:
    """The configuration that a run was started with, if it was, with what was typed now.

    `resume=FOLDER` takes all of it, whatever conf/ says by now. A run found by its name has the same identity already;
    it goes on with the machine keys on which its bits depend. Typed keys win over both. More epochs beside
    `resume=FOLDER` are another run (`nclab.run.longer`), as many are the same one.
    """
    stored = config.folder / "config.yaml"
    if config.resume is not None:
        if not stored.exists():
            raise ConfigError(f"resume must name a run folder, one with a config.yaml; got '{config.resume}'")
        started = stored_run(stored)
        own = {key: getattr(config, key) for key in BESIDE_RESUME if key in config.explicit and "." not in key}
        if "metrics.memory_gib" in config.explicit:
            own["metrics"] = replace(started.metrics, memory_gib=config.metrics.memory_gib)
        _refuse_other_trial(started, config)
        own |= {"resume": config.resume, "overwrite": config.overwrite, "explicit": config.explicit}
        own["tracker"] = _tracker(started.tracker, config)
        if "epochs" not in config.explicit or config.epochs == started.epochs:
            return replace(started, **own)
        return as_started(longer(Path(config.resume), started, replace(started, **own)))
    if _goes_on(config):
        kept = stored_keys(stored, KEPT_ON_RESUME)
        return replace(config, **{key: value for key, value in kept.items() if key not in config.explicit})
    return config


def _refuse_other_trial(started: RunConfig, config: RunConfig) -> None:
    """Raise ConfigError for a typed `debug` that would make a trial of a run, or a run of a trial."""
    if "debug" in config.explicit and config.debug != started.debug:
        if config.trial:
            raise ConfigError(f"debug={config.trial} makes another run: leave it out beside resume={config.resume}")
        if started.trial:
            came = f"debug={str(config.debug).lower()}"
            raise ConfigError(f"{config.resume} is a run of debug={started.trial}: leave out {came}")


def on_this_machine(config: RunConfig) -> RunConfig:
    """Fill in what depends on the machine (`resolve_machine`). Raises ConfigError for an absent device, which says
    where it is stored if it was not typed."""
    try:
        return resolve_machine(config)
    except ConfigError as error:
        begins_longer = config.parent is not None and not _goes_on(config)
        if "device" in config.explicit or not (begins_longer or _goes_on(config)):
            raise
        file = (config.folder.parent / config.parent if begins_longer else config.folder) / "config.yaml"
        raise ConfigError(f"{error}; it is stored in {file}: type device=cpu to go on here") from None


def _tracker(stored: TrackerSettings, config: RunConfig) -> TrackerSettings:
    """The tracker of a run that `resume=FOLDER` names: the stored one with the keys that were typed, or another that
    was typed. In a job of Slurm nothing was, and it stays as it was submitted. Raises ConfigError."""
    if "resume" not in config.explicit:
        return stored
    if "tracker" in config.explicit and config.tracker.name != stored.name:
        return config.tracker
    typed = {key.partition(".")[2] for key in config.explicit if key.startswith("tracker.")}
    for key in typed:
        if "." in key:
            whole = f"tracker.{key.partition('.')[0]}={{...}}"
            raise ConfigError(
                f"tracker.{key}: expected whole keys of the tracker, such as {whole}, beside resume=FOLDER"
            )
    try:
        return replace(stored.resumed(), **{key: getattr(config.tracker, key) for key in typed})
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _goes_on(config: RunConfig) -> bool:
    """Whether the run was begun before, and goes on with what is stored in its folder."""
    if config.resume is not None:
        return True
    folder: Path = config.folder
    return not config.overwrite and checkpoint.exists(folder) and (folder / "config.yaml").exists()


def _only_beside_resume(overrides: Iterable[str]) -> None:
    """Raise ConfigError for keys that `resume=FOLDER` would ignore."""
    ignored = [
        word for word in overrides if key_of(word) not in BESIDE_RESUME and key_of(word).split(".")[0] != "tracker"
    ]
    if ignored:
        raise ConfigError(f"resume=FOLDER takes the folder's configuration; leave out {', '.join(ignored)}")
