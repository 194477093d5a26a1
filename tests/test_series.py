"""Claims about series of depths: one slope a seed, seeds and depths that do not count."""

import numpy as np
import pytest
from fake_depth_runs import RN2, diverge_at, write_depth_run, write_series
from fake_runs import claim, judged, write_run

from nclab.analysis.effects import axis_label
from nclab.analysis.runs import AnalysisError, load_runs
from nclab.analysis.verdict import FAILS, HOLDS, NOT_ENOUGH

OVER_DEPTH = {"loss.l2": {"times": "model.blocks", "is": 0.005}}


def falls(runs=None, statistic="nc1_trace_ratio_last", kind="at_most", **more):
    runs = runs or {"model.name": "rn"}
    return claim(kind, statistic, runs, along="model.blocks", **{"threshold": -0.1} | more)


def only(root, *how, **more):
    (judgement,) = judged(root, falls(*how, **more))
    return judgement


# Numbers


def test_a_seed_has_one_number_the_slope_over_its_depths(tmp_path):
    write_series(tmp_path, (2, 5, 13, 34))
    j = only(tmp_path)
    assert (j.verdict, j.seeds) == (HOLDS, (0, 1, 2))
    slopes = []
    for seed in range(3):
        points = {}
        for run in load_runs([tmp_path], seeds=[seed]):
            rows = run.metrics.query("epoch == 100 and split == 'train' and metric == 'nc1_trace_ratio'")
            blocks = run.settings["model.blocks"]
            points[blocks] = rows[rows.layer == f"block{blocks}"].value.item()
        slopes.append(np.polyfit(np.log10([*points]), np.log10([*points.values()]), 1)[0])
    assert j.treatment == pytest.approx(slopes)
    assert j.estimate.values == pytest.approx(slopes)
    assert j.estimate.high < -0.1
    assert j.where == "mnist, 100 epochs, model.blocks=2|5|13|34"
    assert j.note == ""
    assert axis_label(j.claim) == "nc1_trace_ratio last, slope along model.blocks (decades per decade)"


@pytest.mark.parametrize(
    ("slope", "kind", "verdict"),
    [(-1 / 3, "at_most", HOLDS), (0.0, "at_most", FAILS), (0.0, "at_least", HOLDS), (-1 / 3, "at_least", FAILS)],
)
def test_falling_and_not_falling(tmp_path, slope, kind, verdict):
    write_series(tmp_path, slope=slope, noise=0.005)
    for statistic in ("nc1_trace_ratio_last", "nc2_weight_gram_last", "nc3_cosine_last"):
        assert only(tmp_path, None, statistic, kind).verdict == verdict


def test_lambda_over_depth_is_one_series_and_constant_lambda_another(tmp_path):
    write_series(tmp_path, (3, 5, 13), over_depth=True, model=RN2, experiment="depth_rn2")
    write_series(tmp_path, (3, 5, 13), model=RN2, experiment="depth_rn2_constant", slope=0.0, noise=0.005)
    scaled = only(tmp_path, OVER_DEPTH)
    assert (scaled.verdict, scaled.seeds) == (HOLDS, (0, 1, 2))
    constant = only(tmp_path, {"loss.l2": 0.005})
    assert (constant.verdict, constant.seeds) == (FAILS, (0, 1, 2))
    apart = judged(tmp_path, falls())  # without the condition every lambda is a series of its own
    assert sorted(len(j.seeds) for j in apart) == [0, 0, 0, 3]
    assert {"loss.l2=0.001" in j.where for j in apart} == {True, False}
    (wrong,) = judged(tmp_path, falls({"loss.l2": {"times": "model.blocks", "is": 0.004}}))
    assert wrong.reason == "no finished run with loss.l2 × model.blocks=0.004"


def test_everything_else_must_agree_within_a_series(tmp_path):
    write_series(tmp_path, (2, 5))
    write_series(tmp_path, (13, 34), optimizer={"name": "sgd", "lr": 0.01})
    two = judged(tmp_path, falls())
    assert [(j.verdict, j.seeds) for j in two] == [(NOT_ENOUGH, ())] * 2
    assert {j.reason for j in two} == {
        "a slope takes at least 3 values, there is model.blocks=2|5",
        "a slope takes at least 3 values, there is model.blocks=13|34",
    }


def test_networks_without_blocks_stand_nowhere_in_the_series(tmp_path):
    write_series(tmp_path)
    write_run(tmp_path)  # an MLP
    assert only(tmp_path, {"etf.name": "none"}).seeds == (0, 1, 2)
    with pytest.raises(AnalysisError, match=r"along etf\.name takes numbers above 0, got none in"):
        judged(tmp_path, claim("at_most", "nc1_trace_ratio_last", {"model.name": "rn"}, along="etf.name"))


