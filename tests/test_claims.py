"""Claims judged from run folders: what is paired, and what is told apart."""

import pytest
from fake_runs import ADAPTIVE, BASELINE, MLP, claim, judged, last, pair, write_run

from nclab.analysis.runs import AnalysisError
from nclab.analysis.verdict import HOLDS, NOT_ENOUGH


@pytest.mark.fast
def test_pairs_are_of_one_seed_and_the_others_are_named(tmp_path):
    pair(tmp_path, {0: (88.0, 88.1), 1: (89.0, 89.2), 2: (90.0, 90.15), 3: (95.0, None), 4: (None, 60.0)})
    (j,) = judged(tmp_path, claim())
    assert (j.verdict, j.seeds) == (HOLDS, (0, 1, 2))
    assert j.treatment == pytest.approx((88.0, 89.0, 90.0))
    assert j.baseline == pytest.approx((88.1, 89.2, 90.15))
    assert j.estimate.values == pytest.approx((-0.1, -0.2, -0.15))
    assert j.note == "treatment alone has seed 3; baseline alone has seed 4"
    assert j.where == "digits, 20 epochs"


def test_no_common_seed(tmp_path):
    pair(tmp_path, {0: (88.0, None), 1: (None, 88.0)})
    (j,) = judged(tmp_path, claim())
    assert (j.verdict, j.estimate, j.seeds) == (NOT_ENOUGH, None, ())
    assert j.reason == "no seed on both sides: treatment 0; baseline 1"


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": {"name": "mnist", "train_size": None}},
        {"dataset": {"name": "digits", "train_size": 100}},
        {"epochs": 8},
        {"model": MLP | {"depth": 4}},
        {"optimizer": {"name": "sgd", "lr": 0.1}},
        {"schedule": {"name": "cosine"}},
    ],
)
def test_runs_of_different_settings_are_never_paired(tmp_path, other):
    pair(tmp_path, {0: (88.0, None), 1: (88.0, None)})
    pair(tmp_path, {0: (None, 88.0), 1: (None, 88.0)}, **other)
    (j,) = judged(tmp_path, claim())
    assert (j.verdict, j.reason) == (NOT_ENOUGH, "no finished run with etf.name=none in this setting")
    pair(tmp_path, {0: (80.0, None), 1: (81.0, None)}, **other)
    two = judged(tmp_path, claim())
    assert [len(j.seeds) for j in two] in ([0, 2], [2, 0])
    assert len({j.where for j in two}) == 2  # the settings are told apart by name


def test_seed_machine_and_experiment_may_differ(tmp_path):
    pair(tmp_path, {0: (88.0, None), 1: (88.3, None)}, experiment="one", device="cuda", threads=4)
    pair(tmp_path, {0: (None, 88.0), 1: (None, 88.1)}, experiment="two", device="cpu", threads=1)
    assert [j.seeds for j in judged(tmp_path, claim())] == [(0, 1)]


def test_shared_keys_of_the_policy_must_agree_where_they_mean_something(tmp_path):
    frozen = ADAPTIVE | {"kind": "frozen"}
    both = claim("higher", treatment={"etf.name": "adaptive", "etf.kind": "etf"},
                 baseline={"etf.name": "adaptive", "etf.kind": "frozen"})  # fmt: skip
    fix = [(9, "fc5")]
    for seed in (0, 1):
        write_run(tmp_path, ADAPTIVE, seed, fix=fix)
        write_run(tmp_path, frozen | {"threshold": 0.5}, seed, fix=fix)
    assert not judged(tmp_path, both)[0].seeds
    for seed in (0, 1):
        write_run(tmp_path, frozen | {"frame": "random"}, seed, fix=fix)  # a frozen map has no frame
    assert judged(tmp_path, both)[0].seeds == (0, 1)


def test_variants_of_the_treatment_are_judged_apart(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, BASELINE, seed)
        write_run(tmp_path, last(1), seed)
        write_run(tmp_path, last(1, frame="canonical"), seed)
        write_run(tmp_path, last(2), seed)
    assert {j.where for j in judged(tmp_path, claim())} == {
        "digits, 20 epochs, last 1 ETF, etf.frame=random",
        "digits, 20 epochs, last 1 ETF, etf.frame=canonical",
        "digits, 20 epochs, last 2 ETF, etf.frame=random",
    }


def test_variants_of_the_baseline_are_judged_apart(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, last(3), seed)
        for depth in (3, 4):
            write_run(tmp_path, BASELINE, seed, model=MLP | {"depth": depth})
    shallow = claim(
        "higher",
        treatment={"model.depth": 5, "etf.name": "last_k"},
        baseline={"model.depth": [3, 4], "etf.name": "none"},
    )
    assert [j.where for j in judged(tmp_path, shallow)] == [
        "digits, 20 epochs, baseline model.depth=3",
        "digits, 20 epochs, baseline model.depth=4",
    ]


def test_a_case_of_per_without_runs_is_not_enough_and_comes_last(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, BASELINE, seed)
        write_run(tmp_path, last(2), seed)
    one, two = judged(tmp_path, claim(per={"etf.k": [1, 2]}))
    assert (one.where, one.seeds) == ("digits, 20 epochs, etf.k=2", (0, 1))
    assert (two.where, two.verdict) == ("etf.k=1", NOT_ENOUGH)
    assert two.reason == "no finished run with etf.name=last_k, etf.k=1"
    (none,) = judged(tmp_path, claim(treatment={"etf.name": "adaptive"}))
    assert (none.where, none.verdict) == ("no runs", NOT_ENOUGH)


def test_a_run_on_both_sides_is_refused(tmp_path):
    write_run(tmp_path, last(1))
    with pytest.raises(AnalysisError, match="meets the conditions of both"):
        judged(tmp_path, claim(baseline={"etf.k": 1}))
