"""The ledger of claims: what is claimed, by whom, and which runs, number and rule decide it. See
conf/paper/simplex_etf/claims.yaml."""

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from nclab.analysis.found import load_registered
from nclab.analysis.margins import RULE
from nclab.analysis.runs import AnalysisError, Run
from nclab.analysis.statistics import STATISTICS, Statistic
from nclab.analysis.trend import LEAST_DEPTHS
from nclab.analysis.trend import UNIT as SLOPE_UNIT
from nclab.analysis.verdict import KINDS, Kind

TITLE = "Neural collapse: the ledger of claims"
STRICT = ConfigDict(extra="forbid", strict=True)  # true is no number, 3 is no text


@dataclass(frozen=True)
class Claim:
    """One entry. `treatment` is `runs` where nothing is compared; `why` says where margin or threshold come from. A
    margin of None is that of `margins`, which depends on the baseline.

    `family` is the group of claims that Holm's procedure corrects together. `seeds` is the number of seeds that a
    verdict has; None: none was stated.

    `along` is the key of a series: its runs of one seed make one number, the slope of log10(statistic) on log10(key).
    `spread`: the number of a run is its distance from the median over the seeds of its side.
    """

    id: str
    claim: str
    source: str
    statistic: Statistic
    kind: str
    treatment: dict[str, Any]
    baseline: dict[str, Any] | None = None
    margin: float | None = 0.0
    threshold: float = 0.0
    commands: tuple[str, ...] = ()
    per: dict[str, list] = field(default_factory=dict)
    why: str = ""
    deterministic: bool = False
    along: str = ""
    spread: bool = False
    family: str = ""
    seeds: int | None = None

    @property
    def rule(self) -> Kind:
        return KINDS[self.kind]

    @property
    def unit(self) -> str:
        """That of the numbers judged, of margin and threshold."""
        return SLOPE_UNIT if self.along else self.statistic.unit

    @property
    def written(self) -> str:
        """The test in words: 'non-inferiority, margin 0.5 points'."""
        margin = RULE if self.margin is None else f"{self.margin:g} {self.unit}"
        slope = f"slope along {self.along}, " if self.along else ""
        of = "distance from the median of its side, " if self.spread else ""
        return of + slope + self.rule.written.format(margin=margin, threshold=f"{self.threshold:g} {self.unit}")

    @property
    def about(self) -> str:
        """What the number of a seed is."""
        slope = f" Judged is the slope of its log10 on log10 of {self.along}, one line a seed." if self.along else ""
        spread = " Judged is its distance from the median over the seeds of its side." if self.spread else ""
        return self.statistic.description + slope + spread

    @property
    def free(self) -> set[str]:
        """Keys in which the runs of one series differ: what it goes along, and what is tied to that by `times`."""
        tied = {key for key, wanted in self.treatment.items() if isinstance(wanted, dict) and "times" in wanted}
        return {self.along, *tied} if self.along else set()

    @property
    def named(self) -> set[str]:
        """Keys in which treatment and baseline may differ because the claim is about them; none that it asks of both
        alike: two numbers of epochs are compared by no claim that names them on both sides in one way."""
        one, two = self.treatment, self.baseline or {}
        return {key for key in {*one, *two} if key not in one or key not in two or one[key] != two[key]}


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


def no_finished_run(conditions: dict[str, Any]) -> str:
    """Why there is no verdict: 'no finished run with etf.k=1'."""
    return f"no finished run with {condition_text(conditions)}"


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


def _one_of(valid: Collection[str]) -> Callable[[str], str]:
    """A check when a file is read, not when this module is: statistics may be registered later."""

    def check(name: str) -> str:
        if name not in valid:
            raise ValueError(f"expected one of {', '.join(valid)}; got {name!r}")
        return name

    return check


def _word(name: str) -> str:
    if not name.isidentifier():  # it names files and anchors
        raise ValueError(f"expected a word of letters, digits and _, got {name!r}")
    return name


