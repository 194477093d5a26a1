"""The runs that a command line asks for, composed and checked before the first one begins.

Hydra composes; sweeping is done here, so that every way into a sweep (-m, hydra.mode=MULTIRUN, hydra.sweeper.params, a
folder of one's own) has the same checks, and Hydra writes nothing of its own.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nclab.config.checks import ConfigError, NeverValid, NotTaken, UnknownKey, checked
from nclab.config.command import SWEEPERS, check_word
from nclab.config.composing import ROOT, Composer, composed, composing, parsed, plainly, run_config
from nclab.config.hints import all_keys, several_values
from nclab.config.job import Job as Job
from nclab.config.job import Words as Words
from nclab.config.schema import GROUPS
from nclab.config.search import Search, SearchSettings, space_of
from nclab.config.stored import stored_run
from nclab.interfaces.valid import unknown
from nclab.system.progress import telling
from nclab.system.words import key_of

PARAMS = "hydra.sweeper.params"
MOST_TRIED = 30  # combinations, to see whether any of a sweep can be
# What Hydra's own launcher and sweeper would do with these is done by nobody here.
WITHOUT_EFFECT = {
    "run.dir": ".",
    "sweep.subdir": ".",
    "output_subdir": None,
    "job.chdir": False,
    "job.env_set": {},
    "callbacks": {},
    "sweeper.max_batch_size": None,
}


@dataclass
class Planned:
    """What a command line asks for.

    Attributes:
        jobs: what is to be trained, in order.
        sweep: whether it is a sweep, also one of a single run.
        launcher: the option of conf/hydra/launcher that starts them, and its settings.
        skip_invalid: whether impossible runs are left out.
        wrong: the jobs that cannot be, and why, by their words.
        fixed: the words that all jobs have.
        idle: (option, key that it has not), of keys that are left out beside this option.
        search: what hydra/sweeper=optuna searches, in the place of jobs.
    """

    jobs: list[Job]
    sweep: bool = False
    launcher: str = "basic"
    settings: DictConfig = field(default_factory=lambda: OmegaConf.create({}))
    skip_invalid: bool = False
    wrong: dict[Words, ConfigError] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()
    idle: list[tuple[str, str]] = field(default_factory=list)
    search: Search | None = None


@dataclass
class _OfSweep:
    skip_invalid: bool = False


def planned(args: argparse.Namespace, conf: Path) -> Planned:
    """The checked jobs of a command line.

    Raises ConfigError for words that fit no run and, without skip_invalid=true, for the first run of a sweep that
    cannot be; the checks against dataset and network are in `nclab.run.task.possible`.
    """
    name = args.config_name or ROOT
    with composing(conf, _own_folder(args.config_dir)):
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        all_words = parsed(args.overrides, parser)
        own = [word for word in all_words if not word.is_hydra_override()]
        hydras = [word for word in all_words if word.is_hydra_override()]
        typed_params = [word for word in hydras if word.key_or_group.startswith(PARAMS)]
        of_hydra = [word.input_line for word in hydras if word not in typed_params]
        swept = any(word.is_sweep_override() for word in own)
        # Of a sweep: keys inside groups may belong to an option that only some of the runs choose.
        kept = [word for word in own if not swept or not (word.is_sweep_override() or "." in word.key_or_group)]
        base = composed([*of_hydra, *_with_stored_tracker(kept)], name)
        _refuse_idle(base.hydra)
        if args.multirun and base.hydra.mode == RunMode.RUN:
            raise ConfigError("-m asks for a sweep and hydra.mode=RUN for a single run; leave out one of them")
        searches = base.hydra.runtime.choices["hydra/sweeper"] == "optuna"
        if not (args.multirun or base.hydra.mode == RunMode.MULTIRUN):
            if searches:
                raise ConfigError("hydra/sweeper=optuna trains many runs: expected -m (--multirun) beside it")
            _refuse_sweep(own, all_words)
            return Planned([Job(tuple(word.input_line for word in kept), run_config(base))])
        settings = _settings(base)
        params = settings[PARAMS] | {key: value for word in typed_params for key, value in _params(word).items()}
        of_params = parsed([f"{key}={value}" for key, value in params.items()], parser)
        for word in of_params:
            check_word(word)
        plan = Planned(
            [],
            sweep=True,
            launcher=settings["hydra/launcher"],
            settings=base.hydra.launcher,
            skip_invalid=settings["skip_invalid"],
        )

        def job(words: Words, composer: Composer) -> Job:
            overrides = parsed(words, parser)
            for word in overrides:
                check_word(word)
            whole = composer([*of_hydra, *_with_stored_tracker(overrides)])
            _refuse_other(settings, _settings(whole), words)
            return Job(words, run_config(whole))

        if searches:

            def job_of(words: Words) -> Job:
                with composing(conf, _own_folder(args.config_dir)):
                    return job(words, Composer(name))

            plan.search = _search(plan, base, [*of_params, *own], job_of)
            return plan
        combinations = split([*of_params, *own])
        if not combinations:
            raise ConfigError(f"the sweep has no run: expected at least one value of each key, got {args.overrides}")

        composer = Composer(name)
        _compose_all(plan, combinations, lambda words: job(words, composer), lambda word: _entry(word, of_hydra, name))
    return plan


def _search(plan: Planned, base: DictConfig, overrides: list[Override], job_of: Callable[[Words], Job]) -> Search:
    """What hydra/sweeper=optuna searches. Raises ConfigError."""
    if plan.launcher != "basic":
        raise ConfigError(f"hydra/sweeper=optuna trains run after run: leave out hydra/launcher={plan.launcher}")
    if plan.skip_invalid:
        raise ConfigError("hydra/sweeper=optuna leaves out runs that cannot be by itself: leave out skip_invalid=true")
    space, fixed = space_of(overrides)
    return Search(checked("hydra.sweeper", SearchSettings, base.hydra.sweeper), space, fixed, job_of)


def split(overrides: list[Override]) -> list[Words]:
    """The words of every job of a sweep, as Hydra's own sweeper splits them."""
    choices: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_discrete_sweep():
            choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        elif override.is_sweep_override():
            raise ConfigError(f"a sweep needs values that can be listed, as 1,2 or range(3); got {override.input_line}")
        else:
            choices[key] = [f"{key}={override.get_value_element_as_str()}"]
    return list(product(*choices.values()))


