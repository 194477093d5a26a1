"""The wings there are, and where each keeps its plan, its claims and its runs. Torch-free."""

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nclab.analysis.drawings import DRAWINGS
from nclab.config.experiments import experiments
from nclab.config.place import CONF
from nclab.config.record import Record
from nclab.interfaces.valid import unknown


class NoWing(ValueError):
    """The name is no wing's; the message says which there are."""


@dataclass(frozen=True)
class Wing:
    """A paper: the package `nclab.papers.<name>`, conf/paper/<name>/ and conf/experiment/<name>/."""

    name: str
    conf: Path = CONF

    @property
    def title(self) -> str:
        """The first line of the package's docstring."""
        return (importlib.import_module(f"{__package__}.{self.name}").__doc__ or "").strip().partition("\n")[0]

    @property
    def plan(self) -> dict[str, Any]:
        """conf/paper/<name>/plan.yaml: parts and profiles."""
        return yaml.safe_load((self.conf / "paper" / self.name / "plan.yaml").read_text(encoding="utf-8"))

    @property
    def ledger(self) -> Path:
        """The file of its claims."""
        return self.conf / "paper" / self.name / "claims.yaml"

    @property
    def experiments(self) -> list[str]:
        """Names of the folders below an output root in which its runs lie, sorted."""
        return sorted(name for option, name in experiments(self.conf).items() if option.startswith(f"{self.name}/"))

    def folders(self, output: Path) -> list[Path]:
        """Those of its experiment folders that are there."""
        return [output / name for name in self.experiments if (output / name).is_dir()]

    def record(self, config: dict[str, Any]) -> Record | None:
        """What a run recorded of this wing's command; None for runs of others, and of before it was recorded."""
        record = Record.read(config.get("paper"))
        return record if record and record.wing == self.name else None

    @property
    def captions(self) -> dict[str, str]:
        """Part -> the caption of its figure."""
        return {name: DRAWINGS[part["draw"]].caption for name, part in self.plan["parts"].items()}


def wing_names() -> list[str]:
    """Names of all wings, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(__package__).__path__)
                  if module.ispkg)  # fmt: skip


def find_wing(name: str) -> Wing:
    """The wing of that name. Raises NoWing."""
    if name not in (valid := wing_names()):
        raise NoWing(unknown("paper", name, valid))
    return Wing(name)
