"""The commands of a claim for one setting: those that repeat what was judged, not what the Makefile takes by itself."""

from pathlib import Path
from typing import Any

import yaml

from nclab.analysis.ledger import Claim
from nclab.analysis.pairs import is_free
from nclab.analysis.runs import AnalysisError, Run

Profiles = dict[str, dict[str, dict[str, Any]]]  # profile -> model -> keys of its runs


def load_profiles(file: Path) -> Profiles:
    """The profiles of a plan (conf/plan/paper.yaml) with the keys that they set for the runs of each model."""
    try:
        sizes = yaml.safe_load(file.read_text(encoding="utf-8"))["profiles"]
        return {
            profile: {model: _keys(words) for model, words in size.items() if isinstance(words, str)}
            for profile, size in sizes.items()
        }
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise AnalysisError(f"{file}: no profiles to be read: {' '.join(str(error).split())}") from None


def commands(claim: Claim, run: Run | None, profiles: Profiles) -> list[str]:
    """The claim's commands with the dataset, epochs and profile of a run; as they stand where there is none.

    'make figure1' -> 'make figure1 DATASET=mnist EPOCHS=30 PROFILE=cpu'. The profile is the one that sets most of what
    the run has, and nothing that the run has otherwise; none is named where there is no such one.
    """
    if run is None:
        return list(claim.commands)
    words = {"DATASET": run.config["dataset"]["name"], "EPOCHS": run.config["epochs"]}
    model = run.config["model"]["name"]
    fitting = {name: keys[model] for name, keys in profiles.items() if model in keys and _fits(claim, run, keys[model])}
    if fitting:
        words["PROFILE"] = max(fitting, key=lambda name: len(fitting[name]))
    told = " ".join(f"{key}={value}" for key, value in words.items())
    return [f"{_without(command, words)} {told}" for command in claim.commands]


def _fits(claim: Claim, run: Run, keys: dict[str, Any]) -> bool:
    """Whether a run has what a profile sets; how long it trained is said by EPOCHS."""
    return all(run.settings.get(key) == keys[key] or is_free(claim, run, key) for key in keys if key != "epochs")


def _keys(words: str) -> dict[str, Any]:
    """'schedule=cosine model.width=128' -> {'schedule.name': 'cosine', 'model.width': 128}."""
    pairs = [word.split("=", 1) for word in words.split()]
    return {key if "." in key or key == "epochs" else f"{key}.name": yaml.safe_load(value) for key, value in pairs}


def _without(command: str, keys: dict[str, Any]) -> str:
    """The command without what it says itself of these keys."""
    return " ".join(word for word in command.split(" ") if word.split("=")[0] not in keys)
