"""Where the terminal phase begins, its numbers by hand, and the ledger that they decide."""

import math

import numpy as np
import pytest
import yaml
from fake_runs import edit, judged
from fake_terminal_runs import MSE, write_last_layer_run, write_terminal_run

from nclab.analysis import load_runs
from nclab.analysis.ledger import load_ledger
from nclab.analysis.runs import AnalysisError
from nclab.analysis.statistics import STATISTICS
from nclab.analysis.verdict import FAILS, HOLDS
from nclab.papers.terminal_phase.phase import Phase, series, slope, terminal_phase
from nclab.papers.wings import find_wing

LEDGER = find_wing("terminal_phase").ledger


def number(name, folder):
    load_ledger(LEDGER)  # finds the wing's statistics
    (run,) = load_runs([folder])
    return STATISTICS[name].value(run, run)


@pytest.mark.parametrize(
    ("how", "phase"),
    [
        ({"full": 30}, Phase(30, 1.0)),
        ({"full": 45}, Phase(45, 1.0)),
        ({"full": 50}, Phase(50, 0.996)),  # too late: three quarters of 60 epochs are 45
        ({"full": 20, "top": 0.997}, Phase(20, 0.996)),
        ({"full": 20, "top": 0.99}, None),
    ],
)
def test_the_phase_begins_at_full_accuracy_or_nearly(tmp_path, how, phase):
    (run,) = load_runs([write_terminal_run(tmp_path, **how)])
    assert terminal_phase(run) == phase


def test_the_slope_is_the_exponent_of_a_power_law():
    assert slope({e: 3 * e**-0.7 for e in (10, 20, 50)}) == pytest.approx(-0.7)
    assert math.isnan(slope({10: 1.0, 20: 0.5}))
    assert math.isnan(slope({10: 1.0, 20: 0.5, 30: 0.0}))


def test_numbers_of_a_run(tmp_path):
    folder = write_terminal_run(tmp_path, slope=-0.5, test=(0.8, 0.83), mismatch=0.004)
    assert number("tpt_slope_nc1", folder) == pytest.approx(-0.5, abs=0.1)
    (run,) = load_runs([folder])
    late = series(run, "nc3")[lambda s: s.index >= 30]
    fitted = np.polyfit(np.log10(late.index), np.log10(late.to_numpy()), 1)[0]
    assert number("tpt_slope_nc3", folder) == pytest.approx(fitted)
    assert number("tpt_test_accuracy_change", folder) == pytest.approx(3)
    assert number("nc4_mismatch_last", folder) == pytest.approx(0.4)
    assert number("last_nc3", folder) == series(run, "nc3").iloc[-1]


def test_the_last_epoch_of_a_run_that_ended_early_is_its_last_trained_one(tmp_path):
    folder = write_terminal_run(tmp_path, epochs=40, mismatch=0.004)
    stored = folder / "config.yaml"
    stored.write_text(yaml.safe_dump(yaml.safe_load(stored.read_text()) | {"epochs": 60, "stop_at_loss": 0.02}))
    edit(folder, epochs=40)
    (run,) = load_runs([folder])
    assert (run.end, run.config["epochs"]) == (40, 60)
    assert number("nc4_mismatch_last", folder) == pytest.approx(0.4)
    assert number("last_nc3", folder) == series(run, "nc3")[40]
    assert terminal_phase(run) == Phase(30, 1.0)  # three quarters of 40


def test_the_central_path_is_judged_by_its_worst_epoch(tmp_path):
    folder = write_terminal_run(tmp_path, loss=MSE, decay=0.0, off=0.07)
    assert number("tpt_off_central_path", folder) == pytest.approx(0.07)
    rows = (folder / "metrics.csv").read_text()
    (run,) = load_runs([folder])
    worst = series(run, "central_path_distance")[45]
    (folder / "metrics.csv").write_text(rows.replace(repr(float(worst)), repr(float(3 * worst))))
    assert number("tpt_off_central_path", folder) == pytest.approx(0.21)


def test_a_run_that_never_gets_there_has_no_number(tmp_path):
    folder = write_terminal_run(tmp_path, top=0.9)
    for name in ("tpt_slope_nc1", "tpt_test_accuracy_change"):
        assert math.isnan(number(name, folder))


def test_what_was_not_measured_is_said(tmp_path):
    with pytest.raises(AnalysisError, match=r"no train central_path_distance of act5; see metrics\.suite"):
        number("tpt_off_central_path", write_terminal_run(tmp_path))


def test_the_rate_of_alignment(tmp_path):
    assert number("max_margin_slope", write_last_layer_run(tmp_path)) == pytest.approx(-1)
    assert number("max_margin_slope", write_last_layer_run(tmp_path, seed=1, power=-0.4)) == pytest.approx(-0.4)


@pytest.fixture
def study(tmp_path):
    for seed in range(5):
        write_terminal_run(tmp_path, seed)
        write_terminal_run(tmp_path, seed, decay=0, factor=3.0, experiment="terminal_no_decay")
        write_terminal_run(tmp_path, seed, noise=1, test=(0.1, 0.1), experiment="terminal_random_labels")
        write_terminal_run(tmp_path, seed, imbalance=10.0, factor=3.0, experiment="terminal_imbalanced")
        write_terminal_run(tmp_path, seed, loss=MSE, decay=0, experiment="terminal_squared_error")
        write_last_layer_run(tmp_path, seed)
        write_last_layer_run(tmp_path, seed, dataset="etf_features")
    return tmp_path


def test_every_claim_finds_its_five_seeds_and_holds_where_it_is_true(study):
    judgements = judged(study, *load_ledger(LEDGER))
    assert len(judgements) == len(load_ledger(LEDGER)) == 21
    for judgement in judgements:
        assert judgement.seeds == (0, 1, 2, 3, 4), judgement.claim.id
        assert judgement.verdict == HOLDS, (judgement.claim.id, judgement.reason)


def test_claims_fail_where_they_are_false(tmp_path):
    for seed in range(5):
        write_terminal_run(tmp_path, seed, slope=0.3, test=(0.85, 0.8), mismatch=0.05)
        write_terminal_run(tmp_path, seed, loss=MSE, decay=0, off=0.5, experiment="terminal_squared_error")
        write_last_layer_run(tmp_path, seed, power=-0.3)
        write_last_layer_run(tmp_path, seed, dataset="etf_features", nc3=0.2, power=-0.3)
    verdicts = {j.claim.id: j.verdict for j in judged(tmp_path, *load_ledger(LEDGER))}
    false = {"nc1_falls", "nc2_equinorm_falls", "nc2_weight_equinorm_falls", "nc2_maximal_angle_falls", "nc3_falls"}
    false |= {"nc2_weight_maximal_angle_falls", "nc4_agrees", "test_accuracy_stays", "mse_on_the_central_path"}
    false |= {"last_layer_aligns", "last_layer_of_an_etf_is_an_etf", "last_layer_of_an_etf_aligns"}
    assert {name for name, verdict in verdicts.items() if verdict == FAILS} == false
