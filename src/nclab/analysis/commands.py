"""The commands of a claim for one setting: those that repeat what was judged, not what the Makefile takes by itself."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nclab.analysis.ledger import Claim
from nclab.analysis.pairs import is_free
from nclab.analysis.runs import AnalysisError, Run

DATASET = "dataset.name"
Keys = dict[str, list[Any]]  # key -> the values that it takes, several where the profile sweeps


@dataclass(frozen=True)
class PlanSizes:
    """What commands say of a plan (conf/plan/NAME.yaml): `profiles`, profile -> size -> keys that it sets, and `parts`,
    part -> the name of its size, as a rule a model's."""

    profiles: dict[str, dict[str, Keys]] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)


def load_plan(file: Path) -> PlanSizes:
    """The profiles and parts of a plan's file."""
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
        profiles = {
            profile: {name: _keys(words) for name, words in sizes.items() if isinstance(words, str)}
            for profile, sizes in tree["profiles"].items()
        }
        return PlanSizes(profiles, {name: part["model"] for name, part in tree["parts"].items()})
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise AnalysisError(f"{file}: no profiles and parts to be read: {' '.join(str(error).split())}") from None


def commands(claim: Claim, run: Run | None, plan: PlanSizes) -> list[str]:
    """The claim's commands with the dataset, epochs and profile of a run; as they stand where there is none.

    'make figure1' -> 'make figure1 DATASET=mnist EPOCHS=30 PROFILE=cpu'. The profile is the one that sets most of what
    the run has, and nothing that the run has otherwise; where there is no such one, none is named, but of a part that
    not every profile has the one that sets least of what the run has otherwise. The dataset is left out where the
    profile's size names it.
    """
    return list(claim.commands) if run is None else [_told(command, claim, run, plan) for command in claim.commands]


def _told(command: str, claim: Claim, run: Run, plan: PlanSizes) -> str:
    part = next((word for word in re.split(r"[\s=\"']+", command) if word in plan.parts), None)  # also ARGS=depth_rn
    size = run.config["model"]["name"] if part is None else plan.parts[part]
    sizes = {profile: keys[size] for profile, keys in plan.profiles.items() if size in keys}
    wrong = {profile: _otherwise(claim, run, keys) for profile, keys in sizes.items()}
    fitting = [profile for profile in sizes if not wrong[profile]]
    if not fitting and part and len(sizes) < len(plan.profiles):
        fitting = [profile for profile in sizes if wrong[profile] == min(wrong.values())]
    dataset = run.config["dataset"]["name"]
    profile = max(fitting, key=lambda name: (dataset in _datasets(sizes[name]), len(sizes[name])), default=None)
    words = {"DATASET": dataset, "EPOCHS": run.config["epochs"], "PROFILE": profile}
    if profile is None:
        del words["PROFILE"]
    elif dataset in _datasets(sizes[profile]):
        del words["DATASET"]
    return f"{_without(command, words)} {' '.join(f'{key}={value}' for key, value in words.items())}"


def _otherwise(claim: Claim, run: Run, keys: Keys) -> int:
    """How many keys a profile sets to what the run has not; how long it trained and on what is said by EPOCHS and
    DATASET."""
    told = [key for key in keys if key not in ("epochs", DATASET) and not is_free(claim, run, key)]
    return sum(run.settings.get(key) not in keys[key] for key in told)


def _datasets(keys: Keys) -> list[Any]:
    return keys.get(DATASET, [])


def _keys(words: str) -> Keys:
    """'schedule=cosine model.blocks=2,5' -> {'schedule.name': ['cosine'], 'model.blocks': [2, 5]}."""
    pairs = [word.split("=", 1) for word in words.split()]
    return {
        key if "." in key or key == "epochs" else f"{key}.name": [yaml.safe_load(value) for value in values.split(",")]
        for key, values in pairs
    }


def _without(command: str, keys: dict[str, Any]) -> str:
    """The command without what it says itself of these keys."""
    return " ".join(word for word in command.split(" ") if word.split("=")[0] not in keys)
