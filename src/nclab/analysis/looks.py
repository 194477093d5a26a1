"""How policies differ in a picture: colour, dashes and marker together, for colour-blind readers and in grey."""

import re
from collections.abc import Iterable
from itertools import count

from nclab.analysis.labels import BASELINE

# Okabe and Ito's colours but for the yellow, which is too pale on paper; five dashes and eight markers: no two of the
# first forty looks are the same, and neighbours differ in all three.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "0.5")
DASHES = ("-", (0, (5, 1.2)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
# What a layer is made of, told by its label's words: one colour and marker a kind, as where k stands beside the point.
KINDS = (
    ("baseline", "black", "*"),
    ("canonical", "#56B4E9", "h"),
    ("scaled", "#E69F00", "s"),
    ("orthogonal", "#CC79A7", "D"),
    ("frozen", "#D55E00", "^"),
    ("no FFN", "#009E73", "X"),
    ("clock", "0.5", "P"),
    ("Adaptive", "#009E73", "v"),
    ("ETF", "#0072B2", "o"),
)


def looks(policies: Iterable[str]) -> dict[str, dict]:
    """Policy -> color, ls and marker for lines; the baseline is a black line."""
    rest, found = count(), {}
    for policy in policies:
        i = next(rest) if policy != BASELINE else None
        found[policy] = {"color": "black", "ls": "-", "marker": "*"} if i is None else _look(i)
    return found


def kind_look(policy: str) -> dict[str, str]:
    """color and marker of a policy's kind, for points that are labelled: all scaled controls look alike."""
    for word, colour, marker in KINDS:
        if re.search(rf"\b{word}\b", policy):
            return {"color": colour, "marker": marker}
    return {"color": "0.3", "marker": "p"}


def _look(i: int) -> dict:
    return {"color": COLOURS[i % 7], "ls": DASHES[(i + 1) % 5], "marker": MARKERS[i % 8]}
