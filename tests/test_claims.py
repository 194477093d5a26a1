"""Claims judged from run folders: what is paired, and what is told apart."""

import math

import numpy as np
import pytest
from fake_runs import ADAPTIVE, BASELINE, MLP, claim, diverge, edit, judged, last, pair, set_ncc, write_run

from nclab.analysis.interval import estimate
from nclab.analysis.judgement import count
from nclab.analysis.moderation import fit_prior
from nclab.analysis.runs import AnalysisError
from nclab.analysis.verdict import CEILING, FAILS, HOLDS, NOT_ENOUGH, SMALLER


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
        {"schedule": {"name": "constant"}},
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


# Margins, spreads and seeds


def steps(values, images=10_000):
    """Accuracies in percent as counts of images, so that their number can be told."""
    return {seed: tuple(100 * round(value / 100 * images) / images for value in both) for seed, both in values.items()}


def test_a_margin_follows_from_the_errors_and_images_of_the_baseline(tmp_path):
    pair(tmp_path, steps({0: (90.11, 90.37), 1: (90.32, 90.41), 2: (90.09, 90.43)}))
    (j,) = judged(tmp_path, claim(margin=None))
    assert j.margin == pytest.approx(0.05 * (100 - (90.37 + 90.41 + 90.43) / 3))
    assert j.margin_reason == "5 % of the baseline's errors (9.6 %)"
    assert (j.verdict, "contains -0.48" in j.reason) == (NOT_ENOUGH, True)
    (stated,) = judged(tmp_path, claim(margin=2.0, why="ours"))
    assert (stated.margin, stated.margin_reason, stated.verdict) == (2.0, "ours", HOLDS)
    (few,) = judged(tmp_path, claim("every_seed_at_least", threshold=50.0))
    assert (few.margin, few.margin_reason) == (None, "")


def test_a_baseline_that_makes_no_errors_is_a_ceiling(tmp_path):
    pair(tmp_path, {0: (99.9, 100.0), 1: (100.0, 100.0), 2: (99.95, 100.0)})
    (j,) = judged(tmp_path, claim("higher", margin=None))
    assert (j.verdict, j.reason.startswith("the baseline's mean leaves 0 below 100")) == (CEILING, True)
    assert judged(tmp_path, claim("higher", "saved_share", margin=0.5))[0].verdict != CEILING  # no accuracy


def test_networks_without_room_to_rise_are_a_ceiling(tmp_path):
    rises = claim("every_seed_at_least", "ncc_rise", {"etf.name": "none"}, threshold=1.0)
    for seed in range(3):
        curve = dict.fromkeys(("fc1", "fc2", "fc3", "fc4", "fc5"), 0.995)
        set_ncc(write_run(tmp_path, BASELINE, seed), {20: curve})
    (j,) = judged(tmp_path, rises)
    assert (j.verdict, j.seeds) == (CEILING, ())
    assert j.reason == "ncc_rise has no room with any seed, so that no run can show it"
    assert j.note == "ncc_rise has no room with seed 0, 1, 2"
    diverge(tmp_path, BASELINE, 5)
    assert judged(tmp_path, rises)[0].verdict == NOT_ENOUGH
    set_ncc(write_run(tmp_path, BASELINE, 3), {20: curve | {"fc1": 0.5}})
    (some,) = judged(tmp_path, rises)
    assert (some.verdict, some.seeds) == (NOT_ENOUGH, (3,))


def test_equivalence_of_two_sides(tmp_path):
    pair(tmp_path, {0: (88.3, 88.0), 1: (88.2, 88.1), 2: (88.3, 88.1), 3: (88.1, 88.1), 4: (88.0, 88.2)})
    (j,) = judged(tmp_path, claim("equivalent"))
    assert (j.verdict, j.reason) == (HOLDS, "the interval lies within [-0.50, 0.50]")
    diverge(tmp_path, BASELINE, 7)
    assert judged(tmp_path, claim("equivalent"))[0].verdict == NOT_ENOUGH  # a side that diverged is not comparable


def test_a_claim_on_the_spread_judges_distances_from_the_median(tmp_path):
    narrow, wide = (88.0, 88.1, 88.2, 88.3, 88.4), (90.0, 88.0, 91.0, 89.0, 87.0)
    pair(tmp_path, dict(enumerate(zip(narrow, wide, strict=True))))
    (j,) = judged(tmp_path, claim("lower", spread=True))
    # |88.0 - 88.2| - |90 - 89| = 0.2 - 1, ...
    assert j.estimate.values == pytest.approx((-0.8, -0.9, -2.0, 0.1, -1.8))
    assert (j.verdict, j.treatment) == (HOLDS, pytest.approx(narrow))
    assert j.claim.written == "distance from the median of its side, superiority downwards, margin 0.5 points"
    assert judged(tmp_path, claim("higher", spread=True))[0].verdict == FAILS


