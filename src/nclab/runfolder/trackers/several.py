"""tracker=several: more than one tracker at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

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
        return {name: TRACKERS[name].settings(**given.get(name, {})) for name in self.trackers}

    def resumed(self) -> "SeveralSettings":
        return replace(self, settings={name: _keys(settings.resumed()) for name, settings in self.each().items()})


def _keys(settings: TrackerSettings) -> dict[str, Any]:
    return {f.name: getattr(settings, f.name) for f in fields(settings) if f.name != "name"}


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
        for member in self._members:
            member.check()
