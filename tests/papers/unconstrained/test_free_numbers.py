"""The numbers of the wing's claims, and the claims themselves on runs that are made up."""

import math

import pytest
from fake_free_runs import write_free_run

from nclab.analysis import AnalysisError, load_runs
from nclab.analysis.claims import judge
from nclab.analysis.ledger import load_ledger
from nclab.analysis.runs import Run
from nclab.analysis.statistics import STATISTICS
from nclab.config.place import CONF
from nclab.papers.unconstrained import setting
from nclab.theory import deep
from nclab.theory.one_layer import cross_entropy_optimum, soft_loss_optimum, squared_error_optimum

BEST = cross_entropy_optimum(4, 2, 0.01, 0.01).objective
DNC = deep.collapsed(4, 2, 2).least(0.01).objective


def of(folder) -> Run:
    (run,) = load_runs([folder])
    return run


def number(name, folder):
    load_ledger(CONF / "paper" / "unconstrained" / "claims.yaml")  # registers the statistics
    return STATISTICS[name].value(of(folder), of(folder))


def test_the_gap_is_the_objective_minus_the_optimum(tmp_path):
    folder = write_free_run(tmp_path, {0: 2.0, 3: BEST + 1e-3})
    assert number("optimum_gap", folder) == pytest.approx(1e-3)
    assert setting.gap(of(folder))[0] == pytest.approx(2 - BEST)
    assert number("free_nc1_last", folder) == pytest.approx(1e-4)


def test_features_may_have_a_penalty_of_their_own(tmp_path):
    folder = write_free_run(tmp_path, {0: 2.0, 1: 1.0})
    run = of(folder)
    run.config["loss"]["l2_features"] = 0.002
    assert setting.optimum(run) == cross_entropy_optimum(4, 2, 0.01, 0.002).objective


@pytest.mark.parametrize(
    ("loss", "best"),
    [
        ("mse", squared_error_optimum(4, 2, 0.01, 0.01, 0.01).objective),
        ("label_smoothing", soft_loss_optimum(4, 2, 0.01, 0.01, smoothing=0.1)),
        ("focal", soft_loss_optimum(4, 2, 0.01, 0.01, gamma=3.0)),
    ],
)
def test_other_losses_have_a_minimum_of_their_own(tmp_path, loss, best):
    folder = write_free_run(tmp_path, {0: 2.0, 3: best + 1e-3}, loss=loss)
    assert number("optimum_gap", folder) == pytest.approx(1e-3)
    run = of(folder)
    run.config["loss"]["name"] = "other"
    with pytest.raises(AnalysisError, match="no closed form of loss=other"):
        setting.optimum(run)


def test_without_a_bias_the_squared_error_has_another_minimum(tmp_path):
    run = of(write_free_run(tmp_path, {0: 2.0, 1: 1.0}, loss="mse", bias=False))
    assert setting.optimum(run) == squared_error_optimum(4, 2, 0.01, 0.01).objective
    run.config["model"]["bias"], run.config["loss"]["l2_biases"] = True, 0.5
    assert setting.optimum(run) == squared_error_optimum(4, 2, 0.01, 0.01, 0.5).objective


def test_levels_of_pairs_are_of_deep_linear_layers_under_cross_entropy(tmp_path):
    run = of(write_free_run(tmp_path, {0: 3.0, 3: 1.0}, kind="deep", singular=(1, 1, 1, 0), classes=6))
    assert setting.pairs_levels(run) == [deep.some_in_pairs(6, 2, 2, m, 0.01) for m in (1, 2)]
    run.config["model"]["activation"] = "relu"
    assert setting.pairs_levels(run) == []


def test_the_penalty_of_a_fixed_head_is_added(tmp_path):
    etf = {"name": "last_k", "k": 1, "kind": "etf", "classifier_scale": 3.0}
    folder = write_free_run(tmp_path, {0: 2.0, 3: 1.0}, etf=etf)
    assert number("optimum_gap", folder) == pytest.approx(1.0 + 0.01 / 2 * 4 * 3.0**2 - BEST)


