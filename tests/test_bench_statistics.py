"""The simulation of the verdicts: its rules are those of the ledger, its numbers near what theory says."""

import re
import sys
from pathlib import Path

import numpy as np
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


def test_the_page_quotes_the_table():
    """Every percentage of docs/statistics.md that is marked as simulated stands in the table."""
    table = (ROOT / "docs" / "results" / "bench" / "statistics.md").read_text()
    numbers = set(re.findall(r"\d+\.\d", table))
    quoted = re.findall(r"\*(\d+\.\d)\*", (ROOT / "docs" / "statistics.md").read_text())
    assert len(quoted) >= 10
    assert set(quoted) <= numbers
