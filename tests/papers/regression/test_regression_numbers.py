"""The numbers behind the claims of the regression, and its verdicts on runs with stated matrices."""

import math

import numpy as np
import pytest
from fake_regression_runs import S, root_of, write_network_run, write_ufm_run
from scipy.optimize import minimize_scalar

from nclab.analysis.claims import judge
from nclab.analysis.ledger import load_ledger
from nclab.analysis.runs import AnalysisError, load_runs
from nclab.analysis.statistics import STATISTICS
from nclab.config.place import CONF
from nclab.papers.regression import numbers
from nclab.theory.regression import nrc3

LEDGER = CONF / "paper" / "regression" / "claims.yaml"


def value(name, folder):
    load_ledger(LEDGER)  # registers them
    (run,) = load_runs([folder])
    return STATISTICS[name].value(run, run)


def verdicts(root):
    found = {}
    for one in judge(load_ledger(LEDGER), load_runs([root])):
        if not one.absent:
            found.setdefault(one.claim.id, set()).add(one.verdict)
    return found


def test_falls_are_decades_and_ends_are_shares(tmp_path):
    folder = write_network_run(tmp_path, rate=-1.0)
    assert value("nrc1_fall", folder) == pytest.approx(math.log10(101))
    assert value("nrc2_last", folder) == pytest.approx(0.9 / 101)
    assert value("unexplained_variance_last", folder) == pytest.approx(0.5 / 101)
    assert value("unexplained_variance_fall", folder) == pytest.approx(math.log10(101))
    assert value("train_r2", folder) == pytest.approx(90)
    assert value("test_r2", folder) == pytest.approx(80)
    assert value("nrc1_last", write_network_run(tmp_path / "b", rate=-9)) == numbers.LEAST


def test_nrc3_takes_the_g_of_the_last_w_for_all_epochs(tmp_path):
    (run,) = load_runs([write_network_run(tmp_path)])
    last = root_of(S) + (np.eye(2) - root_of(S)) / 101
    least = np.linalg.eigvalsh(S)[0]
    g = minimize_scalar(lambda g: nrc3(last, S, g), bounds=(0, least), method="bounded", options={"xatol": 1e-12}).x
    assert numbers.last_g(run) == pytest.approx(g, abs=1e-6)
    curve = numbers.nrc3_series(run)
    assert curve.index.tolist() == list(range(0, 101, 10))
    for t, found in curve.items():
        gram = root_of(S) + (np.eye(2) - root_of(S)) / (1 + t)
        assert found == pytest.approx(nrc3(gram, S, numbers.last_g(run)), rel=1e-9)
    assert curve[0] > curve[100]


def test_of_one_target_nrc3_is_undefined(tmp_path):
    folder = write_network_run(tmp_path, s=np.array([[1.0]]))
    assert math.isnan(value("nrc3_last", folder))
    assert value("nrc1_fall", folder) > 1


def test_unconstrained_features_against_the_closed_form(tmp_path):
    exact, off = (write_ufm_run(tmp_path / str(o), off=o) for o in (0.0, 1e-5))
    assert value("ufm_loss_digits", exact) == value("ufm_gram_digits", exact) == 12
    assert value("ufm_loss_digits", off) == pytest.approx(5)
    scale = (100 * np.trace(S)) ** 0.5
    assert value("ufm_gram_digits", off) == pytest.approx(-math.log10(1e-5 * 2**0.5 / scale))
    assert value("ufm_g_digits", exact) > 8
    assert value("ufm_g_digits", off) < 8
    assert value("nrc3_fall", exact) > 8


@pytest.mark.parametrize(("l2", "rank"), [(0.01, 2), (0.09, 1), (0.2, 0)])
def test_the_rank_is_the_number_of_eigenvalues_above_c(tmp_path, l2, rank):
    folder = write_ufm_run(tmp_path, l2=l2)
    assert (value("ufm_rank", folder), value("ufm_rank_gap", folder)) == (rank, 0)
    assert math.isnan(value("ufm_g_digits", folder)) == (rank < 2)
    if rank < 2:
        assert value("ufm_rank_gap", write_ufm_run(tmp_path / "b", l2=l2, off=0.01)) == 2 - rank


def test_own_penalties_of_features_count(tmp_path):
    (run,) = load_runs([write_ufm_run(tmp_path)])
    assert numbers.lambdas(run) == (1.0, 0.01)
    run.settings["loss.l2_features"] = 0.05
    assert numbers.lambdas(run) == (5.0, 0.01)


def test_what_was_not_measured_is_named(tmp_path):
    folder = write_network_run(tmp_path)
    text = (folder / "metrics.csv").read_text()
    kept = [line for line in text.splitlines() if "weight_gram" not in line and "nrc1" not in line]
    (folder / "metrics.csv").write_text("\n".join(kept) + "\n")
    with pytest.raises(AnalysisError, match=r"no train nrc1 of act3; see metrics\.suite and \.every"):
        value("nrc1_last", folder)
    with pytest.raises(AnalysisError, match="no weight_gram_i_j; expected the suite regression_collapse"):
        value("nrc3_last", folder)


def test_verdicts_on_runs_that_are_as_the_paper_says(tmp_path):
    for seed in range(10):
        for l2 in (0, 0.01, 0.12):
            write_ufm_run(tmp_path, seed, l2)
    for seed in range(5):
        for decay in (0, 0.001, 0.002, 0.003):
            write_network_run(tmp_path, seed, decay, rate=-0.5 - 200 * decay if decay else -0.01)
        write_network_run(tmp_path, seed, permuted=True, r2=0.12)
    found = verdicts(tmp_path)
    expected = {c.id for c in load_ledger(LEDGER)}
    assert set(found) == expected
    assert {name for name, own in found.items() if own != {"holds"}} == set()


def test_verdicts_on_runs_that_are_not(tmp_path):
    for seed in range(10):
        for l2 in (0.01, 0.12):
            write_ufm_run(tmp_path, seed, l2, off=1e-3)
    for seed in range(5):
        for decay in (0, 0.001, 0.002, 0.003):
            write_network_run(tmp_path, seed, decay, rate=-0.01 + decay if decay else -1, r2=0.5)
        write_network_run(tmp_path, seed, permuted=True, r2=0.5, rate=-0.1)
    found = verdicts(tmp_path)
    holding = {name for name, own in found.items() if "holds" in own}
    of_any_multiple_of_i = {"ufm_nrc3", "ufm_rank_is_the_count", "ufm_rank_drops"}  # at one of the two penalties
    assert (
        holding == {"nrc3_falls", "ufm_nrc1", "ufm_nrc2"} | of_any_multiple_of_i
    )  # which these runs have all the same
    assert found["ufm_rank_is_the_count"] == {"holds", "fails"}