def test_curvature_is_read_at_the_start_and_at_the_end(tmp_path):
    metrics = {("network", "hessian_least"): {0: -0.3, 3: -1e-9}, ("network", "gradient_norm"): {0: 1e-9, 3: 0.1}}
    folder = write_free_run(tmp_path, {0: 2.0, 3: BEST}, metrics=metrics, name="saddle", groups=2)
    assert number("saddle_curvature", folder) == -0.3
    assert number("end_curvature", folder) == -1e-9
    assert number("saddle_gradient", folder) == 1e-9


@pytest.mark.parametrize(
    ("singular", "ratio", "rank", "at_dnc"),
    [((2.0, 2.0, 1.9, 1e-3), 1.005, 3, 1), ((2.0, 2.0, 1e-2, 0), 1.005, 2, 0), ((2.0, 2.0, 1.9, 0), 0.98, 3, 0)],
)
def test_where_a_deep_run_ends(tmp_path, singular, ratio, rank, at_dnc):
    folder = write_free_run(tmp_path, {0: 3.0, 3: ratio * DNC}, kind="deep", singular=singular)
    assert number("objective_over_dnc", folder) == pytest.approx(ratio)
    assert number("free_rank", folder) == rank
    assert number("ends_at_dnc", folder) == at_dnc


def test_closed_forms_follow_the_setting(tmp_path):
    run = of(write_free_run(tmp_path, {0: 3.0, 3: 1.0}, kind="deep", singular=(1, 1, 1, 0), classes=10))
    assert setting.low_rank(run) == deep.low_rank(10, 2, 2).least(0.01)
    assert setting.full_rank(run) == 9
    run.config["model"] |= {"activation": "relu", "depth": 4}
    run.config["loss"]["name"] = "mse"
    assert setting.low_rank(run) == deep.regular_graph(5, 2, 4).least(0.01)
    assert setting.collapse(run) == deep.collapsed(10, 2, 4, "mse", relu=True).least(0.01)
    assert setting.full_rank(run) == 10
    run.config["dataset"]["classes"] = 9
    assert setting.low_rank(run) is None


def test_the_graph_is_arithmetic_of_lambda_and_samples(tmp_path):
    folder = write_free_run(tmp_path, {0: 3.0, 3: 1.0}, kind="deep", singular=(1, 1, 1, 0), l2=1e-3)
    ratio = (
        deep.regular_graph(4, 2, 3).least(1e-3).objective / deep.collapsed(6, 2, 3, "mse", True).least(1e-3).objective
    )
    assert 1 < number("graph_over_dnc_three", folder) <= ratio
    assert number("graph_over_dnc_deep", folder) < 1


def test_other_data_and_penalties_have_no_closed_form(tmp_path):
    run = of(write_free_run(tmp_path, {0: 3.0, 3: 1.0}, kind="deep"))
    run.config["loss"]["l2_features"] = 0.5
    with pytest.raises(AnalysisError, match=r"closed forms of deep features have one lambda, got 0\.01, 0\.5"):
        setting.collapse(run)
    with pytest.raises(AnalysisError, match="expected a run that measures singular_values"):
        setting.ranks(run)
    run.config["dataset"]["imbalance"] = 2.0
    with pytest.raises(AnalysisError, match="dataset=free_features with equal classes"):
        setting.collapse(run)


def test_the_ledger_judges_one_layer(tmp_path):
    for seed in range(10):
        write_free_run(tmp_path, {0: 2.0, 9: BEST + 1e-9}, seed)
        write_free_run(tmp_path, {0: 2.0, 9: BEST + (1e-3 if seed == 4 else 0)}, seed, optimizer="adamw")
    ledger = load_ledger(CONF / "paper" / "unconstrained" / "claims.yaml")
    (claim,) = (c for c in ledger if c.id == "every_start_reaches_the_optimum")
    found = {j.setting["optimizer.name"]: j.verdict for j in judge([claim], load_runs([tmp_path])) if j.seeds}
    assert found == {"sgd": "holds", "adamw": "fails"}
    assert all(math.isfinite(c.threshold) and c.why for c in ledger)
