"""The report on judged claims: one self-contained HTML page, and the same as Markdown with its pictures beside it."""

import base64
import csv
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nclab.analysis.claims import has_diverged
from nclab.analysis.commands import commands
from nclab.analysis.effects import LEGEND, axis_label, draw_effects, extent
from nclab.analysis.gallery import Picture, Table, find_pictures, find_tables
from nclab.analysis.interval import estimate
from nclab.analysis.judgement import Judgement, count
from nclab.analysis.ledger import TITLE, Claim, condition_text
from nclab.analysis.runs import AnalysisError, Run
from nclab.analysis.verdict import CEILING, FAILS, HOLDS, KINDS, NOT_ENOUGH, SMALLER, number

VERDICTS = ("claim", "setting", "verdict", "effect", "low", "high", "seeds")  # columns of verdicts.csv
SIGNS = {HOLDS: "✔", FAILS: "✘", SMALLER: "▾", CEILING: "▔", NOT_ENOUGH: "?"}  # not by colour alone


@dataclass(frozen=True)
class Row:
    """A judgement as text."""

    verdict: str
    where: str
    treatment: str
    baseline: str
    effect: str
    d_z: str
    seeds: str
    reason: str


@dataclass(frozen=True)
class Section:
    """A claim as text, with its picture."""

    claim: Claim
    test: str
    sides: list[tuple[str, str]]
    rows: list[Row]
    picture: bytes | None
    axis: str
    shown: str  # what stands behind a mean
    commands: list[str]


@dataclass(frozen=True)
class Report:
    """All that both forms of the report show."""

    title: str
    facts: list[tuple[str, str]]
    counts: dict[str, int]  # of empirical claims
    arithmetic: dict[str, int]  # of claims that the configuration alone decides
    rules: list[tuple[str, str]]
    sections: list[Section]
    pictures: list[Picture]
    tables: list[Table]
    figures: str  # the folder that the pictures come from
    table_folder: str  # and the tables
    verdicts: list[tuple]  # a row of VERDICTS a judgement
    paper: str = ""  # whose claims they are
    legend: str = LEGEND


def make_report(
    judgements: list[Judgement],
    runs: list[Run],
    figures: Path | None = None,
    tables: Path | None = None,
    title: str = TITLE,
    paper: str = "",
    captions: Mapping[str, str] | None = None,
) -> Report:
    """The report on `judgements`, which come in the order of the ledger; `runs` are those they were made from,
    unfinished ones included; `title` and `paper` are the ledger's. Shown are the pictures of the folder `figures`, with
    `captions` by the start of their names, and the tables of the folder `tables`."""
    by_claim: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        by_claim.setdefault(judgement.claim.id, []).append(judgement)
    kinds = dict.fromkeys(judgement.claim.kind for judgement in judgements)
    return Report(
        title=title,
        paper=paper,
        facts=_facts(runs),
        counts=count(judgements),
        arithmetic=count(judgements, arithmetic=True),
        rules=[(KINDS[kind].name, KINDS[kind].rule) for kind in kinds],
        sections=[_section(group) for group in by_claim.values()],
        pictures=find_pictures(figures, captions) if figures else [],
        tables=find_tables(tables) if tables else [],
        figures=str(figures or ""),
        table_folder=str(tables or ""),
        verdicts=[_verdict(judgement) for judgement in judgements],
    )


def write_report(report: Report, out: Path) -> list[Path]:
    """Write OUT/index.html, OUT/report.md and the pictures it links to, and OUT/verdicts.csv.

    The same runs give the same bytes.
    """
    page, text, table = out / "index.html", out / "report.md", out / "verdicts.csv"
    for section in report.sections:
        if section.picture:
            _write(out / "effects" / f"{section.claim.id}.png", section.picture)
    for picture in report.pictures:
        _write(out / "figures" / picture.path.name, picture.data)
    _write(page, _render("report.html", report, escape=True))
    _write(text, _render("report.md", report, escape=False))
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([VERDICTS, *report.verdicts])
    return [page, text, table]


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


def _verdict(judgement: Judgement) -> tuple:
    """A row of VERDICTS: effect is the mean, low and high are the ends of the interval, or the least and the greatest
    number where every seed is judged, all in the claim's unit; empty where there is no number."""
    e = judgement.estimate
    numbers = (e.mean, *extent(judgement)) if e else ("", "", "")
    return (judgement.claim.id, judgement.where, judgement.verdict, *numbers, len(judgement.seeds))


