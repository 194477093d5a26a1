"""An independent judge: effects, intervals and verdicts of a ledger from an archive of run folders.

It shares no code with nclab.analysis, whose verdicts it checks; of nclab it takes only what makes a configuration
(nclab.config.keys). What it does not know it refuses: a statistic of a new wing has to be added to STATISTICS of
recomputed_runs.py, by its definition.
"""

import csv
import io
import math
import re

from recomputed_runs import Mismatch
from recomputed_verdicts import NONE


def compare(cases, verdicts, details):
    """Raise Mismatch unless every row of verdicts.csv and details.csv is one of the cases, and every case a row.

    Args:
        cases: What `judge` found.
        verdicts, details: The text of both files.
    """
    rows = [*csv.DictReader(io.StringIO(verdicts))]
    more = [*csv.DictReader(io.StringIO(details))]
    if [(row["claim"], row["setting"]) for row in rows] != [(row["claim"], row["setting"]) for row in more]:
        raise Mismatch("details.csv has other rows than verdicts.csv")
    open_cases = [case for case in cases if case.numbers or case.verdict != NONE]
    for row, behind in zip(rows, more, strict=True):
        if not row["effect"] and (row["verdict"], row["seeds"]) == (NONE, "0"):
            continue
        fitting = [case for case in open_cases if case.claim["id"] == row["claim"] and _is_of(case, row["setting"])]
        same = [case for case in fitting if not differences(case, row, behind)]
        if not same:
            found = [differences(case, row, behind) for case in fitting] or "no such runs"
            raise Mismatch(f"{row['claim']}, {row['setting']}: {found}")
        open_cases.remove(same[0])
    if open_cases:
        left = ", ".join(f"{case.claim['id']} of {case.treated.name}" for case in open_cases)
        raise Mismatch(f"not in verdicts.csv: {left}")
    return len(rows)


def _is_of(case, setting):
    """Whether a case is what a row names: 'mnist, 30 epochs, last 2 ETF, etf.k=2, baseline model.depth=4'."""
    settings = case.treated.settings
    if not f"{setting}, ".startswith(f"{settings['dataset.name']}, {settings['epochs']} epochs, "):
        return False
    for of, key, text in re.findall(r"(baseline )?([\w]+(?:\.\w+)*)=(.*?)(?=, (?:baseline )?[\w.]+=|$)", setting):
        if key == case.claim.get("along"):
            continue
        value = (case.plain if of else case.treated).settings.get(key)
        if (f"{value:g}" if isinstance(value, float) else str(value)) != text:
            return False
    return True


def differences(case, row, behind):
    """{name: (committed, recomputed)} of what differs."""
    texts = {"verdict": case.verdict, "seeds": str(len(case.numbers))}
    found = {name: (row[name], text) for name, text in texts.items() if row[name] != text}
    arithmetic = "yes" if case.claim.get("deterministic") else "no"
    texts = {"holm": case.holm, "family": case.claim["family"], "arithmetic": arithmetic}
    found |= {name: (behind[name], text) for name, text in texts.items() if behind[name] != text}
    for name, number in {"effect": case.mean, "low": case.low, "high": case.high}.items():
        if row[name] == "" or not case.numbers:
            found |= {name: (row[name], number)} if (row[name] == "") == bool(case.numbers) else {}
        elif not math.isclose(float(row[name]), number, rel_tol=1e-7, abs_tol=case.rounding):
            found[name] = (row[name], number)
    if case.margin is not None and not math.isclose(float(behind["margin"] or "nan"), case.margin, rel_tol=1e-9):
        found["margin"] = (behind["margin"], case.margin)
    return found
