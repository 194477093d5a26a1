"""The simulation of the verdicts: its rules are those of the ledger, its numbers near what theory says."""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_bench import script

from nclab.analysis.interval import estimate
from nclab.analysis.moderation import fit_prior
from nclab.analysis.verdict import FAILS, HOLDS, SMALLER, decide

bench = script("bench_statistics")
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("kind", ["not_lower", "higher", "equivalent"])
@pytest.mark.parametrize("way", bench.WAYS)
def test_the_rules_on_arrays_are_those_of_the_ledger(kind, way):
    x = bench.draw(np.random.default_rng(1), 60, 4, bench.UNEQUAL) + np.array([-2.0, 0.3, 1.0])
    low, high = bench.intervals(x, way)
    holds, fails = bench.judged(kind, low, high, 1.0)
    verdicts = set()
    for i, claim in enumerate(x):
        prior = fit_prior(claim.std(axis=0, ddof=1), [3] * 3) if way == "moderated" else None
        for g in range(3):
            e = estimate(list(claim[:, g]), prior=prior)
            verdict = decide(kind, e, margin=1.0).verdict
            assert (e.low, e.high) == pytest.approx((low[i, g], high[i, g]))
            assert (verdict == HOLDS, verdict in (FAILS, SMALLER)) == (holds[i, g], fails[i, g])
            verdicts.add(verdict)
    assert len(verdicts) >= 3


def test_the_first_verdict_while_seeds_are_added():
    x = bench.draw(np.random.default_rng(2), 80, 8, (1.0,)) - 0.7
    held = bench.first_verdict(x, "not_lower", 1.0, 3, 8)
    for i, numbers in enumerate(x[:, :, 0]):
        looks = [decide("not_lower", estimate(list(numbers[:n])), margin=1.0).verdict for n in range(3, 9)]
        first = next((verdict for verdict in looks if verdict in (HOLDS, FAILS)), None)
        assert held[i] == (first == HOLDS), looks
    assert 0 < held.sum() < len(x)


def test_the_differences_have_the_spread_and_share_their_baseline():
    x = bench.draw(np.random.default_rng(3), 40_000, 2, (1.0, 2.0))
    assert x.std(axis=(0, 1)) == pytest.approx([1.0, 2.0], rel=0.02)
    assert np.corrcoef(x[:, 0].T)[0, 1] == pytest.approx(bench.SHARED, abs=0.02)
    heavy = bench.draw(np.random.default_rng(3), 40_000, 1, (1.0,), tails=5.0)
    assert heavy.std() == pytest.approx(1.0, rel=0.05)
    assert np.mean(heavy**4) > 4.5  # 3 of a normal distribution


def test_errors_are_what_is_promised_and_a_shared_spread_decides_more():
    table = bench.errors_and_power(np.random.default_rng(0), 5000)
    table = table.set_index(["seeds", "interval"]).astype(float)
    assert table["false holds"].between(1.7, 3.3).all()  # 2.5 +- 0.3, three settings of which are correlated
    assert table["false fails"].between(1.7, 3.3).all()
    power = table["power, margin 2"]
    assert power["3", "Student"] == pytest.approx(47, abs=3)
    assert power["3", "moderated"] > power["3", "Student"] + 15
    families = bench.families(np.random.default_rng(0), 800).astype(float)
    assert (families["any false hold, raw"] > 8).all()
    assert (families["with Holm"] < 4).all()
    stopping = bench.stopping(np.random.default_rng(0), 3000).set_index(["claim", "most seeds"]).astype(float)
    row = stopping.loc["non-inferiority", "10"]
    assert row["fixed number"] < 3.5
    assert row["added from 3"] > 6.5


def test_the_command_writes_the_same_table_again(tmp_path, monkeypatch):
    texts = []
    for name in ("one", "two"):
        out = tmp_path / name / "statistics.md"
        monkeypatch.setattr(sys, "argv", ["bench_statistics", "--repeats", "200", "--out", str(out)])
        assert bench.main() == 0
        texts.append(out.read_text())
    assert texts[0] == texts[1]
    assert texts[0].count("\n## ") == len(bench.TABLES) == 6


def tables():
    """Title -> table of docs/results/bench/statistics.md, its first two columns (one, where there is one) as index."""
    text = (ROOT / "docs" / "results" / "bench" / "statistics.md").read_text()
    found = {}
    for part in text.split("\n## ")[1:]:
        title, *lines = part.splitlines()
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        table = pd.DataFrame(rows[2:], columns=rows[0])
        found[title] = table.set_index([name for name in KEYS if name in table.columns])
    return found


KEYS = ("claim", "most seeds", "tests", "seeds", "interval")
ERRORS, SUPERIOR, UNEQUAL, STOPPING, FAMILIES, EQUIVALENT = bench.TABLES
BOTH = ("Student", "moderated")


def of_seeds(title, way, column, pick):
    """The least or greatest number of a column over 3 to 10 seeds."""
    return lambda found: pick(found[title].xs(way, level="interval")[column], key=float)


def holds(column):
    """The first number of each 'holds / fails' of superiority, moderated, over the seeds."""
    return [
        lambda found, n=n: found[SUPERIOR].loc[(n, "moderated"), column].split(" / ")[0] for n in ("3", "5", "8", "10")
    ]


# Every number of docs/statistics.md that is marked as simulated, in the order of the page, and its cell.
QUOTES = [
    *holds("half the margin"),
    *holds("0.9 of the margin"),
    *holds("the margin"),
    (ERRORS, ("3", "Student"), "false holds"),
    of_seeds(UNEQUAL, "moderated", "equal", min),
    of_seeds(UNEQUAL, "moderated", "equal", max),
    (UNEQUAL, ("3", "moderated"), "nine 1, one 5, noisiest"),
    (STOPPING, ("non-inferiority", "10"), "fixed number"),
    (STOPPING, ("non-inferiority", "10"), "added from 3"),
    (STOPPING, ("non-inferiority", "20"), "added from 3"),
    *[(ERRORS, ("3", way), "false holds") for way in BOTH],
    *[(ERRORS, ("3", way), "power, margin 2") for way in BOTH],
    *[(UNEQUAL, ("3", way), "1 : 2 : 4") for way in BOTH],
    *[(UNEQUAL, ("3", way), "1 : 2 : 4, noisiest") for way in BOTH],
    *[(UNEQUAL, ("3", way), "1 : 1 : 1 : 4, noisiest") for way in BOTH],
    *[(UNEQUAL, ("3", way), "nine 1, one 5, noisiest") for way in BOTH],
    (UNEQUAL, ("10", "moderated"), "nine 1, one 5, noisiest"),
    *[
        (ERRORS, (seeds, "moderated"), f"power, margin {margin}")
        for margin in ("1", "1.5", "2")
        for seeds in ("3", "5", "8", "10")
    ],
    *[(EQUIVALENT, seeds, "power, margin 1") for seeds in ("3", "5", "8", "10")],
    (FAMILIES, "24", "any false hold, raw"),
    (FAMILIES, "24", "with Holm"),
    (FAMILIES, "24", "power with Holm"),
    (FAMILIES, "24", "power of one, raw"),
]


def test_the_page_quotes_the_table():
    """Each number of docs/statistics.md that is marked as simulated is that of its cell."""
    found, page = tables(), (ROOT / "docs" / "statistics.md").read_text()
    quoted = re.findall(r"\*(\d+\.\d)\*", page)
    expected = [cell(found) if callable(cell) else found[cell[0]].loc[cell[1], cell[2]] for cell in QUOTES]
    assert quoted == expected
