"""Judgements as the text of a report: a section a claim, a row a setting."""

import math
from dataclasses import dataclass
from itertools import groupby

from nclab.analysis.commands import commands
from nclab.analysis.effects import axis_label, draw_effects, extent
from nclab.analysis.interval import estimate
from nclab.analysis.judgement import Judgement
from nclab.analysis.ledger import Claim, condition_text, no_finished_run
from nclab.analysis.verdict import CEILING, FAILS, HOLDS, NOT_ENOUGH, SMALLER, number

SIGNS = {HOLDS: "✔", FAILS: "✘", SMALLER: "▼", CEILING: "■", NOT_ENOUGH: "?"}  # not by colour alone


@dataclass(frozen=True)
class Row:
    """A judgement as text."""

    verdict: str
    holm: str
    provisional: str
    where: str
    treatment: str
    baseline: str
    effect: str
    d_z: str
    margin: str
    seeds: str
    reason: str


@dataclass(frozen=True)
class Section:
    """A claim as text, with its picture. `rows` are the settings with runs; `absent` are those without, `missing` says
    what all of them lack."""

    claim: Claim
    test: str
    sides: list[tuple[str, str]]
    rows: list[Row]
    absent: list[Row]
    missing: str
    tally: list[tuple[str, int]]  # how many of `rows` have each verdict that occurs
    picture: bytes | None
    axis: str
    shown: str  # what stands behind a mean
    commands: list[str]


def section(judgements: list[Judgement]) -> Section:
    """The section of the judgements of one claim."""
    claim = judgements[0].claim
    there, absent = ([one for one in judgements if one.absent == without] for without in (False, True))
    sides = [("treatment", claim.treatment), ("baseline", claim.baseline)] if claim.baseline else []
    sides = sides or [("runs", claim.treatment)]
    verdicts = [judgement.verdict for judgement in there]
    return Section(
        claim=claim,
        test=claim.written,
        sides=[(name, condition_text(conditions)) for name, conditions in sides],
        rows=[_row(judgement) for judgement in there],
        absent=[_row(judgement) for judgement in absent],
        missing=_missing(claim, absent, len(there)),
        tally=[(verdict, verdicts.count(verdict)) for verdict in SIGNS if verdict in verdicts],
        picture=draw_effects(claim, judgements),
        axis=axis_label(claim),
        shown="mean [95 % interval]" if claim.rule.interval else "least to greatest",
        commands=list(dict.fromkeys(one for j in judgements for one in commands(claim, j.run))),
    )


def _missing(claim: Claim, absent: list[Judgement], there: int) -> str:
    """The conditions once where no case of `claim.per` has a treatment, and not once a case."""
    if not there and not any(one.run for one in absent):
        return no_finished_run(claim.treatment | claim.per)
    return "; ".join(dict.fromkeys(one.reason for one in absent))


def effect_text(judgement: Judgement) -> str:
    """'+0.12 [-0.20, +0.43] points', without interval where there is no spread; a dash for what is not known. Of a
    claim about every seed '0.00 to 0.12 points', the least and the greatest."""
    e, unit = judgement.estimate, judgement.claim.unit
    signed = judgement.claim.rule.paired or bool(judgement.claim.along)
    if not e:
        return "–"
    low, high = (number(end, signed) for end in extent(judgement))
    if not judgement.claim.rule.interval:
        return f"{low} to {high} {unit}" if e.least < e.greatest else f"{low} {unit}"
    return f"{number(e.mean, signed)}{f' [{low}, {high}]' if e.low < e.high else ''} {unit}"


def _row(judgement: Judgement) -> Row:
    e = judgement.estimate
    return Row(
        verdict=judgement.verdict,
        holm=_holm(judgement),
        provisional=judgement.provisional if e else "",
        where=judgement.where,
        treatment=_spread(judgement.treatment),
        baseline=_spread(judgement.baseline),
        effect=effect_text(judgement),
        d_z=number(e.d_z) if e and judgement.claim.rule.paired else "–",
        margin=_margin(judgement),
        seeds=f"{len(judgement.seeds)} ({_spans(judgement.seeds)})" if judgement.seeds else "0",
        reason="; ".join(part for part in (judgement.reason, judgement.note) if part),
    )


def _holm(judgement: Judgement) -> str:
    """Whether the verdict stands when its family is judged at once; '' where nothing was tested."""
    if math.isnan(judgement.p_adjusted):
        return ""
    stands = "also" if judgement.adjusted == judgement.verdict else "not"
    return f"{stands} with Holm"


def _margin(judgement: Judgement) -> str:
    """'0.57 points: 5 % of the baseline's errors (11.4 %)', where the margin depends on the setting; else ''."""
    if judgement.margin is None or judgement.claim.margin is not None:
        return ""
    return f"{number(judgement.margin)} {judgement.claim.unit}: {judgement.margin_reason}"


def _spans(seeds: tuple[int, ...]) -> str:
    """'0–9, 12': four and more in a row by their ends."""
    rows = [[seed for _, seed in group] for _, group in groupby(enumerate(sorted(seeds)), lambda at: at[1] - at[0])]
    return ", ".join(f"{row[0]}–{row[-1]}" if len(row) > 3 else ", ".join(map(str, row)) for row in rows)


def _spread(values: tuple[float, ...]) -> str:
    """'88.31 ± 1.55', mean and sample standard deviation over seeds."""
    if not values:
        return "–"
    e = estimate(list(values))
    return number(e.mean) + (f" ± {number(e.sd)}" if e.n > 1 else "")
