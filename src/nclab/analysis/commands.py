"""The commands of a claim for one setting: those that repeat what was judged."""

import re
import shlex

from nclab.analysis.ledger import Claim
from nclab.analysis.runs import Run
from nclab.config.record import Record


def commands(claim: Claim, run: Run | None) -> list[str]:
    """The claim's commands with a run's dataset and epochs, and the profile and further arguments that it recorded.

    'nclab-paper run W --part P' -> 'nclab-paper run W --part P --dataset mnist --epochs 30 --profile cpu'. Without a
    run they stand as they are. No profile is named where the run recorded none, or belongs to no part that the
    claim's commands name.
    """
    if run is None:
        return list(claim.commands)
    options = {"--dataset": run.config["dataset"]["name"], "--epochs": run.config["epochs"]}
    further = ""
    record = Record.read(run.config.get("paper"))
    if record and {word for command in claim.commands for word in re.findall(r"\w+", command)} & set(record.parts):
        options["--profile"] = record.profile
        further = "".join(f" {shlex.quote(word)}" for word in record.words)
    told = " ".join(f"{option} {value}" for option, value in options.items())
    return [f"{_without(command, options)} {told}{further}" for command in claim.commands]


def _without(command: str, options: dict[str, object]) -> str:
    """The command without what it says itself of these options."""
    return re.sub(rf" ({'|'.join(options)}) \S+", "", command)