def _section(judgements: list[Judgement]) -> Section:
    claim = judgements[0].claim
    sides = [("treatment", claim.treatment), ("baseline", claim.baseline)] if claim.baseline else []
    sides = sides or [("runs", claim.treatment)]
    return Section(
        claim=claim,
        test=claim.written,
        sides=[(name, condition_text(conditions)) for name, conditions in sides],
        rows=[_row(judgement) for judgement in judgements],
        picture=draw_effects(claim, judgements),
        axis=axis_label(claim),
        shown="mean [95 % interval]" if claim.rule.interval else "least to greatest",
        commands=list(dict.fromkeys(one for j in judgements for one in commands(claim, j.run))),
    )


def _row(judgement: Judgement) -> Row:
    e = judgement.estimate
    return Row(
        verdict=judgement.verdict,
        where=judgement.where,
        treatment=_spread(judgement.treatment),
        baseline=_spread(judgement.baseline),
        effect=effect_text(judgement),
        d_z=number(e.d_z) if e and judgement.claim.rule.paired else "–",
        seeds=f"{len(judgement.seeds)} ({', '.join(map(str, judgement.seeds))})" if judgement.seeds else "0",
        reason="; ".join(part for part in (judgement.reason, judgement.note) if part),
    )


def _spread(values: tuple[float, ...]) -> str:
    """'88.31 ± 1.55', mean and sample standard deviation over seeds."""
    if not values:
        return "–"
    e = estimate(list(values))
    return number(e.mean) + (f" ± {number(e.sd)}" if e.n > 1 else "")


def _facts(runs: list[Run]) -> list[tuple[str, str]]:
    """When, where and with what the runs were made. The date is the newest run's: now is not a property of the runs."""
    finished = [run for run in runs if run.finished]
    times = [event["time"] for run in finished for event in _or_empty(run, "events")[-1:] if "time" in event]
    diverged = sum(has_diverged(run) for run in runs)
    others = len(runs) - len(finished) - diverged
    left_out = [f"{count} {what}" for count, what in ((diverged, "diverged"), (others, "unfinished")) if count]
    return [
        ("newest run", f"{datetime.fromtimestamp(max(times), UTC):%Y-%m-%d}" if times else "not recorded"),
        ("runs", f"{len(finished)} finished" + "".join(f", {part}" for part in left_out)),
        ("data sets", _tally(finished, lambda run: run.config["dataset"]["name"])),
        ("hardware", _tally(finished, lambda run: _hardware(_or_empty(run, "summary").get("hardware") or {}))),
        ("versions", _tally(finished, lambda run: _versions(_or_empty(run, "summary").get("versions") or {}))),
        ("commits", _tally(finished, lambda run: _commit(_or_empty(run, "summary").get("commit")))),
    ]


def _or_empty(run: Run, file: str) -> Any:
    """Its events or summary; nothing where they cannot be read, which the judgements name."""
    try:
        return getattr(run, file)
    except AnalysisError:
        return [] if file == "events" else {}


def _tally(runs: Iterable[Run], what: Callable[[Run], str]) -> str:
    """'mnist (12); digits (4)', the commonest first."""
    counts = sorted(Counter(map(what, runs)).items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{name} ({count})" for name, count in counts)


def _hardware(hardware: dict) -> str:
    if "gpu" in hardware:
        return str(hardware["gpu"])
    cores = f", {hardware['cores']} cores" if "cores" in hardware else ""
    return f"{hardware['processor']}{cores}" if "processor" in hardware else "not recorded"


def _versions(versions: dict) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or "not recorded"


def _commit(commit: str | None) -> str:
    if not commit:
        return "not recorded"
    head, dirty, _ = commit.partition("-dirty")
    return head[:10] + dirty


def _render(template: str, report: Report, escape: bool) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=escape,  # noqa: S701  # Markdown has nothing to escape
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"base64": lambda data: base64.b64encode(data).decode(), "markdown": _markdown_cell}
    return environment.get_template(template).render(report=report, signs=SIGNS)


def _markdown_cell(text: str) -> str:
    """Text that is neither HTML nor the end of a table's cell."""
    marks = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "\\|", "*": "\\*", "_": "\\_", "`": "\\`"}
    return "".join(marks.get(character, character) for character in " ".join(str(text).split()))


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
