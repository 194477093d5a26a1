"""'NC1' is two columns with different slopes, 'NC2' six: claims, captions, tables and pages say which."""

import re
from pathlib import Path

import pytest
from named_columns import unnamed

from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.effects import axis_label
from nclab.analysis.labels import statistic_label
from nclab.analysis.ledger import load_ledger
from nclab.analysis.statistics import STATISTICS

ROOT = Path(__file__).parents[1]
LEDGERS = sorted((ROOT / "conf/paper").glob("*/claims.yaml"))
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def test_what_is_looked_for():
    assert unnamed("the slope of NC1") == ["NC1"]
    assert unnamed("NC1 and NC2 (nc1_trace_ratio)") == ["NC2"]
    assert unnamed("NC1 (`nc1`), NC4 (nc4_mismatch), NCC") == []
    assert statistic_label("nc1_trace_ratio_last") == "nc1_trace_ratio last"
    assert statistic_label("test_accuracy") == "test accuracy"


@pytest.mark.parametrize("ledger", LEDGERS, ids=lambda path: path.parent.name)
def test_claims(ledger):
    claims = load_ledger(ledger).claims
    assert claims
    for claim in claims:
        for text in (claim.claim, claim.why, axis_label(claim)):
            assert not unnamed(text), (claim.id, text)
        column = re.match(r"nc[1-4]", claim.statistic.name)
        if column:
            assert re.search(rf"\b{claim.statistic.name.removesuffix('_last')}\b|nc2_weight_gram", claim.claim), (
                claim.id
            )


def test_statistics_are_named_by_their_column():
    about = [name for name in STATISTICS if re.match(r"nc[1-4]", name)]
    assert about
    for name in about:
        assert re.match(r"nc[1-4]_[a-z]+_[a-z]+|nc3_cosine", name), name
        assert not unnamed(STATISTICS[name].value.__doc__), name


def test_captions():
    for name in DRAWINGS.names():
        for text in (DRAWINGS[name].caption, DRAWINGS[name].of):
            assert not unnamed(text), name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages(page):
    """A page names the columns that it speaks of; the cells of a table and the words of a picture do each by itself."""
    text = page.read_text(encoding="utf-8").replace("\\_", "_")
    assert not unnamed(text)
    for line in text.splitlines():
        if line.startswith("|"):
            assert not [cell for cell in line.split("|") if unnamed(cell)], line
        for words in re.findall(r"!\[([^]]*)\]", line):
            assert not unnamed(words), line
