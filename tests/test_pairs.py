"""What is paired with what, which seeds count, and what is said of those that do not."""

import math

import pytest
from fake_runs import ADAPTIVE, BASELINE, MLP, claim, diverge, edit, judged, last, pair, vit, write_run

from nclab.analysis.moderation import fit_prior
from nclab.analysis.verdict import CEILING, FAILS, HOLDS, NOT_ENOUGH

FROZEN = ADAPTIVE | {"kind": "frozen"}
FIX = [(9, "fc5"), (11, "fc4")]


def against_frozen(kind="higher"):
    sides = ({"etf.name": "adaptive", "etf.kind": kind} for kind in ("etf", "frozen"))
    return claim(kind, treatment=next(sides), baseline=next(sides))


# Keys that may differ


def test_final_accuracies_do_not_ask_how_often_was_measured(tmp_path):
    pair(tmp_path, {0: (88.0, None), 1: (88.3, None)}, every=0)
    pair(tmp_path, {0: (None, 88.0), 1: (None, 88.1)}, every=2)
    (j,) = judged(tmp_path, claim())
    assert (j.seeds, j.where) == ((0, 1), "digits, 20 epochs")
    (share,) = judged(tmp_path, claim("at_least", "saved_share"))
    assert share.seeds == (0, 1)
    (ncc,) = judged(tmp_path, claim(statistic="ncc_before_etf"))
    assert ncc.reason == "no finished run with etf.name=none in this setting"


def test_a_policy_that_reads_the_measurements_pairs_with_any_baseline_but_not_with_its_own_control(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, ADAPTIVE, seed, every=1, fix=FIX)
        write_run(tmp_path, BASELINE, seed, every=0)
        write_run(tmp_path, FROZEN, seed, every=2, fix=FIX)
    assert judged(tmp_path, claim(treatment={"etf.kind": "etf"}))[0].seeds == (0, 1)
    assert judged(tmp_path, against_frozen())[0].seeds == ()
    for seed in (0, 1):
        write_run(tmp_path, FROZEN, seed, every=1, fix=FIX)
    assert judged(tmp_path, against_frozen())[0].seeds == (0, 1)


def test_machine_keys_differ_freely_whether_the_measurements_are_read_or_not(tmp_path):
    for seed, etf in ((0, ADAPTIVE), (0, FROZEN)):
        memory = {"every": 1, "probe": "linear", "memory_gib": 2.0 if etf is ADAPTIVE else 8.0}
        write_run(tmp_path, etf, seed, fix=FIX, metrics=memory)
    assert judged(tmp_path, against_frozen())[0].seeds == (0,)


def test_a_key_asked_of_both_sides_alike_is_equal_in_a_pair(tmp_path):
    for seed in (0, 1):
        for width in (8, 16):
            for etf in (BASELINE, last(1)):
                write_run(tmp_path, etf, seed, model=MLP | {"width": width})
    alike = {"model.width": [8, 16]}
    one = claim(treatment={"etf.name": "last_k"} | alike, baseline={"etf.name": "none"} | alike)
    assert one.named == {"etf.name"}
    assert sorted(j.setting["model.width"] for j in judged(tmp_path, one)) == [8, 16]
    apart = claim(treatment={"etf.name": "last_k", "model.width": 8}, baseline={"etf.name": "none", "model.width": 16})
    assert apart.named == {"etf.name", "model.width"}
    assert [j.seeds for j in judged(tmp_path, apart)] == [(0, 1)]


def test_without_a_feed_forward_part_its_norm_means_nothing(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, BASELINE, seed, model=vit(2) | {"ffn_norm": "layer"})
        write_run(tmp_path, BASELINE, seed, model=vit(2, ratio=0.0) | {"ffn_norm": "none"})
    sides = {"treatment": {"model.ratio": {"not": 0}}, "baseline": {"model.ratio": 0}}
    assert judged(tmp_path, claim("higher", **sides))[0].seeds == (0, 1)


# Seeds that do not count


def test_the_same_run_twice_counts_once_and_two_different_ones_undo_the_verdict(tmp_path):
    pair(tmp_path, {0: (88.0, 88.0), 1: (88.2, 88.1), 2: (88.3, 88.2), 3: (88.1, 88.1)})
    pair(tmp_path, {0: (88.0, None)}, experiment="copy")
    (j,) = judged(tmp_path, claim())
    assert (j.verdict, j.estimate.n) == (HOLDS, 4)
    pair(tmp_path, {0: (88.5, None)}, experiment="other")
    (j,) = judged(tmp_path, claim())
    assert (j.verdict, j.seeds) == (NOT_ENOUGH, (1, 2, 3))
    assert j.reason.startswith("seed 0 is there twice with different test_accuracy: ")
    assert "/copy/" in j.reason
    assert "/other/" in j.reason


