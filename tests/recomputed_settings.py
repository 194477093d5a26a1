"""The claims of a ledger, and which runs of an archive belong to one setting of a claim, or are compared with another.

A part of the independent judge, see recomputed.py.
"""

import math
from collections import defaultdict
from pathlib import Path

import yaml
from recomputed_runs import STATISTICS, dotted

from nclab.config.keys import MAY_DIFFER


def read_claims(file):
    """The claims of a ledger, each with its family, its number of seeds, and margin and threshold as numbers."""
    tree = yaml.safe_load(Path(file).read_text())
    claims, family = [], ""
    for claim in tree["claims"] if isinstance(tree, dict) else tree:
        family = claim.get("family", family)
        stated = tree.get("seeds") if isinstance(tree, dict) else None
        numbers = {key: float(str(claim[key]).split()[0]) for key in ("margin", "threshold") if key in claim}
        claims.append({"seeds": stated} | claim | numbers | {"family": family})
    return claims


def meets(run, conditions):
    for key, wanted in conditions.items():
        if key not in run.settings:
            return False
        value = run.settings[key]
        if isinstance(wanted, dict) and "times" in wanted:
            other = run.settings.get(wanted["times"])
            if not isinstance(other, int | float) or not math.isclose(value * other, wanted["is"], rel_tol=1e-6):
                return False
        elif isinstance(wanted, dict):
            excluded = wanted.get("not", [])
            if value in (excluded if isinstance(excluded, list) else [excluded]):
                return False
            if "min" in wanted and not (isinstance(value, int | float) and value >= wanted["min"]):
                return False
        elif value not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
    return True


def setting_of(claim, run):
    """All that must agree among the runs of one setting."""
    conditions = claim.get("runs") or claim["treatment"]
    tied = {key for key, wanted in conditions.items() if isinstance(wanted, dict) and "times" in wanted}
    free = {claim["along"], *tied} if claim.get("along") else set()
    measured = STATISTICS[claim["statistic"]].measured or run.adapts
    return {
        key: value
        for key, value in run.settings.items()
        if key not in free
        and (key == "etf.name" or not MAY_DIFFER.match(key))
        and (measured or not key.startswith("metrics."))
    }


def grouped(claim, runs):
    groups = defaultdict(list)
    for run in runs:
        groups[repr(sorted(setting_of(claim, run).items()))].append(run)
    return list(groups.values())


def go_together(claim, treated, plain):
    """Equal in every key that both have; a key of one alone is of its policy, or has no say in the other."""
    one, two = (setting_of(claim, run) for run in (treated, plain))
    for key in {*one, *two} - {*claim["treatment"], *claim["baseline"]}:
        if key in one and key in two:
            if one[key] != two[key]:
                return False
        elif not key.startswith("etf."):
            lacking = treated if key in two else plain
            means_nothing = key in dict(dotted(lacking.config)) and key not in lacking.settings
            if not (means_nothing or (key.startswith("metrics.") and key in lacking.settings)):
                return False
    return True
