"""How often the rules behind the verdicts err, and how often they decide, by simulation.

    python scripts/bench_statistics.py            writes docs/results/bench/statistics.md

The numbers of seeds are drawn from normal distributions, in units of their spread (the standard deviation over seeds of
a difference treatment - baseline). A claim has three settings (where nothing else is said) that share their baseline
runs, as k = 1, 2, 3 do, so that the differences of two settings correlate by one half. The rules are those of
nclab.analysis, on arrays: a test holds them to the verdicts of `decide`.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from nclab.analysis.families import LEVEL, holm
from nclab.analysis.moderation import Prior, fit_prior
from nclab.analysis.tables import text_table

OUT = Path(__file__).parents[1] / "docs" / "results" / "bench" / "statistics.md"
SEEDS = (3, 5, 8, 10)
EQUAL, UNEQUAL = (1.0, 1.0, 1.0), (0.5, 1.0, 2.0)  # spreads of the three settings
ONE_OF_FOUR, ONE_OF_TEN = (1.0, 1.0, 1.0, 4.0), (*(1.0,) * 9, 5.0)  # one setting is noisier than all others
UNLIKE = ("1 : 2 : 4", "1 : 1 : 1 : 4", "nine 1, one 5")  # how the unequal spreads are written
SHARED = 0.5  # correlation of the differences of two settings
MARGINS = (1.0, 1.5, 2.0)
WAYS = ("Student", "moderated")


def draw(
    rng: np.random.Generator, repeats: int, n: int, sds: tuple[float, ...], tails: float | None = None
) -> np.ndarray:
    """Differences with mean 0 of n seeds in G settings, (repeats, n, G); `tails`: Student's t of so many degrees of
    freedom, scaled to the same spread, in place of a normal distribution."""
    common = rng.normal(size=(repeats, n, 1))
    own = rng.normal(size=(repeats, n, len(sds)))
    x = np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * own
    if tails:
        x *= np.sqrt((tails - 2) / rng.chisquare(tails, size=(repeats, n, 1)))
    return x * np.asarray(sds)


def spread(x: np.ndarray, way: str) -> tuple[np.ndarray, np.ndarray]:
    """Standard error and degrees of freedom of each setting, (repeats, G) both, of differences (repeats, n, G)."""
    n, groups = x.shape[1:]
    sd, df = x.std(axis=1, ddof=1), np.full((len(x), groups), n - 1.0)
    if way == "moderated" and groups > 1:
        prior = fit_prior(sd, [n - 1] * groups)
        sd, df = Prior(prior.sd[:, None], prior.df[:, None], prior.total).moderated(sd, n - 1)
    return sd / np.sqrt(n), np.broadcast_to(df, sd.shape)


def intervals(x: np.ndarray, way: str) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 95 % intervals of each setting, (repeats, G) both."""
    se, df = spread(x, way)
    mean, half = x.mean(axis=1), stdtrit(df, 0.975) * se
    return mean - half, mean + half


