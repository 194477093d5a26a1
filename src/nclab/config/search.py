"""`hydra/sweeper=optuna`: a sweep whose values are searched. What it searches, and the job of each trial."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Sweep

from nclab.config.checks import ConfigError
from nclab.config.job import Job, Words
from nclab.interfaces.valid import unknown

DIRECTIONS = ("maximize", "minimize")
ALGORITHMS = ("tpe", "random")


@dataclass
class SearchSettings:
    """The keys of conf/hydra/sweeper/optuna.yaml, which says what they mean."""

    trials: int = 20
    direction: str | None = None
    algorithm: str = "tpe"
    startup: int = 10
    seed: int = 0
    params: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.direction is None:
            raise ValueError("hydra.sweeper.direction must be maximize or minimize, of metrics.headline; got null")
        for key, valid in (("direction", DIRECTIONS), ("algorithm", ALGORITHMS)):
            if getattr(self, key) not in valid:
                raise ValueError(unknown(f"hydra.sweeper.{key}", getattr(self, key), valid))
        for key, least in (("trials", 1), ("startup", 0), ("seed", 0)):
            if not least <= getattr(self, key) < 2**31:
                raise ValueError(f"hydra.sweeper.{key} must be between {least} and 2^31 - 1, got {getattr(self, key)}")


@dataclass(frozen=True)
class Choices:
    """Values in no order, each as it is typed."""

    values: tuple[str, ...]

    @property
    def ends(self) -> tuple[str, ...]:
        """The values by which the search is checked before it begins."""
        return self.values


@dataclass(frozen=True)
class Between:
    """Numbers from `low` to `high`, both included; whole ones where both are. step: between them; None: any. log: drawn
    evenly by their logarithm."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def ends(self) -> tuple[float, float]:
        return self.low, self.high


Dimension = Choices | Between


@dataclass(frozen=True)
class Search:
    """settings; space: key -> what it is searched in; fixed: the words that all trials have; compose: makes the checked
    job of a trial's words."""

    settings: SearchSettings
    space: dict[str, Dimension]
    fixed: Words
    compose: Callable[[Words], Job]

    def words(self, values: dict[str, Any]) -> Words:
        """What a trial varies, as it is typed."""
        return tuple(f"{key}={value if isinstance(value, str) else repr(value)}" for key, value in values.items())

    def job(self, values: dict[str, Any]) -> Job:
        """The job of a trial. Raises ConfigError."""
        return self.compose((*self.fixed, *self.words(values)))

    def corners(self) -> list[dict[str, Any]]:
        """Values to be checked before the search begins: each end of every dimension beside the first of the others."""
        first = {key: dimension.ends[0] for key, dimension in self.space.items()}
        return [{**first, key: end} for key, dimension in self.space.items() for end in dict.fromkeys(dimension.ends)]


def space_of(overrides: list[Override]) -> tuple[dict[str, Dimension], Words]:
    """What is searched, and the words that all trials have. Raises ConfigError."""
    space: dict[str, Dimension] = {}
    fixed = []
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override() and override.is_delete():
            raise ConfigError(f"hydra/sweeper=optuna: expected a key with values, got {override.input_line}")
        if not override.is_sweep_override():
            fixed.append(f"{key}={override.get_value_element_as_str()}")
            continue
        if key == "seeds" or override.key_or_group in ("seed", "experiment", "resume"):
            raise ConfigError(f"hydra/sweeper=optuna does not search {key}; got {override.input_line}")
        space[key] = _dimension(override)
    if not space:
        raise ConfigError(
            "hydra/sweeper=optuna has nothing to search: expected a key with several values, such as "
            "'optimizer.lr=interval(0.01,0.1)' or etf.k=1,2,3"
        )
    return space, tuple(fixed)


def _dimension(override: Override) -> Dimension:
    value = override.value()
    tags = set(value.tags) if isinstance(value, Sweep) else set()
    if tags - {"log"} or (tags and not isinstance(value, IntervalSweep)):
        raise ConfigError(f"{override.input_line}: expected no tag, or tag(log, interval(a,b))")
    if isinstance(value, IntervalSweep):
        between = Between(value.start, value.end, log="log" in value.tags)
        if not between.low < between.high or (between.log and between.low <= 0):
            least = " above 0" if between.log else ""
            raise ConfigError(f"{override.input_line}: expected two numbers{least}, the smaller one first")
        return between
    if isinstance(value, RangeSweep):
        listed = list(value.range())
        if len(listed) > 1 and value.step > 0 and not value.shuffle:
            return Between(listed[0], listed[-1], value.step)
    if not override.is_discrete_sweep():
        raise ConfigError(f"hydra/sweeper=optuna: expected values, a range or an interval, got {override.input_line}")
    return Choices(tuple(dict.fromkeys(override.sweep_string_iterator())))