def _compose_all(
    plan: Planned, combinations: list[Words], job: Callable[[Words], Job], entry: Callable[[str], str]
) -> None:
    """Fill in jobs and wrong ones. Without skip_invalid the first wrong one is raised, and with it what no run of any
    sweep could be."""
    plan.fixed = frozenset.intersection(*map(frozenset, combinations))
    if plan.skip_invalid:
        idle = without_idle(combinations, entry)
        plan.idle = list(dict.fromkeys(pair for _, left in idle for pair in left))
        combinations = [words for words, _ in idle]
    found: dict[Words, Job | ConfigError] = {}
    for words in telling(dict.fromkeys(combinations), "composed"):
        try:
            found[words] = job(words)
        except ConfigError as error:
            if plan.skip_invalid and not _never(error):
                found[words] = error
                continue
            alike = with_value_of(error, words, combinations)
            some = alike[:: max(1, len(alike) // MOST_TRIED)]
            others = not _never(error) and any(_can_be(job, one) for one in some)
            raise refused(error, words, plan, others) from error
    plan.jobs = [one for one in found.values() if isinstance(one, Job)]
    plan.wrong = {words: one for words, one in found.items() if isinstance(one, ConfigError)}
    if not plan.jobs:
        raise next(iter(plan.wrong.values()))


def _never(error: ConfigError) -> bool:
    """Whether it is wrong beside all else too: no option, no key of any option, a value of a wrong type."""
    return isinstance(error, NeverValid) or (isinstance(error, UnknownKey) and not all_keys().get(error.key))


def with_value_of(error: ConfigError, words: Words, combinations: Sequence[Words]) -> list[Words]:
    """Of a sweep's combinations those in which the error could be absent: where a key does not take the value that is
    typed for it, those with this value."""
    typed = [word for word in words if isinstance(error, NotTaken) and key_of(word) == error.key]
    return [one for one in combinations if {*typed} <= {*one}]


def never_taken(wrong: dict[Words, ConfigError], possible: Sequence[Words]) -> Words | None:
    """The first of the wrong combinations with a value that its key takes in no combination of the sweep: a mistake,
    which nobody means to leave out. None where there is none."""
    for words, error in wrong.items():
        if isinstance(error, NotTaken) and any(key_of(word) == error.key for word in words):
            others = [wrong.get(one) for one in with_value_of(error, words, [*wrong, *possible])]
            if all(isinstance(other, NotTaken) and other.key == error.key for other in others):
                return words
    return None


def _can_be(job: Callable[[Words], Job], words: Words) -> bool:
    try:
        job(words)
        return True
    except ConfigError:
        return False


def refused(error: ConfigError, words: Words, plan: Planned, others: bool) -> ConfigError:
    """The refusal of a sweep for one of its runs; where `others` can be it says how to train those."""
    varied = " ".join(word for word in words if word not in plan.fixed)
    if not varied:
        return error
    without = "; skip_invalid=true leaves out such runs and trains the others" if others else ""
    return ConfigError(f"{error} (in {varied}{without})")


def without_idle(
    combinations: Sequence[Words], entry: Callable[[str], str] = lambda word: word
) -> list[tuple[Words, list[tuple[str, str]]]]:
    """Each combination without keys that its own option of their group has not and another's has, and the (option, key)
    of each that was left out. entry: GROUP=OPTION -> the same with the name of the entry that this option is made of,
    which differs where the option is a YAML file of one's own.

    >>> without_idle([("etf=none", "etf.k=2"), ("etf=last_k", "etf.k=2")])
    [(('etf=none',), [('etf=none', 'etf.k')]), (('etf=last_k', 'etf.k=2'), [])]
    """
    options = dict.fromkeys(word for words in combinations for word in words if word.partition("=")[0] in GROUPS)
    keys, entries = all_keys(), {word: entry(word) for word in options}
    offered = {*entries.values()}
    found = []
    for words in combinations:
        chosen = {word.partition("=")[0]: word for word in words if word in entries}
        left = []
        for key in (word.partition("=")[0].lstrip("+") for word in words):
            group = key.partition(".")[0]
            having = {f"{group}={option}" for option in keys.get(key, ())}
            if having & offered and group in chosen and entries[chosen[group]] not in having:
                left.append((chosen[group], key))
        gone = {key for _, key in left}
        found.append((tuple(word for word in words if word.partition("=")[0].lstrip("+") not in gone), left))
    return found


def _with_stored_tracker(overrides: Sequence[Override]) -> list[str]:
    """The words, and where they set keys of a tracker alone, the tracker of the run that `resume=FOLDER` names."""
    words = [word.input_line for word in overrides]
    given = {word.key_or_group: word for word in overrides}
    resume = given["resume"].value() if "resume" in given else None
    if resume is None or "tracker" in given or not any(key.startswith("tracker.") for key in given):
        return words
    return [*words, f"tracker={stored_run(Path(str(resume)).expanduser() / 'config.yaml').tracker.name}"]


def _entry(word: str, of_hydra: list[str], name: str) -> str:
    """GROUP=OPTION with the name of the entry that the option's YAML file gives; as it is where it does not compose."""
    group = word.partition("=")[0]
    try:
        return f"{group}={composed([*of_hydra, word], name)[group].name}"
    except (ConfigError, OmegaConfBaseException, AttributeError):
        return word


def _settings(whole: DictConfig) -> dict[str, Any]:
    """What all runs of a sweep must have alike, as this configuration has it."""
    with plainly():
        return {
            PARAMS: {str(key): str(value) for key, value in (whole.hydra.sweeper.params or {}).items()},
            "hydra/launcher": whole.hydra.runtime.choices["hydra/launcher"],
            "hydra.launcher": OmegaConf.to_container(whole.hydra.launcher),
            "skip_invalid": checked("", _OfSweep, OmegaConf.masked_copy(whole, ["skip_invalid"])).skip_invalid,
        }


def _refuse_other(settings: dict[str, Any], own: dict[str, Any], words: Words) -> None:
    """Raise NeverValid where a run brings a setting of the whole sweep, as the YAML file of an experiment can."""
    for key, value in own.items():
        if value != settings[key]:
            by = [word for word in words if word.startswith("experiment=")] or words
            raise NeverValid(
                f"{key} must be the same for all runs of a sweep: expected {settings[key]}, got {value} of "
                f"{' '.join(by)}; type {key} and leave it out of the YAML file"
            )


def _params(word: Override) -> dict[str, str]:
    """The keys and values of hydra.sweeper.params={KEY: "VALUES"} or hydra.sweeper.params.KEY=VALUES, which Hydra
    itself cannot take from a command line."""
    key, text = word.key_or_group.removeprefix(PARAMS).lstrip("."), word.input_line.partition("=")[2]
    if key:
        return {key: text if word.is_sweep_override() or not isinstance(word.value(), str) else word.value()}
    if word.is_sweep_override() or not isinstance(values := word.value(), dict):
        raise ConfigError(f'{PARAMS} must be a mapping such as {{seed: "0,1"}}; got {word.input_line}')
    return {str(key): str(value) for key, value in values.items()}


def _own_folder(name: str | None) -> Path | None:
    """The folder of --config-dir."""
    if name is not None and not Path(name).is_dir():
        raise ConfigError(f"--config-dir must be a folder, got '{name}'")
    return None if name is None else Path(name)


def _refuse_sweep(own: list[Override], all_words: list[Override]) -> None:
    """Raise ConfigError for what only a sweep can do."""
    for word in own:
        if word.is_sweep_override():
            raise ConfigError(f"{word.input_line} names several values: {several_values(word)}")
    for word in all_words:
        if word.key_or_group.startswith(PARAMS):
            raise ConfigError(f"{word.input_line} names the values of a sweep: add -m to train a run for each")
        if word.key_or_group == "hydra/launcher" or word.key_or_group.startswith("hydra.launcher"):
            raise ConfigError(f"a launcher starts sweeps: expected -m (--multirun) beside {word.input_line}")


def _refuse_idle(hydra: DictConfig) -> None:
    """Raise ConfigError for keys of Hydra, set in a YAML file, that would do nothing."""
    for key, value in WITHOUT_EFFECT.items():
        if (came := OmegaConf.select(hydra, key)) != value:
            raise ConfigError(f"hydra.{key} does nothing here; leave it out of the YAML file that sets it (got {came})")
    if (came := hydra.runtime.choices["hydra/sweeper"]) not in SWEEPERS:
        raise ConfigError(unknown("hydra/sweeper", came, SWEEPERS))
