"""tracker=several: more than one tracker at once."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nclab.interfaces.valid import no_choice
from nclab.runfolder.tracker import TRACKERS, Tracker, TrackerSettings


@dataclass
class SeveralSettings(TrackerSettings):
    name: str = "several"
    trackers: list[str] = field(default_factory=lambda: ["tensorboard", "wandb"])  # two or more, each as tracker=NAME
    # keys of these trackers: {wandb: {project: mine, mode: offline}}
    settings: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        valid = [name for name in TRACKERS.names() if name not in ("several", "none")]
        for name in self.trackers:
            if name not in valid:
                raise no_choice("tracker.trackers", name, valid)
        if len(set(self.trackers)) != len(self.trackers) or len(self.trackers) < 2:
            raise ValueError(f"tracker.trackers must be two or more different ones, got {self.trackers}")
        for name, keys in (self.settings or {}).items():
            if name not in self.trackers:
                raise no_choice("tracker.settings", name, self.trackers)
            there = [f.name for f in fields(TRACKERS[name].settings) if f.name != "name"]
            if not isinstance(keys, dict):
                raise ValueError(
                    f"tracker.settings.{name} must be keys ({', '.join(there) or 'it has none'}); got {keys}"
                )
            for key in keys:
                if key not in there:
                    raise no_choice(f"tracker.settings.{name}", key, there)
        # Filled in from the environment now, so that the run folder stores it.
        self.settings = {name: _keys(settings) for name, settings in self.each().items()}

    def each(self) -> dict[str, TrackerSettings]:
        """The settings of every tracker. Raises ValueError as they do."""
        given = self.settings or {}
        return {name: _typed(name, given.get(name, {})) for name in self.trackers}

    def resumed(self) -> "SeveralSettings":
        return replace(self, settings={name: _keys(settings.resumed()) for name, settings in self.each().items()})


def _keys(settings: TrackerSettings) -> dict[str, Any]:
    return {f.name: getattr(settings, f.name) for f in fields(settings) if f.name != "name"}


def _typed(name: str, keys: dict[str, Any]) -> TrackerSettings:
    """The settings of a tracker, of values that a command line may have given another type. Raises ValueError."""
    schema = TRACKERS[name].settings
    values = {}
    for key, value in keys.items():
        try:
            node = OmegaConf.structured(schema)
            node[key] = value
            values[key] = OmegaConf.to_container(node)[key]
            wrong = _mistaken(value, values[key])
        except OmegaConfBaseException:
            wrong = True
        if wrong:
            kind = schema.__dataclass_fields__[key].type
            expected = kind.__name__ if type(kind) is type else kind
            raise ValueError(f"tracker.settings.{name}.{key}: expected {expected}, got {value}")
    try:
        return schema(**values)
    except ValueError as error:
        raise _of_member(name, error) from None


def _mistaken(value: Any, typed: Any) -> bool:
    """Whether OmegaConf made true or false of another type, or another type of them."""
    if isinstance(value, list):
        return any(map(_mistaken, value, typed))
    return isinstance(value, bool) != isinstance(typed, bool)


def _of_member(name: str, error: ValueError) -> ValueError:
    """The error of a tracker as of one of several, whose keys are written in another way."""
    said = re.sub(r"\btracker\.(\w+)=(\w+)", rf"tracker.settings={{{name}:{{\1:\2}}}}", str(error))
    return ValueError(re.sub(r"\btracker\.(?!settings\b)(\w+)", rf"tracker.settings.{name}.\1", said))


@TRACKERS.add("several", SeveralSettings)
class SeveralTrackers(Tracker):
    """Is told nothing itself: each of `members` is guarded alone, so that one that fails costs no other."""

    def __init__(self, settings: SeveralSettings):
        self.settings = settings
        self._members = [TRACKERS[name].build(one) for name, one in settings.each().items()]

    @property
    def members(self) -> Sequence[Tracker]:
        return self._members

    @property
    def writes(self) -> tuple[str, ...]:
        return tuple(name for member in self._members for name in member.writes)

    def check(self) -> None:
        for name, member in zip(self.settings.trackers, self._members, strict=True):
            try:
                member.check()
            except ValueError as error:
                raise _of_member(name, error) from None
