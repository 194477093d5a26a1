"""The ledger of claims: what is claimed, by whom, and which runs, number and rule decide it. See conf/claims.yaml."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nclab.analysis.runs import AnalysisError, Run
from nclab.analysis.statistics import STATISTICS, Statistic
from nclab.analysis.trend import LEAST_DEPTHS
from nclab.analysis.trend import UNIT as SLOPE_UNIT
from nclab.analysis.verdict import KINDS, Kind

REQUIRED = ("id", "claim", "source", "statistic", "kind", "commands")
OPTIONAL = ("treatment", "baseline", "runs", "along", "per", "margin", "threshold", "why", "deterministic")
OPERATORS = ("not", "min", "times", "is")
FILE_KEYS = ("title", "paper", "plan", "claims")
TITLE = "Neural collapse: the ledger of claims"


@dataclass(frozen=True)
class Claim:
    """One entry. `treatment` is `runs` where nothing is compared; `why` says where margin or threshold come from.

    `along` is the key of a series: its runs of one seed make one number, the slope of log10(statistic) on log10(key).
    """

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
    along: str = ""

    @property
    def rule(self) -> Kind:
        return KINDS[self.kind]

    @property
    def unit(self) -> str:
        """That of the numbers judged, of margin and threshold."""
        return SLOPE_UNIT if self.along else self.statistic.unit

    @property
    def about(self) -> str:
        """What the number of a seed is."""
        slope = f" Judged is the slope of its log10 on log10 of {self.along}, one line a seed." if self.along else ""
        return self.statistic.description + slope

    @property
    def free(self) -> set[str]:
        """Keys in which the runs of one series differ: what it goes along, and what is tied to that by `times`."""
        tied = {key for key, wanted in self.treatment.items() if isinstance(wanted, dict) and "times" in wanted}
        return {self.along, *tied} if self.along else set()

    @property
    def named(self) -> set[str]:
        """Keys in which treatment and baseline may differ because the claim is about them."""
        return {*self.treatment, *(self.baseline or {})}


@dataclass(frozen=True)
class Ledger:
    """The claims of a file, over which it iterates; `paper` is what they are of, `plan` names the file in conf/plan
    whose profiles their commands may name and whose figures a report shows; '' if the file names none."""

    claims: tuple[Claim, ...]
    title: str = TITLE
    paper: str = ""
    plan: str = ""

    def __iter__(self) -> Iterator[Claim]:
        return iter(self.claims)

    def __len__(self) -> int:
        return len(self.claims)


def load_ledger(file: Path | str) -> Ledger:
    """The claims of a YAML file: a list of them, or {title, paper, plan, claims}, all but the claims optional.

    Raises AnalysisError, one line, for the first mistake in it.
    """
    try:
        tree = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AnalysisError(f"{file}: {' '.join(str(error).split())}") from None
    about = {}
    if isinstance(tree, dict) and "claims" in tree:
        _choice(str(file), "key", list(tree), FILE_KEYS)
        about = {key: tree[key] for key in FILE_KEYS[:-1] if key in tree}
        for key, text in about.items():
            if not (isinstance(text, str) and text.strip()):
                raise AnalysisError(f"{file}: {key} must be a text, got {text}")
        tree = tree["claims"]
    if not (isinstance(tree, list) and tree):
        raise AnalysisError(
            f"{file}: expected a list of claims, alone or under the key claims beside {', '.join(FILE_KEYS[:-1])}; "
            f"got {type(tree).__name__}"
        )
    claims = [_claim(entry, f"{file}, claim {i}") for i, entry in enumerate(tree, 1)]
    for i, claim in enumerate(claims):
        if claim.id in {earlier.id for earlier in claims[:i]}:
            raise AnalysisError(f"{file}: id '{claim.id}' is there twice")
    return Ledger(tuple(claims), **{key: " ".join(text.split()) for key, text in about.items()})


def meets(run: Run, conditions: dict[str, Any]) -> bool:
    """Whether a run's configuration meets every condition: a value, a list of values of which one, {not: value or
    list}, {min: number} or {times: key, is: number}, the product of both keys' values but for rounding. A key that the
    run has not meets no condition, `not` included."""
    return all(
        key in run.settings and _allows(wanted, run.settings[key], run.settings) for key, wanted in conditions.items()
    )


def condition_text(conditions: dict[str, Any]) -> str:
    """'etf.name=last_k, etf.k=3' for people."""
    return ", ".join(f"{key}{_words(wanted)}" for key, wanted in conditions.items())


def _allows(wanted: Any, value: Any, settings: dict[str, Any]) -> bool:
    if isinstance(wanted, dict):
        if "times" in wanted:
            factor = settings.get(wanted["times"])
            known = _is_number(value) and _is_number(factor)
            return known and math.isclose(value * factor, wanted["is"], rel_tol=1e-6, abs_tol=1e-12)
        kept = not _allows(wanted["not"], value, settings) if "not" in wanted else True
        return kept and ("min" not in wanted or (_is_number(value) and value >= wanted["min"]))
    return value in (wanted if isinstance(wanted, list) else [wanted])


def _words(wanted: Any) -> str:
    if not isinstance(wanted, dict):
        return "=" + ("|".join(map(str, wanted)) if isinstance(wanted, list) else str(wanted))
    if "times" in wanted:
        return f" × {wanted['times']}={wanted['is']}"
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
    along = _along(where, entry, statistic, sides)
    unit = SLOPE_UNIT if along else statistic.unit
    numbers = {key: _quantity(where, entry, key, unit) for key in ("margin", "threshold") if key in entry}
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
        along=along,
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
            if {"times", "is"} & set(wanted):
                whole = set(wanted) == {"times", "is"} and isinstance(wanted["times"], str) and _is_number(wanted["is"])
                if not whole:
                    raise AnalysisError(f"{where}: {key}: expected {{times: a key, is: a number}} alone, got {wanted}")


def _along(where: str, entry: dict, statistic: Statistic, sides: tuple[str, ...]) -> str:
    """The key of a series, '' where there is none; refuses what makes no slope."""
    along = entry.get("along", "")
    if not isinstance(along, str) or ("along" in entry and not along):
        raise AnalysisError(f"{where}: along must be a key such as model.blocks, got {along}")
    if not along:
        return ""
    if sides != ("runs",):
        alone = ", ".join(name for name, kind in KINDS.items() if not kind.paired)
        raise AnalysisError(f"{where}: along takes a kind that compares nothing ({alone}), got {entry['kind']}")
    if not statistic.positive:
        valid = ", ".join(name for name, other in STATISTICS.items() if other.positive)
        raise AnalysisError(f"{where}: along takes a statistic that is positive ({valid}), got {statistic.name}")
    for key, wanted in entry["runs"].items():
        if isinstance(wanted, dict) and "times" in wanted and (wanted["times"] != along or key == along):
            raise AnalysisError(f"{where}: {key}: times {wanted['times']} in a series along {along}: expected that key")
    wanted = entry["runs"].get(along)
    if wanted is not None and not isinstance(wanted, dict):
        values = wanted if isinstance(wanted, list) else [wanted]
        if len(values) < LEAST_DEPTHS:
            raise AnalysisError(f"{where}: a slope along {along} takes at least {LEAST_DEPTHS} values, got {values}")
    return along


def _quantity(where: str, entry: dict, key: str, expected: str) -> float:
    """'0.5 points' -> 0.5, with the unit expected and no other."""
    amount, _, unit = str(entry[key]).partition(" ")
    try:
        value = float(amount)
    except ValueError:
        value = float("nan")
    if value != value or unit != expected:
        raise AnalysisError(f"{where}: {key} must be a number of '{expected}', got '{entry[key]}'")
    return value


def _per(where: str, entry: dict, sides: tuple[str, ...]) -> dict[str, list]:
    per = entry.get("per", {})
    if not (isinstance(per, dict) and all(isinstance(values, list) and values for values in per.values())):
        raise AnalysisError(f"{where}: per must give a list of values a key, such as etf.k: [1, 2, 3], got {per}")
    for key in per:
        if any(key in entry[side] for side in sides):
            raise AnalysisError(f"{where}: {key} is both a condition and in per")
        if key == entry.get("along"):
            raise AnalysisError(f"{where}: {key} is both along and in per: a slope takes all its values at once")
    return per
