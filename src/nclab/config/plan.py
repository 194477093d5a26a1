"""Plans: the runs behind the figures and tables of a paper, in profiles of several sizes (conf/plan/NAME.yaml)."""

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from nclab.config.schema import ConfigError, RunConfig, typed

# Keys by which the plan tells runs and files apart; the command line has arguments of its own for some.
PLANNED = (
    "dataset",
    "dataset.name",
    "seed",
    "seeds",
    "output_root",
    "experiment",
    "experiment_name",
    "overwrite",
    "resume",
)

DATASET = "dataset="


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
        return [config.folder for config in self.configs if (config.folder / "DONE").exists()]


class Plan:
    """Reads conf/plan/NAME.yaml. Raises ConfigError for a file that is none, unknown parts and profiles."""

    def __init__(self, conf: Path, name: str):
        self.conf = conf
        valid = sorted(file.stem for file in (conf / "plan").glob("*.yaml"))
        if name not in valid:
            raise ConfigError(f"unknown plan '{name}'; valid: {', '.join(valid)}")
        tree = yaml.safe_load((conf / "plan" / f"{name}.yaml").read_text())
        self.parts: dict[str, dict[str, Any]] = tree["parts"]
        self.profiles: dict[str, dict[str, Any]] = tree["profiles"]

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
        """The checked runs of the named parts (none: all) on every dataset of the profile.

        datasets and seeds take the place of the profile's, datasets also of one that a named part's size names; all
        runs land below `output_root`. `overrides` are further keys of every run, `policy_overrides` of the runs with a
        policy (etf=none has no keys). A run that several parts need is one object in each of them.
        """
        for kind, asked, valid in (("part", parts, self.parts), ("profile", [profile], self.profiles)):
            unknown = [name for name in asked if name not in valid]
            if unknown:
                raise ConfigError(f"unknown {kind} '{unknown[0]}'; valid: {', '.join(valid)}")
        for word in overrides or []:
            if (key := word.split("=")[0].strip("+~")) in PLANNED:
                raise ConfigError(f"{key} is the plan's to set, for all its runs alike; leave out {word}")
        size = self.profiles[profile]
        for name in parts:
            if (model := self.parts[name]["model"]) not in size:
                raise ConfigError(f"part {name} has no size in profile {profile}: expected an entry {model} there")
        seeds = seeds or size["seeds"]
        if not all(0 <= seed < 2**63 for seed in seeds):
            raise ConfigError(f"seeds must be between 0 and 2^63 - 1, got {', '.join(map(str, seeds))}")
        sizes = {name: list(_expand(size[part["model"]])) for name, part in self.parts.items() if part["model"] in size}
        own_datasets = {name: own for name in sizes if (own := _dataset(name, sizes[name]))}
        if datasets and not parts:  # those with a dataset of their own would have to be named
            sizes = {name: own for name, own in sizes.items() if name not in own_datasets}
        pairs = product(datasets or size["datasets"], parts or sizes)
        pairs = dict.fromkeys(
            (dataset if datasets else own_datasets.get(name, dataset), name) for dataset, name in pairs
        )
        known: dict[tuple[str, ...], list[RunConfig]] = {}  # keys of a run -> its configuration with every seed
        found = []
        with initialize_config_dir(version_base="1.3", config_dir=str(self.conf)):
            for dataset, name in pairs:
                part = self.parts[name]
                own: list[RunConfig] = []
                lines = [run for line in part["runs"] for run in _expand(line)]
                for keys_of_size, run in product(sizes[name], lines):
                    of_policy = [] if "etf=none" in run else policy_overrides or []
                    size_keys = [key for key in keys_of_size if not key.startswith(DATASET)]
                    keys = (f"{DATASET}{dataset}", *size_keys, *run, "threads=1", *(overrides or []), *of_policy)
                    if keys not in known:
                        known[keys] = _with_seeds(_composed(list(keys)), seeds, output_root)
                    own += known[keys]
                found.append(Part(name, dataset, part["draw"], own))
        return found


def _expand(line: str) -> list[tuple[str, ...]]:
    """Every run of a line: 'a=1 b=2,3' -> (a=1, b=2), (a=1, b=3)."""
    choices = []
    for word in line.split():
        key, _, values = word.partition("=")
        choices.append([f"{key}={value}" for value in values.split(",")])
    return list(product(*choices))


def _dataset(part: str, sizes: list[tuple[str, ...]]) -> str | None:
    """The dataset that a part's size names, if it does. Raises ConfigError for several."""
    named = {key.removeprefix(DATASET) for keys in sizes for key in keys if key.startswith(DATASET)}
    if len(named) > 1:
        raise ConfigError(f"the size of part {part} must name one dataset at most, got {', '.join(sorted(named))}")
    return next(iter(named), None)


def _with_seeds(config: RunConfig, seeds: list[int], output_root: str) -> list[RunConfig]:
    """Copies that differ in the seed alone: composing takes a tenth of a second, and a paper has a thousand runs."""
    return [replace(config.of_seed(seed), output_root=output_root) for seed in seeds]


def _composed(keys: list[str]) -> RunConfig:
    try:
        return typed(compose("train", keys))
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
        raise ConfigError(f"{reason} (in: {' '.join(keys)})") from None
