"""Plans: the runs behind a paper's figures and tables, in profiles of several sizes (conf/paper/WING/plan.yaml)."""

import re
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from nclab.config.command import named_plugins
from nclab.config.composing import Composer, composing, parsed, run_config
from nclab.config.record import Record
from nclab.config.schema import ConfigError, RunConfig, load_named
from nclab.config.sweep import without_idle
from nclab.interfaces.valid import unknown
from nclab.system.words import key_of
from nclab.system.written import is_finished

# Keys by which the plan tells runs and files apart; the command line has arguments of its own for some.
OF_THE_PLAN = (
    "dataset",
    "dataset.name",
    "seed",
    "seeds",
    "output_root",
    "experiment",
    "experiment_name",
    "overwrite",
    "resume",
    "paper",
)

DATASET = "dataset="
BETWEEN = re.compile(r",(?![^\[]*\])")  # a comma between values, not one within a list
Keys = tuple[str, ...]  # a command line of nclab-train


@dataclass(frozen=True)
class Part:
    """One figure or table (`draw`) of one dataset, and the runs that it needs."""

    name: str
    dataset: str
    draw: str
    configs: list[RunConfig]

    @property
    def finished(self) -> list[Path]:
        """Folders of its finished runs."""
        return [config.folder for config in self.configs if is_finished(config.folder)]


class Plan:
    """Reads conf/paper/WING/plan.yaml, which explains the format. Raises ConfigError for a wing without one, unknown
    parts and profiles."""

    def __init__(self, conf: Path, wing: str):
        self.conf, self.wing = conf, wing
        valid = sorted(file.parent.name for file in (conf / "paper").glob("*/plan.yaml"))
        if wing not in valid:
            raise ConfigError(unknown("paper", wing, valid))
        tree = yaml.safe_load((conf / "paper" / wing / "plan.yaml").read_text())
        self.parts: dict[str, dict[str, Any]] = tree["parts"]
        self.profiles: dict[str, dict[str, Any]] = tree["profiles"]
        self._composer = Composer()  # parts and profiles share what they choose

    def check(self, parts: list[str], profile: str | None = None) -> None:
        """Raise ConfigError for parts and a profile that are not in the plan."""
        profiles = [] if profile is None else [profile]
        for kind, asked, valid in (("part", parts, self.parts), ("profile", profiles, self.profiles)):
            if absent := [name for name in asked if name not in valid]:
                raise ConfigError(unknown(kind, absent[0], valid))

    def stack(self, profile: str) -> int:
        """Seeds of a run that one process trains at once, the `stack` of a profile; 1 where it has none.

        Raises ConfigError for an unknown profile and for what is no integer of at least 1.
        """
        self.check([], profile)
        found = self.profiles[profile].get("stack", 1)
        if type(found) is not int or found < 1:
            raise ConfigError(f"stack of profile {profile} must be an integer of at least 1, got {found}")
        return found

    def resolve(
        self,
        parts: list[str],
        profile: str,
        datasets: list[str] | None = None,
        seeds: list[int] | None = None,
        overrides: list[str] | None = None,
        policy_overrides: list[str] | None = None,
        output_root: str = "outputs",
    ) -> list[Part]:
        """The checked runs of the named parts on every dataset of the profile.

        A run that several parts need is one object in each of them. Each run records in its key `paper` the wing, the
        profile, all parts that need it, and the overrides.

        Args:
            parts: Names of parts; none: all but the extra ones.
            profile: A profile of the plan.
            datasets: Instead of the profile's, also of the one that a part's size names.
            seeds: Instead of the profile's.
            overrides: Further keys of every run.
            policy_overrides: Further keys of the runs with a policy; etf=none has none.
            output_root: All runs land below it.

        Raises:
            ConfigError: A name is unknown, a key is the plan's to set, or a run's configuration is wrong.
        """
        self.check(parts, profile)
        overrides, policy_overrides = overrides or [], policy_overrides or []
        for word in overrides:
            if (key := key_of(word)) in OF_THE_PLAN:
                raise ConfigError(f"{key} is the plan's to set, for all its runs alike; leave out {word}")
        load_named(named_plugins(parsed(overrides)))
        size = self.profiles[profile]
        for name in parts:
            if (wanted := self.parts[name]["size"]) not in size:
                raise ConfigError(f"part {name} has no size in profile {profile}: expected an entry {wanted} there")
        if seeds and not all(0 <= seed < 2**63 for seed in seeds):
            raise ConfigError(f"seeds must be between 0 and 2^63 - 1, got {', '.join(map(str, seeds))}")
        sizes = {name: list(_expand(size[part["size"]])) for name, part in self.parts.items() if part["size"] in size}
        own_datasets = {name: own for name in sizes if (own := _dataset(name, sizes[name]))}
        asked = parts or [name for name in sizes if not self.parts[name].get("extra")]
        if datasets and not parts:  # those with a dataset of their own would have to be named
            asked = [name for name in asked if name not in own_datasets]

        def dataset_of(name: str, dataset: str) -> str:
            """That of the part's size, if it names one and the command none."""
            return dataset if datasets else own_datasets.get(name, dataset)

        pairs = product(datasets or size["datasets"], asked)
        pairs = dict.fromkeys((dataset_of(name, dataset), name) for dataset, name in pairs)

        def lines(name: str, dataset: str) -> list[Keys]:
            """The command lines of a part."""
            found = []
            runs = [run for line in self.parts[name]["runs"] for run in _expand(line)]
            for keys_of_size, run in product(sizes[name], runs):
                of_policy = [] if "etf=none" in run else policy_overrides
                size_keys = [key for key in keys_of_size if not key.startswith(DATASET)]
                found.append((f"{DATASET}{dataset}", *size_keys, *run, "threads=1", *overrides, *of_policy))
            return found

        words = (*overrides, *(word for override in policy_overrides for word in ("--policy", override)))
        typed_keys = frozenset(map(key_of, (*overrides, *policy_overrides)))
        seeds_of = {name: seeds or _seeds(size["seeds"], self.parts[name]["size"]) for name in asked}
        runs: dict[Keys, tuple[Path, RunConfig]] = {}  # see _run_of
        needed_by: dict[Path, list[str]] = {}  # parts may write the same run in other words
        with composing(self.conf):
            for dataset, name in product(dict.fromkeys(dataset for dataset, _ in pairs), sizes):
                for keys in lines(name, dataset) if dataset_of(name, dataset) == dataset else ():
                    try:
                        if keys not in runs:
                            runs[keys] = _run_of(self._composer, keys)
                    except ConfigError:
                        if (dataset, name) in pairs:
                            raise
                        continue  # the overrides of this command are not meant for that part
                    needed_by.setdefault(runs[keys][0], []).append(name)
        known: dict[Path, dict[int, RunConfig]] = {}  # run -> seed -> its configuration
        found = []
        for dataset, name in pairs:
            own: list[RunConfig] = []
            for keys in lines(name, dataset):
                run, config = runs[keys]
                if not known.get(run, {}).keys() >= set(seeds_of[name]):
                    record = Record(self.wing, profile, tuple(dict.fromkeys(needed_by[run])), words)
                    config = replace(config, explicit=typed_keys)
                    known[run] = _with_seeds(config, seeds_of[name], output_root, str(record)) | known.get(run, {})
                own += [known[run][seed] for seed in seeds_of[name]]
            found.append(Part(name, dataset, self.parts[name]["draw"], own))
        return found


