"""What runs a drawing can show, and what is said of others: a picture of another kind of network would mislead."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from nclab.analysis.runs import Run
from nclab.system.words import first_of

MOST_FOLDERS = 3  # that a message names


@dataclass(frozen=True)
class Needs:
    """What a run must be for a drawing to show it; what is empty excludes none.

    Args:
        says: For people, in the plural: 'vision transformers'.
        models: Names of models.
        roles: Its layers have each of these roles, see `Run.layers`.
        without: None of its layers has one of these roles.
        policies: Regular expression of the whole labels of the policies that are drawn where none are named: at least
            one run must have one of them.
        accuracy: Its network decides between classes.
        suites: It measures each of these suites of metrics.
    """

    says: str
    models: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()
    policies: str = ""
    accuracy: bool = True
    suites: frozenset[str] = frozenset()

    def met_by(self, run: Run) -> bool:
        """Whether the run is of this kind, whatever its policy. Raises AnalysisError for a file that cannot be read."""
        if self.models and run.config["model"]["name"] not in self.models:
            return False
        if self.accuracy and not _decides(run):
            return False
        if not self.suites <= {*run.config["metrics"].get("suite", ())}:
            return False
        if not self.roles and not self.without:
            return True
        roles = {layer["role"] for layer in run.layers}
        return self.roles <= roles and not self.without & roles

    def drawn_of(self, runs: list[Run], policies: list[str] | None = None) -> list[Run]:
        """The runs of this kind; none where none of them has a usual policy and no `policies` are named."""
        kind = [run for run in runs if self.met_by(run)]
        usual = policies or not self.policies or any(re.fullmatch(self.policies, run.policy) for run in kind)
        return kind if usual else []


def described(runs: list[Run]) -> str:
    """'of model vit, policy baseline, FFN-ETF, without classes'."""
    text = f"of model {_list(run.config['model']['name'] for run in runs)}, policy {_list(run.policy for run in runs)}"
    return text if all(map(_decides, runs)) else f"{text}, without classes"


def folders_of(runs: list[Run]) -> str:
    """The experiment folders that hold them."""
    folders = dict.fromkeys(str(run.path.parent) for run in runs)
    return first_of(folders, MOST_FOLDERS)


def _decides(run: Run) -> bool:
    return "accuracy" in (run.summary.get("final") or {}).get("train", {})


def _list(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))