def test_settings_of_a_claim_share_their_spread_where_the_data_are_the_same(tmp_path):
    spreads = {1: (0.0, 0.1, 0.2), 2: (0.0, 0.3, 0.6), 3: (0.0, 0.2, 0.1)}
    for seed in range(3):
        edit(write_run(tmp_path, BASELINE, seed), test=0.88)
        for k, values in spreads.items():
            edit(write_run(tmp_path, last(k), seed), test=0.88 + values[seed] / 100)
    found = judged(tmp_path, claim(per={"etf.k": [1, 2, 3]}))
    prior = fit_prior([np.std(values, ddof=1) for values in spreads.values()], [2, 2, 2])
    for j, values in zip(found, spreads.values(), strict=True):
        alone = estimate(list(values))
        assert j.estimate.sd == pytest.approx(alone.sd)  # what is shown is its own
        expected = estimate(list(values), prior=prior)
        assert (j.estimate.se, j.estimate.df) == pytest.approx((expected.se, expected.df))
        assert j.estimate.df > 2
    (alone,) = judged(tmp_path, claim(treatment={"etf.k": 2}))
    assert alone.estimate.df == 2
    before = {j.estimate.mean: j.estimate.se for j in found}
    for data in ({"name": "mnist", "train_size": None}, {"name": "digits", "train_size": 100}):
        for seed in range(3):
            for etf, value in ((BASELINE, 0.5), (last(1), 0.6 + 0.1 * seed)):
                edit(write_run(tmp_path, etf, seed, dataset=data), test=value)
    again = [j for j in judged(tmp_path, claim(per={"etf.k": [1, 2, 3]})) if j.estimate.mean < 1]
    assert {j.estimate.mean: j.estimate.se for j in again} == pytest.approx(before)


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": {"name": "mnist", "train_size": None}},
        {"epochs": 8},
        {"schedule": {"name": "constant"}},
        {"optimizer": {"name": "sgd", "lr": 0.1}},
        {"model": MLP | {"width": 100}},
        {"etf": {"frame": "canonical"}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_settings_that_differ_in_more_than_the_claim_goes_through_share_no_spread(tmp_path, other):
    own, other = other.get("etf", {}), {key: value for key, value in other.items() if key != "etf"}
    for seed, values in enumerate(((0.0, 0.0), (0.1, 0.3), (0.2, 0.1))):
        for policy, shift in zip((last(1), last(2)), values, strict=True):
            edit(write_run(tmp_path, policy, seed), test=0.88 + shift / 100)
            edit(write_run(tmp_path, policy | own, seed, **other), test=0.60 + 30 * shift / 100)
        edit(write_run(tmp_path, BASELINE, seed), test=0.88)
        if other:
            edit(write_run(tmp_path, BASELINE, seed, **other), test=0.60)
    found = judged(tmp_path, claim(per={"etf.k": [1, 2]}))
    assert len(found) == 4
    quiet = [j.estimate.se for j in found if j.estimate.sd < 1]
    alone = fit_prior([0.1, np.std([0.0, 0.3, 0.1], ddof=1)], [2, 2])
    assert sorted(quiet) == pytest.approx(sorted(
        float(alone.moderated(sd, 2)[0]) / math.sqrt(3) for sd in (0.1, np.std([0.0, 0.3, 0.1], ddof=1))
    ))  # fmt: skip
    apart = judged(tmp_path, claim(treatment={"etf.k": 1}))
    assert [j.estimate.df for j in apart] == [2, 2]


def test_undecided_with_all_stated_seeds_asks_for_no_more(tmp_path):
    pair(tmp_path, {0: (88.0, 88.9), 1: (88.3, 88.0), 2: (88.1, 88.1)})
    (open_,) = judged(tmp_path, claim(seeds=5))
    assert "seeds would decide" in open_.reason
    (done,) = judged(tmp_path, claim(seeds=3))
    assert done.reason == "the interval contains -0.50; undecided with the stated 3 seeds"
    edit(next(tmp_path.glob("exp/last_k-s2-*")), test=None)  # a seed without a number was used as well
    (lacking,) = judged(tmp_path, claim(seeds=3))
    assert (lacking.seeds, lacking.reason.endswith("undecided with the stated 3 seeds")) == ((0, 1), True)
    pair(tmp_path, {3: (88.0, None), 4: (88.0, None)})  # the baselines are still to come
    assert "seeds would" in judged(tmp_path, claim(seeds=5))[0].reason


def test_nine_seeds_of_ten_refute_a_claim_about_every_seed(tmp_path):
    pair(tmp_path, {seed: (80.0 if seed == 4 else 90.0, None) for seed in range(10)})
    every = claim("every_seed_at_least", threshold=85.0, seeds=10)
    (j,) = judged(tmp_path, every)
    assert (j.verdict, j.reason, j.provisional) == (FAILS, "1 of 10 seeds misses it: not at least 85.00", "")


def test_a_train_accuracy_near_its_end_is_judged_by_a_tenth_of_a_point(tmp_path):
    for seed in range(3):
        edit(write_run(tmp_path, BASELINE, seed), train=0.9999 - 1e-4 * seed / 6)
        edit(write_run(tmp_path, last(1), seed), train=0.9996 - 1e-4 * seed / 6)
    (same,) = judged(tmp_path, claim("equivalent", "train_accuracy", margin=None))
    assert (same.verdict, same.margin) == (HOLDS, 0.1)
    (higher,) = judged(tmp_path, claim("higher", "train_accuracy", treatment={"etf.name": "none"},
                                       baseline={"etf.name": "last_k"}, margin=None))  # fmt: skip
    assert (higher.verdict, higher.margin) == (CEILING, 0.1)  # 0.04 points of room


def test_fewer_seeds_than_stated_are_provisional_and_more_do_not_count(tmp_path):
    accuracies = {0: (88.0, 88.1), 1: (89.0, 89.2), 2: (90.0, 90.15), 3: (80.0, 90.0), 4: (80.0, 90.0)}
    pair(tmp_path, accuracies)
    (three,) = judged(tmp_path, claim(seeds=3))
    assert (three.verdict, three.seeds, three.provisional) == (HOLDS, (0, 1, 2), "")
    assert three.note == "seed 3, 4 is beyond the 3 that the claim states"
    (ten,) = judged(tmp_path, claim(seeds=10))
    assert (ten.seeds, ten.provisional) == ((0, 1, 2, 3, 4), "5 of 10 seeds")
    assert judged(tmp_path, claim())[0].provisional == "5 seeds, no number stated"
    (absent,) = judged(tmp_path, claim(treatment={"etf.name": "adaptive"}, seeds=10))
    assert absent.provisional == "0 of 10 seeds"
    assert judged(tmp_path, claim("at_least", "saved_share", deterministic=True, seeds=10))[0].provisional == ""


def test_a_seed_that_diverged_is_not_replaced_by_another(tmp_path):
    pair(tmp_path, {0: (88.0, 88.1), 1: (89.0, 89.2), 3: (90.0, 90.15)})
    diverge(tmp_path, last(1), 2)  # no baseline of this seed says that it was one of the three
    (j,) = judged(tmp_path, claim(seeds=3))
    assert (j.seeds, j.provisional, j.verdict) == ((0, 1), "2 of 3 seeds", NOT_ENOUGH)
    diverge(tmp_path, last(1), 9)
    (beyond,) = judged(tmp_path, claim(seeds=2))
    assert (beyond.seeds, "diverged" in beyond.reason + beyond.note) == ((0, 1), False)


def test_arithmetic_and_what_is_provisional_are_counted_apart(tmp_path):
    pair(tmp_path, {0: (88.0, 88.1), 1: (89.0, 89.2), 2: (90.0, 90.15)})
    arithmetic = claim("at_least", "saved_share", deterministic=True, threshold=1.0)
    found = judged(tmp_path, claim(seeds=3), arithmetic, claim("higher", seeds=3), claim(seeds=10))
    assert [j.arithmetic for j in found] == [False, True, False, False]
    assert count(found) == {HOLDS: 1, FAILS: 1, SMALLER: 0, CEILING: 0, NOT_ENOUGH: 0}
    assert count(found, arithmetic=True) == {HOLDS: 1, FAILS: 0, SMALLER: 0, CEILING: 0, NOT_ENOUGH: 0}
    assert count(found, provisional=True) == {HOLDS: 1, FAILS: 0, SMALLER: 0, CEILING: 0, NOT_ENOUGH: 0}
    assert math.isnan(found[1].p_adjusted)
