"""The report on judged claims: one self-contained HTML page, and the same as Markdown with its pictures beside it.

Figures come first, then the claims that training decides, then those that the configuration alone decides, which are
no evidence. Claims without runs are folded up.
"""

import base64
import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nclab.analysis.effects import LEGEND, extent
from nclab.analysis.facts import facts
from nclab.analysis.gallery import Picture, Table, find_pictures, find_tables
from nclab.analysis.judgement import Judgement, count
from nclab.analysis.ledger import TITLE
from nclab.analysis.runs import Run
from nclab.analysis.sections import SIGNS, Section, section
from nclab.analysis.verdict import KINDS

VERDICTS = ("claim", "setting", "verdict", "effect", "low", "high", "seeds")  # columns of verdicts.csv
DETAILS = (  # columns of details.csv
    *("claim", "setting", "arithmetic", "family", "verdict", "holm", "p_holm", "margin"),
    *("sd", "standard_error", "degrees_of_freedom", "provisional"),
)


@dataclass(frozen=True)
class Report:
    """All that both forms of the report show."""

    title: str
    facts: list[tuple[str, str]]
    counts: dict[str, int]  # of settings of empirical claims that have all the seeds stated
    provisional_counts: dict[str, int]  # of those with fewer
    arithmetic_counts: dict[str, int]  # of claims that the configuration alone decides
    without_runs: int  # settings
    rules: list[tuple[str, str]]
    empirical: list[Section]
    arithmetic: list[Section]
    absent: list[Section]  # claims without any run
    pictures: list[Picture]
    tables: list[Table]
    figures: str  # the folder that the pictures come from
    table_folder: str  # and the tables
    verdicts: list[tuple]  # a row of VERDICTS a judgement
    details: list[tuple]  # a row of DETAILS a judgement
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
    sections = [section(group) for group in by_claim.values()]
    there = [judgement for judgement in judgements if not judgement.absent]
    kinds = dict.fromkeys(judgement.claim.kind for judgement in judgements)
    return Report(
        title=title,
        paper=paper,
        facts=facts(runs),
        counts=count(there),
        provisional_counts=count(there, provisional=True),
        arithmetic_counts=count(there, arithmetic=True),
        without_runs=len(judgements) - len(there),
        rules=[(KINDS[kind].name, KINDS[kind].rule) for kind in kinds],
        empirical=[one for one in sections if one.rows and not one.claim.deterministic],
        arithmetic=[one for one in sections if one.rows and one.claim.deterministic],
        absent=[one for one in sections if not one.rows],
        pictures=find_pictures(figures, captions) if figures else [],
        tables=find_tables(tables) if tables else [],
        figures=str(figures or ""),
        table_folder=str(tables or ""),
        verdicts=[_verdict(judgement) for judgement in judgements],
        details=[_details(judgement) for judgement in judgements],
    )


def write_report(report: Report, out: Path) -> list[Path]:
    """Write OUT/index.html, OUT/report.md and the pictures it links to, OUT/verdicts.csv, which are returned, and
    OUT/details.csv, the statistics behind each verdict. The same runs give the same bytes."""
    page, text, verdicts = out / "index.html", out / "report.md", out / "verdicts.csv"
    for one in report.empirical:
        if one.picture:
            _write(out / "effects" / f"{one.claim.id}.png", one.picture)
    for picture in report.pictures:
        _write(out / "figures" / picture.path.name, picture.data)
    _write(page, _render("report.html", report, escape=True))
    _write(text, _render("report.md", report, escape=False))
    tables = {verdicts: [VERDICTS, *report.verdicts], out / "details.csv": [DETAILS, *report.details]}
    for table, rows in tables.items():
        with table.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    return [page, text, verdicts]


def _verdict(judgement: Judgement) -> tuple:
    """A row of VERDICTS: effect is the mean, low and high are the ends of the interval, or the least and the greatest
    number where every seed is judged, all in the claim's unit; empty where there is no number."""
    e = judgement.estimate
    numbers = (e.mean, *extent(judgement)) if e else ("", "", "")
    return (judgement.claim.id, judgement.where, judgement.verdict, *numbers, len(judgement.seeds))


def _details(judgement: Judgement) -> tuple:
    """A row of DETAILS; empty where there is no such number."""
    e, claim = judgement.estimate, judgement.claim
    behind = (e.sd, e.se, e.df) if e and claim.rule.interval else ("", "", "")
    numbers = (judgement.p_adjusted, judgement.margin, *behind)
    known = ["" if one is None or one == "" or math.isnan(one) else one for one in numbers]
    arithmetic = "yes" if judgement.arithmetic else "no"
    what = (claim.id, judgement.where, arithmetic, claim.family, judgement.verdict, judgement.adjusted)
    return (*what, *known, judgement.provisional)


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
    return environment.get_template(template).render(report=report, signs=SIGNS, totals=totals)


def totals(counts: Mapping[str, int], signs: bool = False) -> str:
    """'3 holds, 1 fails', without what does not occur; with `signs` '3 ✔ holds'."""
    there: Iterable[tuple[str, int]] = ((name, number) for name, number in counts.items() if number)
    return ", ".join(f"{number} {f'{SIGNS[name]} ' if signs else ''}{name}" for name, number in there) or "none"


def _markdown_cell(text: str) -> str:
    """Text that is neither HTML nor the end of a table's cell."""
    marks = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "\\|", "*": "\\*", "_": "\\_", "`": "\\`"}
    return "".join(marks.get(character, character) for character in " ".join(str(text).split()))


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