def _condition(wanted: Any) -> Any:
    if isinstance(wanted, dict):
        product = set(wanted) == {"times", "is"} and isinstance(wanted["times"], str) and _is_number(wanted["is"])
        bounds = wanted and set(wanted) <= {"not", "min"} and _is_number(wanted.get("min", 0))
        if not (product or bounds):
            forms = "a value, a list of values, {not: value}, {min: number} or {times: key, is: number}"
            raise ValueError(f"expected {forms}, got {wanted!r}")
    return wanted


Text = Annotated[str, AfterValidator(lambda text: " ".join(text.split())), Field(min_length=1)]
Quantity = Annotated[str, BeforeValidator(str)]  # "0.5 points"; which unit depends on the entry
Conditions = Annotated[dict[str, Annotated[Any, AfterValidator(_condition)]], Field(min_length=1)]


class _Entry(BaseModel):
    """A claim as the file holds it; what its keys mean says
    conf/paper/simplex_etf/claims.yaml."""

    model_config = STRICT
    id: Annotated[str, AfterValidator(_word)]
    claim: Text
    source: Text
    statistic: Annotated[str, AfterValidator(_one_of(STATISTICS))]
    kind: Annotated[str, AfterValidator(_one_of(KINDS))]
    commands: Annotated[list[str], Field(min_length=1)]
    treatment: Conditions | None = None
    baseline: Conditions | None = None
    runs: Conditions | None = None
    along: Text | None = None
    spread: bool = False
    per: dict[str, Annotated[list, Field(min_length=1)]] = {}
    margin: Quantity | None = None
    threshold: Quantity | None = None
    why: str = ""
    deterministic: bool = False
    family: Text | None = None
    seeds: Annotated[int, Field(ge=2)] | None = None

    def built(self) -> Claim:
        """The claim, if its keys agree with one another."""
        kind, statistic = KINDS[self.kind], STATISTICS[self.statistic]
        sides = ("treatment", "baseline") if kind.paired else ("runs",)
        self._require(sides, ("treatment", "baseline", "runs"))
        conditions = [getattr(self, side) for side in sides]
        if self.along:
            self._check_series(statistic)
        if self.spread and self.kind not in ("lower", "higher"):
            raise ValueError(f"spread takes kind lower or higher, got {self.kind}")
        if self.spread and self.margin is None:
            raise ValueError("spread takes a margin, got none")
        for key in self.per:
            if any(key in side for side in conditions):
                raise ValueError(f"{key} is both a condition and in per")
            if key == self.along:
                raise ValueError(f"{key} is both along and in per: a slope takes all its values at once")
        unit = SLOPE_UNIT if self.along else statistic.unit
        by_errors = statistic.by_errors and kind.paired and self.margin is None
        self._require(kind.needs, ("margin", "threshold"), ("margin",) if by_errors else ())
        numbers = {key: None if by_errors and key == "margin" else self._amount(key, unit) for key in kind.needs}
        if (margin := numbers.get("margin")) is not None and margin <= 0:
            raise ValueError(f"margin must be above 0, got {self.margin}")
        return Claim(
            **self.model_dump(include={"id", "claim", "source", "kind", "baseline", "per", "deterministic", "spread"}),
            **numbers,
            statistic=statistic,
            treatment=conditions[0],
            commands=tuple(self.commands),
            why=" ".join(self.why.split()),
            along=self.along or "",
            family=self.family or "",
            seeds=self.seeds,
        )

    def _require(self, needed: tuple[str, ...], among: tuple[str, ...], spared: tuple[str, ...] = ()) -> None:
        given = {key for key in among if getattr(self, key) is not None}
        if not {*needed} - {*spared} <= given <= {*needed}:
            got = ", ".join(key for key in among if key in given) or "neither"
            raise ValueError(f"kind {self.kind} takes {' and '.join(needed)}, got {got}")

    def _amount(self, key: str, unit: str) -> float:
        """'0.5 points' -> 0.5, with the unit expected and no other."""
        amount, _, given = getattr(self, key).partition(" ")
        try:
            value = float(amount)
        except ValueError:
            value = math.nan
        if math.isnan(value) or given != unit:
            raise ValueError(f"{key} must be a number of '{unit}', got '{getattr(self, key)}'")
        return value

    def _check_series(self, statistic: Statistic) -> None:
        """Refuses what makes no slope."""
        if self.runs is None:
            alone = ", ".join(name for name, kind in KINDS.items() if not kind.paired)
            raise ValueError(f"along takes a kind that compares nothing ({alone}), got {self.kind}")
        if not statistic.positive:
            valid = ", ".join(name for name, other in STATISTICS.items() if other.positive)
            raise ValueError(f"along takes a statistic that is positive ({valid}), got {self.statistic}")
        for key, wanted in self.runs.items():
            if isinstance(wanted, dict) and "times" in wanted and (wanted["times"] != self.along or key == self.along):
                factor = wanted["times"]
                raise ValueError(f"{key}: times {factor} in a series along {self.along}: expected that key")
        wanted = self.runs.get(self.along, {})
        values = wanted if isinstance(wanted, list) else [wanted]
        if len(values) < LEAST_DEPTHS and not isinstance(wanted, dict):
            few = f"a slope along {self.along} takes at least {LEAST_DEPTHS} values"
            raise ValueError(f"{few}, got {values}")


