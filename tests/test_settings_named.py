"""Two settings of a claim have two names: what a policy's label stands for is named where it tells them apart."""

import pytest
from fake_runs import BASELINE, claim, edit, judged, last, write_run

from nclab.analysis.runs import AnalysisError


def test_frames_are_named_where_settings_differ_in_them(tmp_path):
    """The label says "canonical", and is left out where the claim is judged for each k."""
    for seed in range(2):
        write_run(tmp_path, BASELINE, seed)
        for frame in ("random", "canonical"):
            edit(write_run(tmp_path, last(3, frame=frame, classifier_frame=frame), seed), test=0.9)
        write_run(tmp_path, last(2), seed)
    found = {frozenset(j.where.split(", ")[2:]) for j in judged(tmp_path, claim(per={"etf.k": [2, 3]}))}
    assert found == {
        frozenset({"etf.k=2"}),
        frozenset({"etf.k=3", "etf.frame=random", "etf.classifier_frame=random"}),
        frozenset({"etf.k=3", "etf.frame=canonical", "etf.classifier_frame=canonical"}),
    }


def test_baselines_are_named_where_one_treatment_has_two(tmp_path):
    """The label of each says its k: without it two rows would look alike."""
    for seed in range(2):
        write_run(tmp_path, last(3), seed)
        for k in (1, 2):
            write_run(tmp_path, last(k, kind="orthogonal"), seed)
    treatment, baseline = ({"etf.name": "last_k", "etf.kind": kind} for kind in ("etf", "orthogonal"))
    found = judged(tmp_path, claim(treatment=treatment, baseline=baseline | {"etf.k": [1, 2]}))
    assert {j.where for j in found} == {f"digits, 20 epochs, baseline etf.k={k}" for k in (1, 2)}
    assert all(j.seeds == (0, 1) for j in found)


def test_settings_that_nothing_tells_apart_are_refused(tmp_path):
    for value in (0.1234561, 0.1234562):  # six digits are shown
        write_run(tmp_path, last(1), optimizer={"name": "sgd", "lr": value})
        write_run(tmp_path, BASELINE, optimizer={"name": "sgd", "lr": value})
    with pytest.raises(AnalysisError, match=r"claim c: 2 settings have one name, digits, 20 epochs, .*0\.123456"):
        judged(tmp_path, claim())