def test_runs_of_other_claims_may_have_any_value_of_the_key(tmp_path):
    """A run of the same wing without a penalty, beside a claim along lambda."""
    write_series(tmp_path)
    write_run(tmp_path)  # an MLP, whose etf.name is no number
    target = claim("at_most", "nc1_trace_ratio_last", {"model.name": "vit"}, along="etf.name")
    assert [j.verdict for j in judged(tmp_path, target)] == [NOT_ENOUGH]


def test_depths_one_by_one_without_along(tmp_path):
    write_series(tmp_path, (2, 5), noise=0.0, over_depth=True)
    target = claim("at_most", "nc2_weight_gram_minus_orthogonal", {"model.name": "rn"})
    assert [j.seeds for j in judged(tmp_path, target)] == [(0, 1, 2)] * 2
    accuracy = claim("every_seed_at_least", "train_accuracy", OVER_DEPTH, threshold=90.0)
    assert [j.verdict for j in judged(tmp_path, accuracy)] == [HOLDS, HOLDS]


# What does not count


def test_a_seed_that_lacks_a_depth_does_not_count(tmp_path):
    write_series(tmp_path, seeds=range(4))
    write_series(tmp_path, (2, 5, 8, 13), seeds=(4,), slope=5.0)  # and it would have spoken against the claim
    j = only(tmp_path)
    assert (j.verdict, j.seeds) == (NOT_ENOUGH, (4,))
    assert j.note == "model.blocks: no number at 8 with seed 0, 1, 2, 3"


def test_a_depth_that_diverged_keeps_the_claim_from_holding(tmp_path):
    write_series(tmp_path, (2, 5, 13, 34))
    write_series(tmp_path, (2, 5, 13), seeds=(3,))
    assert only(tmp_path).verdict == HOLDS  # not trained yet, as any unfinished run
    diverge_at(tmp_path, 34, 3)
    j = only(tmp_path)
    assert (j.verdict, j.seeds) == (NOT_ENOUGH, (0, 1, 2))
    assert "but training diverged with seed 3: leaving it out would flatter" in j.reason
    assert j.note == "training diverged at model.blocks=34 with seed 3"
    write_depth_run(tmp_path, 34, 3, noise=0.01, tracker={"entity": "b"})  # trained again, and finished
    assert only(tmp_path).seeds == (0, 1, 2, 3)


def test_a_depth_that_diverged_with_every_seed_is_not_forgotten(tmp_path):
    write_series(tmp_path, (2, 5, 13))
    for seed in range(3):
        diverge_at(tmp_path, 34, seed)
    j = only(tmp_path)
    assert (j.verdict, j.seeds, j.estimate) == (NOT_ENOUGH, (), None)
    assert j.reason == "training diverged with seed 0, 1, 2"
    assert j.where.endswith("model.blocks=2|5|13|34")


@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_a_number_without_a_logarithm_keeps_the_claim_from_holding(tmp_path, value):
    write_series(tmp_path)
    for blocks in (2, 5, 13):
        write_depth_run(tmp_path, blocks, 3, end={"nc1_trace_ratio": value} if blocks == 13 else None)
    j = only(tmp_path)
    assert (j.verdict, j.seeds) == (NOT_ENOUGH, (0, 1, 2))
    assert "but nc1_trace_ratio_last is undefined with seed 3: leaving it out would flatter" in j.reason
    assert j.note == f"model.blocks: {'not positive' if value == 0 else 'undefined'} at 13 with seed 3"
    assert only(tmp_path, None, "nc3_cosine_last").seeds == (0, 1, 2, 3)


def test_twins_undo_the_verdict_and_the_same_run_counts_once(tmp_path):
    write_series(tmp_path, noise=0.0)
    write_depth_run(tmp_path, 5, 0, experiment="copy")
    assert only(tmp_path).seeds == (0, 1, 2)
    write_depth_run(tmp_path, 5, 1, slope=-0.3, experiment="other")
    j = only(tmp_path)
    assert j.verdict == NOT_ENOUGH
    assert j.reason.startswith("seed 1 is there twice with different nc1_trace_ratio_last: ")


def test_a_broken_run_takes_its_seed_with_it(tmp_path):
    write_series(tmp_path, seeds=range(4))
    broken = next(tmp_path.glob("depth_rn1/L5-s2-*/metrics.csv"))
    broken.unlink()
    j = only(tmp_path)
    assert (j.verdict, j.seeds) == (HOLDS, (0, 1, 3))
    assert str(broken) in j.note
    assert len(j.broken) == 1
