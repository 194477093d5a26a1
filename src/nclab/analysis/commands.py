"""The commands of a claim for one setting: those that repeat what was judged."""

import re
import shlex

from nclab.analysis.ledger import Claim
from nclab.analysis.runs import Run
from nclab.config.record import Record


def commands(claim: Claim, run: Run | None) -> list[str]:
    """The claim's commands with a run's dataset and epochs, and the profile and further arguments that it recorded.

    'make figure1' -> 'make figure1 DATASET=mnist EPOCHS=30 PROFILE=cpu'. Without a run they stand as they are. No
    profile is named where the run recorded none, or belongs to no part that the claim's commands name.
    """
    if run is None:
        return list(claim.commands)
    words = {"DATASET": run.config["dataset"]["name"], "EPOCHS": run.config["epochs"]}
    record = Record.read(run.config.get("paper"))
    if record and {word for command in claim.commands for word in re.findall(r"\w+", command)} & set(record.parts):
        words["PROFILE"] = record.profile
        if further := " ".join(map(shlex.quote, record.words)):
            words["ARGS"] = shlex.quote(further)
    told = " ".join(f"{key}={value}" for key, value in words.items())
    return [f"{_without(command, words)} {told}" for command in claim.commands]


def _without(command: str, keys: dict[str, object]) -> str:
    """The command without what it says itself of these keys."""
    return " ".join(word for word in command.split(" ") if word.split("=")[0] not in keys)