def _expand(line: str) -> list[Keys]:
    """Every run of a line, once: 'a=1 b=2,3' -> (a=1, b=2), (a=1, b=3). A key that an option of the line has not is
    left out beside it: 'etf=none,last_k etf.k=1,2' -> (etf=none), (etf=last_k, etf.k=1), (etf=last_k, etf.k=2). A list
    is one value: 'a=[1,2],[3]' -> (a=[1,2]), (a=[3])."""
    choices = []
    for word in line.split():
        key, _, values = word.partition("=")
        choices.append([f"{key}={value}" for value in BETWEEN.split(values)])
    return list(dict.fromkeys(words for words, _ in without_idle(list(product(*choices)))))


def _dataset(part: str, sizes: list[Keys]) -> str | None:
    """The dataset that a part's size names, if it does. Raises ConfigError for several."""
    named = {key.removeprefix(DATASET) for keys in sizes for key in keys if key.startswith(DATASET)}
    if len(named) > 1:
        raise ConfigError(f"the size of part {part} must name one dataset at most, got {', '.join(sorted(named))}")
    return next(iter(named), None)


def _seeds(of_profile: list[int] | dict[str, list[int]], size: str) -> list[int]:
    """The seeds of a size: those of the profile, or where they are told apart its own or `other`."""
    return of_profile if isinstance(of_profile, list) else of_profile.get(size, of_profile["other"])


def _with_seeds(config: RunConfig, seeds: list[int], output_root: str, paper: str) -> dict[int, RunConfig]:
    """Copies that differ in the seed alone: a paper has a thousand runs."""
    return {seed: replace(config.of_seed(seed), output_root=output_root, paper=paper) for seed in seeds}


def _run_of(composer: Composer, keys: Keys) -> tuple[Path, RunConfig]:
    """The run of a command line: what tells it apart but for its seed, and its configuration."""
    try:
        config = run_config(composer(keys))
    except ConfigError as error:
        raise ConfigError(f"{error} (in: {' '.join(keys)})") from None
    return config.of_seed(0).folder, config
