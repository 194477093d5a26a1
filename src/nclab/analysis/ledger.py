"""The ledger of claims: what is claimed, by whom, and which runs, number and rule decide it. See conf/claims.yaml."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nclab.analysis.runs import AnalysisError, Run
from nclab.analysis.statistics import STATISTICS, Statistic
from nclab.analysis.verdict import KINDS, Kind

REQUIRED = ("id", "claim", "source", "statistic", "kind", "commands")
OPTIONAL = ("treatment", "baseline", "runs", "per", "margin", "threshold", "why", "deterministic")
OPERATORS = ("not", "min")


@dataclass(frozen=True)
class Claim:
    """One entry. `treatment` is `runs` where nothing is compared; `why` says where margin or threshold come from."""

    id: str
    claim: str
    source: str
    statistic: Statistic
    kind: str
    treatment: dict[str, Any]
    baseline: dict[str, Any] | None = None
    margin: float = 0.0
    threshold: float = 0.0
    commands: tuple[str, ...] = ()
    per: dict[str, list] = field(default_factory=dict)
    why: str = ""
    deterministic: bool = False

    @property
    def rule(self) -> Kind:
        return KINDS[self.kind]

    @property
    def named(self) -> set[str]:
        """Keys in which treatment and baseline may differ because the claim is about them."""
        return {*self.treatment, *(self.baseline or {})}


def load_ledger(file: Path | str) -> list[Claim]:
    """The claims of a YAML file. Raises AnalysisError, one line, for the first mistake in it."""
    try:
        entries = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AnalysisError(f"{file}: {' '.join(str(error).split())}") from None
    if not (isinstance(entries, list) and entries):
        raise AnalysisError(f"{file}: expected a list of claims, got {type(entries).__name__}")
    claims = [_claim(entry, f"{file}, claim {i}") for i, entry in enumerate(entries, 1)]
    for i, claim in enumerate(claims):
        if claim.id in {earlier.id for earlier in claims[:i]}:
            raise AnalysisError(f"{file}: id '{claim.id}' is there twice")
    return claims


def meets(run: Run, conditions: dict[str, Any]) -> bool:
    """Whether a run's configuration meets every condition: a value, a list of values of which one, {not: value or
    list} or {min: number}. A key that the run has not meets no condition, `not` included."""
    return all(key in run.settings and _allows(wanted, run.settings[key]) for key, wanted in conditions.items())


def condition_text(conditions: dict[str, Any]) -> str:
    """'etf.name=last_k, etf.k=3' for people."""
    return ", ".join(f"{key}{_words(wanted)}" for key, wanted in conditions.items())


def _allows(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, dict):
        kept = not _allows(wanted["not"], value) if "not" in wanted else True
        return kept and ("min" not in wanted or (_is_number(value) and value >= wanted["min"]))
    return value in (wanted if isinstance(wanted, list) else [wanted])


def _words(wanted: Any) -> str:
    if not isinstance(wanted, dict):
        return "=" + ("|".join(map(str, wanted)) if isinstance(wanted, list) else str(wanted))
    signs = {"not": " not ", "min": ">="}
    return " and".join(signs[name] + _words(value)[1:] for name, value in wanted.items())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _claim(entry: Any, where: str) -> Claim:
    if not isinstance(entry, dict):
        raise AnalysisError(f"{where}: expected keys and values, got {type(entry).__name__}")
    where = f"{where} ({entry['id']})" if "id" in entry else where
    _choice(where, "key", list(entry), (*REQUIRED, *OPTIONAL))
    lacking = [key for key in REQUIRED if not entry.get(key)]
    if lacking:
        raise AnalysisError(f"{where}: lacks {', '.join(lacking)}; required: {', '.join(REQUIRED)}")
    for key in ("id", "claim", "source", "why"):
        if not isinstance(entry.get(key, ""), str):
            raise AnalysisError(f"{where}: {key} must be a text, got {entry[key]}")
    if not entry["id"].isidentifier():  # it names files and anchors
        raise AnalysisError(f"{where}: id must be a word of letters, digits and _, got '{entry['id']}'")
    _choice(where, "statistic", [entry["statistic"]], STATISTICS)
    _choice(where, "kind", [entry["kind"]], KINDS)
    kind, statistic = KINDS[entry["kind"]], STATISTICS[entry["statistic"]]
    sides = ("treatment", "baseline") if kind.paired else ("runs",)
    given = [key for key in ("treatment", "baseline", "runs") if key in entry]
    if sorted(given) != sorted(sides):
        raise AnalysisError(
            f"{where}: kind {entry['kind']} takes {' and '.join(sides)}, got {', '.join(given) or 'neither'}"
        )
    for side in sides:
        _check_conditions(f"{where}: {side}", entry[side])
    numbers = {key: _quantity(where, entry, key, statistic) for key in ("margin", "threshold") if key in entry}
    if "margin" in kind.needs and statistic.margin is not None:
        numbers.setdefault("margin", statistic.margin)
    if sorted(numbers) != sorted(kind.needs):
        got = ", ".join(numbers) or "neither"
        raise AnalysisError(f"{where}: kind {entry['kind']} takes {' and '.join(kind.needs)}, got {got}")
    if numbers.get("margin", 1.0) <= 0:
        raise AnalysisError(f"{where}: margin must be above 0, got {entry['margin']}")
    if not isinstance(entry.get("deterministic", False), bool):
        raise AnalysisError(f"{where}: deterministic must be true or false, got {entry['deterministic']}")
    commands = entry["commands"]
    if not (isinstance(commands, list) and all(isinstance(command, str) for command in commands)):
        raise AnalysisError(f"{where}: commands must be a list of texts, got {commands}")
    default = statistic.margin_reason if "margin" not in entry and "margin" in numbers else ""
    return Claim(
        id=entry["id"],
        claim=" ".join(entry["claim"].split()),
        source=entry["source"],
        statistic=statistic,
        kind=entry["kind"],
        treatment=entry[sides[0]],
        baseline=entry.get("baseline"),
        commands=tuple(commands),
        per=_per(where, entry, sides),
        why=" ".join((entry.get("why") or default).split()),
        deterministic=entry.get("deterministic", False),
        **numbers,
    )


def _choice(where: str, what: str, given: list, valid: Any) -> None:
    for name in given:
        if not isinstance(name, str) or name not in valid:
            raise AnalysisError(f"{where}: unknown {what} '{name}'; valid: {', '.join(valid)}")


def _check_conditions(where: str, conditions: Any) -> None:
    if not (isinstance(conditions, dict) and conditions and all(isinstance(key, str) for key in conditions)):
        raise AnalysisError(f"{where}: expected conditions such as etf.name: none, got {conditions}")
    for key, wanted in conditions.items():
        if isinstance(wanted, dict):
            _choice(f"{where}: {key}", "operator", list(wanted) or [""], OPERATORS)
            if not _is_number(wanted.get("min", 0)):
                raise AnalysisError(f"{where}: {key}: min must be a number, got {wanted['min']}")


def _quantity(where: str, entry: dict, key: str, statistic: Statistic) -> float:
    """'0.5 points' -> 0.5, with the unit of the statistic and no other."""
    amount, _, unit = str(entry[key]).partition(" ")
    try:
        value = float(amount)
    except ValueError:
        value = float("nan")
    if value != value or unit != statistic.unit:
        raise AnalysisError(f"{where}: {key} must be a number of '{statistic.unit}', got '{entry[key]}'")
    return value


def _per(where: str, entry: dict, sides: tuple[str, ...]) -> dict[str, list]:
    per = entry.get("per", {})
    if not (isinstance(per, dict) and all(isinstance(values, list) and values for values in per.values())):
        raise AnalysisError(f"{where}: per must give a list of values a key, such as etf.k: [1, 2, 3], got {per}")
    for key in per:
        if any(key in entry[side] for side in sides):
            raise AnalysisError(f"{where}: {key} is both a condition and in per")
    return per