def _distinct(claims: list[Claim]) -> list[Claim]:
    ids = [claim.id for claim in claims]
    if twice := next((name for name in ids if ids.count(name) > 1), None):
        raise ValueError(f"id '{twice}' is there twice")
    return claims


class _File(BaseModel):
    """A file of claims."""

    model_config = STRICT
    title: Text = TITLE
    paper: Text = ""
    plan: Text = ""
    seeds: Annotated[int, Field(ge=2)] | None = None
    claims: Annotated[
        list[Annotated[_Entry, AfterValidator(_Entry.built)]], Field(min_length=1), AfterValidator(_distinct)
    ]


def load_ledger(file: Path | str) -> Ledger:
    """The claims of a YAML file: a list of them, or {title, paper, plan, seeds, claims}, all but the claims optional.

    A claim without `seeds` has those of the file; one without `family` belongs to that of the claim before it.

    Raises AnalysisError, one line that names file, claim and key, for the first mistake in it.
    """
    load_registered()  # the statistics of wings and packages
    try:
        tree = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AnalysisError(f"{file}: {' '.join(str(error).split())}") from None
    if not isinstance(tree, list | dict):
        about = ", ".join(key for key in _File.model_fields if key != "claims")
        expected = f"expected a list of claims, alone or under the key claims beside {about}"
        raise AnalysisError(f"{file}: {expected}; got {type(tree).__name__}")
    tree = {"claims": tree} if isinstance(tree, list) else tree
    try:
        about = dict(_File.model_validate(tree))
    except ValidationError as error:
        raise AnalysisError(_sentence(file, tree, error)) from None
    seeds, family, claims = about.pop("seeds"), "", []
    for claim in about.pop("claims"):
        family = claim.family or family
        claims.append(replace(claim, family=family, seeds=claim.seeds or seeds))
    return Ledger(tuple(claims), **about)


def _sentence(file: Path | str, tree: dict, error: ValidationError) -> str:
    """The first mistake in one line: where it is, what is wrong, what is valid."""
    # A misspelt key is unknown, and the right one may be lacking for its sake: say the first.
    mistake = min(error.errors(), key=lambda mistake: mistake["type"] != "extra_forbidden")
    path, where, fields = list(mistake["loc"]), str(file), _File.model_fields
    if len(path) > 1:  # ("claims", 0, "treatment", "etf.k")
        entry = tree["claims"][path[1]]
        name = f" ({entry['id']})" if isinstance(entry, dict) and "id" in entry else ""
        where, fields, path = f"{where}, claim {path[1] + 1}{name}", _Entry.model_fields, path[2:]
    if mistake["type"] == "extra_forbidden":
        return f"{where}: unknown key {path[0]!r}; valid: {', '.join(fields)}"
    if mistake["type"] == "missing":
        required = [key for key, of in fields.items() if of.is_required()]
        return f"{where}: lacks {path[0]}; required: {', '.join(required)}"
    if mistake["type"] == "value_error":  # of the checks above, which say what came
        text = str(mistake["ctx"]["error"])
    else:
        text = f"{mistake['msg'][0].lower()}{mistake['msg'][1:]}, got {mistake['input']!r}"
    return ": ".join(map(str, [where, *path, text]))
