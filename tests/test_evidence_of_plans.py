"""The committed runs of a wing are those of its plan: no more, no fewer, trained with the keys that it has today."""

import tarfile
from pathlib import Path

import pytest

from nclab.config.place import CONF
from nclab.config.plan import Plan

EVIDENCE = Path(__file__).parents[1] / "docs" / "results" / "evidence"
WINGS = ("regression", "unconstrained")  # whose pages say so


def packed(wing):
    """EXPERIMENT/RUN of every run in the archives of a wing."""
    found = set()
    for archive in EVIDENCE.glob(f"{wing}*.tar.xz"):
        with tarfile.open(archive) as tar:
            found |= {name.rpartition("/")[0] for name in tar.getnames() if name.endswith("/config.yaml")}
    return found


def planned(wing, profile):
    """The same of every run of a profile, extra parts included."""
    plan = Plan(CONF, wing)
    parts = plan.resolve([*plan.parts], profile)
    return {f"{config.folder.parent.name}/{config.folder.name}" for part in parts for config in part.configs}


@pytest.mark.parametrize("wing", WINGS)
def test_the_evidence_of_a_wing_is_every_run_of_its_plan(wing):
    runs = planned(wing, "cpu")
    assert len(runs) > 100
    assert packed(wing) == runs