def test_diverged_seeds_keep_a_claim_from_holding(tmp_path):
    pair(tmp_path, {0: (88.0, 88.1), 1: (89.0, 89.2), 2: (90.0, 90.15), 3: (None, 90.0)})
    diverged = diverge(tmp_path, last(1), 3)
    running = write_run(tmp_path, last(1), 4, done=False)
    with (running / "events.jsonl").open("a") as file:
        file.write('{"event": "epo')
    (j,) = judged(tmp_path, claim())
    assert (j.verdict, j.seeds) == (NOT_ENOUGH, (0, 1, 2))
    assert j.reason == (
        "the interval lies above -0.50: a loss of the margin is excluded, "
        "but training diverged with seed 3: leaving it out would flatter"
    )
    pair(tmp_path / "bad", {0: (80.0, 88.1), 1: (81.0, 89.0), 2: (82.0, 90.1)})
    diverge(tmp_path / "bad", last(1), 3)
    assert judged(tmp_path / "bad", claim())[0].verdict == FAILS
    (alone,) = judged(diverged, claim("at_least", "saved_share"))
    assert alone.reason == "training diverged with seed 3"


@pytest.mark.parametrize("kind", ["higher", "not_lower"])
def test_a_diverged_baseline_keeps_a_claim_from_failing(tmp_path, kind):
    pair(tmp_path, {0: (86.0, 88.1), 1: (87.0, 89.2), 2: (88.0, 90.15)})
    assert judged(tmp_path, claim(kind))[0].verdict == FAILS
    diverge(tmp_path, BASELINE, 5)
    (j,) = judged(tmp_path, claim(kind))
    assert (j.verdict, j.note) == (NOT_ENOUGH, "baseline diverged with seed 5")
    assert j.reason.endswith("but the baseline diverged with seed 5: leaving it out flatters it")


def test_a_diverged_baseline_keeps_a_claim_from_ending_at_a_ceiling(tmp_path):
    pair(tmp_path, {0: (99.9, 100.0), 1: (99.95, 100.0), 2: (100.0, 99.95)})
    assert judged(tmp_path, claim("higher"))[0].verdict == CEILING
    diverge(tmp_path, BASELINE, 5)
    (j,) = judged(tmp_path, claim("higher"))
    assert j.verdict == NOT_ENOUGH
    assert j.reason.endswith("but the baseline diverged with seed 5: leaving it out flatters it")


def test_a_diverged_baseline_does_not_keep_a_claim_from_holding(tmp_path):
    pair(tmp_path, {0: (88.0, 88.1), 1: (89.0, 89.2), 2: (90.0, 90.15)})
    diverge(tmp_path, BASELINE, 5)
    assert judged(tmp_path, claim())[0].verdict == HOLDS


def test_a_run_that_was_resumed_since_is_not_diverged(tmp_path):
    pair(tmp_path, {0: (88.0, 88.1), 1: (89.0, 89.2), 2: (90.0, 90.15)})
    diverge(tmp_path, last(1), 3, "resume", "epoch")
    assert judged(tmp_path, claim())[0].verdict == HOLDS
    diverge(tmp_path, last(1), 4, "resume", "diverged")
    assert "diverged with seed 4" in judged(tmp_path, claim())[0].reason


def test_undefined_numbers_do_not_count(tmp_path):
    pair(tmp_path, {0: (88.0, 88.0), 1: (88.2, 88.1), 2: (88.1, 88.0)})
    edit(next(tmp_path.glob("exp/last_k-s1-*")), test=None)
    (j,) = judged(tmp_path, claim())
    assert (j.seeds, j.note) == ((0, 2), "test_accuracy is undefined with seed 1")
    for folder in tmp_path.glob("exp/last_k-*"):
        edit(folder, test=None)
    (j,) = judged(tmp_path, claim())
    assert (j.verdict, j.reason) == (NOT_ENOUGH, "no seed counts")
    assert j.note == "test_accuracy is undefined with seed 0, 1, 2"


def test_runs_that_were_not_measured_do_not_count(tmp_path):
    for seed in range(3):
        edit(write_run(tmp_path, BASELINE, seed, every=0), effective_depth=None)
    (j,) = judged(tmp_path, claim("every_seed_at_least", "layers_beyond_effective_depth", {"etf.name": "none"}))
    assert (j.verdict, j.seeds) == (NOT_ENOUGH, ())
    assert j.note == "layers_beyond_effective_depth is undefined with seed 0, 1, 2"


def test_pairs_whose_policy_never_fired_do_not_count(tmp_path):
    for seed in range(4):
        fix = FIX if seed != 3 else ()
        for etf in (BASELINE, ADAPTIVE, FROZEN):
            folder = write_run(tmp_path, etf, seed, fix=fix if etf is not BASELINE else ())
            edit(folder, test=0.88 + 0.001 * seed)
    adaptive = {"etf.name": "adaptive", "etf.kind": "etf"}
    for one in (claim(treatment=adaptive), against_frozen()):
        (j,) = judged(tmp_path, one)
        assert (j.seeds, j.note) == ((0, 1, 2), "nothing was fixed with seed 3")
    (saves,) = judged(tmp_path, claim("every_seed_at_least", "saved_share", adaptive, threshold=0.1))
    assert (saves.seeds, saves.verdict) == ((0, 1, 2, 3), FAILS)  # here it speaks against the claim
    assert saves.reason == "1 of 4 seeds misses it: not at least 0.10"