def judged(kind: str, low: np.ndarray, high: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """(holds, fails) by the rules of nclab.analysis.verdict; `fails` includes 'smaller than the margin'."""
    if kind == "not_lower":
        return low > -margin, high < -margin
    if kind == "equivalent":
        return (low >= -margin) & (high <= margin), (high < -margin) | (low > margin)
    holds = (low > 0) & ((low + high) / 2 >= margin)
    return holds, ~holds & (high < margin)


def errors_and_power(rng: np.random.Generator, repeats: int) -> pd.DataFrame:
    """Non-inferiority: false verdicts where the loss is exactly the margin, and power where there is no loss."""
    rows = []
    for n in SEEDS:
        for way in WAYS:
            x = draw(rng, repeats, n, EQUAL)
            low, high = intervals(x, way)
            wrong, fails = judged("not_lower", low - 1.0, high - 1.0, 1.0)
            power = [judged("not_lower", low, high, margin)[0].mean() for margin in MARGINS]
            rows.append([str(n), way, percent(wrong.mean()), percent(fails.mean()), *map(percent, power)])
    head = [f"power, margin {margin:g}" for margin in MARGINS]
    return pd.DataFrame(rows, columns=["seeds", "interval", "false holds", "false fails", *head])


def superiority(rng: np.random.Generator, repeats: int, margin: float = 1.5) -> pd.DataFrame:
    """Superiority: what is said where there is no effect, and one of 0.5, 0.9, 1 and 2 times the margin."""
    rows = []
    for n in SEEDS:
        for way in WAYS:
            low, high = intervals(draw(rng, repeats, n, EQUAL), way)
            row = [str(n), way]
            for effect in (0.0, 0.5 * margin, 0.9 * margin, margin, 2 * margin):
                holds, fails = judged("higher", low + effect, high + effect, margin)
                row.append(f"{percent(holds.mean())} / {percent(fails.mean())}")
            rows.append(row)
    head = ["no effect", "half the margin", "0.9 of the margin", "the margin", "twice the margin"]
    return pd.DataFrame(rows, columns=["seeds", "interval", *head])


def unequal(rng: np.random.Generator, repeats: int) -> pd.DataFrame:
    """False holds where the settings have unequal spreads, and where the numbers have heavy tails."""
    rows = []
    for n in SEEDS:
        for way in WAYS:
            row = [str(n), way]
            for sds, tails in ((EQUAL, None), (UNEQUAL, None), (ONE_OF_FOUR, None), (ONE_OF_TEN, None), (EQUAL, 3.0)):
                low, _ = intervals(draw(rng, repeats, n, sds, tails), way)
                each = (low > 0).mean(axis=0)
                row += [percent(each.mean()), percent(each[-1])] if sds != EQUAL else [percent(each.mean())]
            rows.append(row)
    head = ["equal", *(f"{of}{which}" for of in UNLIKE for which in ("", ", noisiest")), "heavy tails"]
    return pd.DataFrame(rows, columns=["seeds", "interval", *head])


def first_verdict(x: np.ndarray, kind: str, margin: float, first: int, most: int) -> np.ndarray:
    """Whether 'holds' is the first verdict that appears while seeds are added one by one, (repeats,), of one setting:
    x (repeats, most, 1) with the true effect in it."""
    open_, held = np.ones(len(x), dtype=bool), np.zeros(len(x), dtype=bool)
    for n in range(first, most + 1):
        holds, fails = (flag[:, 0] for flag in judged(kind, *intervals(x[:, :n], "Student"), margin))
        held |= open_ & holds
        open_ &= ~(holds | fails)
    return held


def stopping(rng: np.random.Generator, repeats: int) -> pd.DataFrame:
    """False holds of a fixed number of seeds against adding seeds until a verdict appears."""
    rows = []
    for kind, effect in (("not_lower", -1.0), ("higher", 0.0)):
        for most in (10, 20):
            x = draw(rng, repeats, most, (1.0,)) + effect
            fixed = judged(kind, *intervals(x, "Student"), 1.0)[0].mean()
            row = ["non-inferiority" if kind == "not_lower" else "superiority", str(most), percent(fixed)]
            rows.append(row + [percent(first_verdict(x, kind, 1.0, first, most).mean()) for first in (2, 3, 5)])
    head = ["fixed number", "added from 2", "added from 3", "added from 5"]
    return pd.DataFrame(rows, columns=["claim", "most seeds", *head])


def families(rng: np.random.Generator, repeats: int, n: int = 10) -> pd.DataFrame:
    """Families of claims that are all wrong: the chance that any holds, raw and by Holm; and the power of Holm for one
    that is right, with an effect of 1.5 times its spread."""
    rows = []
    for claims in (2, 4, 8):
        x = np.concatenate([draw(rng, repeats, n, EQUAL) for _ in range(claims)], axis=2)
        parts = [spread(x[:, :, 3 * i : 3 * i + 3], "moderated") for i in range(claims)]
        se, df = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        p = stdtr(df, -x.mean(axis=1) / se)
        right = stdtr(df[:, 0], -(x[:, :, 0].mean(axis=1) + 1.5) / se[:, 0])
        adjusted = np.array([holm(row) for row in p])
        with_one = np.array([holm(row)[0] for row in np.column_stack([right, p[:, 1:]])])
        rows.append(
            [str(3 * claims)]
            + [percent((values <= LEVEL).any(axis=1).mean()) for values in (p, adjusted)]
            + [percent((values <= LEVEL).mean()) for values in (right, with_one)]
        )
    head = ["tests", "any false hold, raw", "with Holm", "power of one, raw", "power with Holm"]
    return pd.DataFrame(rows, columns=head)


def equivalence(rng: np.random.Generator, repeats: int) -> pd.DataFrame:
    """Equivalence: false holds where the difference is exactly the margin, power where there is none."""
    rows = []
    for n in SEEDS:
        low, high = intervals(draw(rng, repeats, n, EQUAL), "moderated")
        false = judged("equivalent", low + 1.5, high + 1.5, 1.5)[0].mean()
        power = [judged("equivalent", low, high, margin)[0].mean() for margin in MARGINS]
        rows.append([str(n), *map(percent, (false, *power))])
    return pd.DataFrame(rows, columns=["seeds", "false holds", *(f"power, margin {m:g}" for m in MARGINS)])


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


TABLES = {
    "Non-inferiority: errors at a loss of exactly the margin, power without a loss": errors_and_power,
    "Superiority, margin 1.5: holds / fails or smaller than the margin, by the true effect": superiority,
    "False holds where settings have unequal spreads, or numbers heavy tails (Student's t with 3 degrees of freedom)": (
        unequal
    ),
    "False holds: a fixed number of seeds against adding seeds until a verdict appears (margin 1)": stopping,
    "Families of claims that are all wrong, ten seeds: is there any false hold?": families,
    "Equivalence: errors at a difference of exactly the margin, power without a difference": equivalence,
}


def report(repeats: int, seed: int) -> str:
    """All tables as Markdown; the same numbers for the same seed."""
    parts = [
        "# How often verdicts err: simulation",
        f"Made by `make bench-statistics`: {repeats:,} repeats (families: a tenth), seed {seed}. All numbers are "
        "percent of the settings judged. Spreads and margins are in units of the standard deviation over seeds of a "
        "difference. What the tables say: [docs/statistics.md](../../statistics.md).",
    ]
    for title, table in TABLES.items():
        rng = np.random.default_rng(seed)
        made = table(rng, repeats // 10 if table is families else repeats)
        parts += [f"## {title}", text_table(made, markdown=True)]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=50_000, help="of each simulation (50000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT, help="the Markdown file to write")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text := report(args.repeats, args.seed))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