def test_a_control_that_fixed_something_else_is_named(tmp_path):
    for seed, other in enumerate((FIX, [(9, "fc5")], [(9, "fc5"), (12, "fc4")], ())):
        write_run(tmp_path, ADAPTIVE, seed, fix=FIX)
        write_run(tmp_path, FROZEN, seed, fix=other)
    (j,) = judged(tmp_path, against_frozen())
    assert j.seeds == (0, 1, 2, 3)
    assert j.note == "the baseline fixed other layers, or at other epochs, with seed 1, 2, 3"


@pytest.mark.parametrize(
    ("name", "file", "statistic"),
    [
        ("last_k", "summary.json", "test_accuracy"),
        ("none", "summary.json", "test_accuracy"),
        ("last_k", "metrics.csv", "ncc_before_etf"),
        ("none", "metrics.csv", "early_ncc"),
        ("last_k", "events.jsonl", "early_ncc"),
    ],
)
def test_a_run_that_cannot_be_read_is_left_out_and_named(tmp_path, name, file, statistic):
    pair(tmp_path, {seed: (88.0 + seed, 88.1 + seed) for seed in range(4)})
    broken = next(tmp_path.glob(f"exp/{name}-s2-*")) / file
    broken.unlink()
    (j,) = judged(tmp_path, claim(statistic=statistic))
    assert j.seeds == (0, 1, 3)
    assert str(broken) in j.note
    assert [str(broken) in error for error in j.broken] == [True]


def test_a_broken_copy_does_not_hide_the_whole_one(tmp_path):
    pair(tmp_path, dict.fromkeys(range(3), (88.0, 88.1)))
    pair(tmp_path, {0: (88.0, None)}, experiment="a_copy")
    next(tmp_path.glob("a_copy/*/summary.json")).write_text("[]")
    (j,) = judged(tmp_path, claim())
    assert j.seeds == (0, 1, 2)
    assert "a_copy" in j.note


def test_an_adaptive_run_without_its_events_cannot_be_judged(tmp_path):
    for seed in range(3):
        write_run(tmp_path, ADAPTIVE, seed, fix=FIX)
        write_run(tmp_path, BASELINE, seed, model=MLP)
    next(tmp_path.glob("exp/adaptive-s1-*/events.jsonl")).unlink()
    (j,) = judged(tmp_path, claim(treatment={"etf.name": "adaptive"}))
    assert j.seeds == (0, 2)
    assert "events.jsonl" in j.note


# The resolution of accuracies


def test_the_floor_of_a_difference_is_that_of_two_roundings(tmp_path):
    """Of 360 images one accuracy is rounded with a standard deviation of 100 / (360 sqrt(12)), a difference of two with
    sqrt(2) times that."""
    for seed in range(3):
        for etf, images in ((BASELINE, 301), (last(1), 307)):  # coprime to 360
            edit(write_run(tmp_path, etf, seed), test=images / 360)
    (paired,) = judged(tmp_path, claim())
    (alone,) = judged(tmp_path, claim("at_least", treatment={"etf.name": "last_k"}, threshold=50.0))
    one = 100 / 360 / math.sqrt(12)
    assert (paired.estimate.floor, alone.estimate.floor) == pytest.approx((math.sqrt(2) * one, one))


def test_equal_settings_lend_the_spread_of_rounding_and_not_none(tmp_path):
    """Three equal differences have a spread of 0, known to no better than an image: what they lend is the floor."""
    for seed in range(3):
        edit(write_run(tmp_path, BASELINE, seed), test=301 / 360)
        edit(write_run(tmp_path, last(1), seed), test=307 / 360)
        edit(write_run(tmp_path, last(2), seed), test=(297 + 6 * seed) / 360)
    one, two = judged(tmp_path, claim(per={"etf.k": [1, 2]}))
    floor, sd = 100 / 360 / math.sqrt(6), 100 * 6 / 360
    assert (one.estimate.sd, two.estimate.sd) == pytest.approx((0.0, sd))
    prior = fit_prior([floor, sd], [2, 2])
    for j, own in ((one, floor), (two, sd)):
        used, df = prior.moderated(own, 2)
        assert (j.estimate.se, j.estimate.df) == pytest.approx((used / math.sqrt(3), df))


@pytest.mark.parametrize(("shift", "verdict"), [(1 / 360, NOT_ENOUGH), (1 / 10000, HOLDS)])
def test_two_equal_differences_of_few_images_decide_nothing(tmp_path, shift, verdict):
    for seed, images in ((0, 0.8 - 7 * shift), (1, 0.8 + 11 * shift)):
        for etf in (BASELINE, last(1)):
            edit(write_run(tmp_path, etf, seed), test=images)
    (j,) = judged(tmp_path, claim())
    assert (j.verdict, j.estimate.sd) == (verdict, 0.0)
    assert j.estimate.low < 0 < j.estimate.high
