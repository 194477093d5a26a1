"""Numbers, figures and claims of Hadamard initialisation, from runs that are the flow itself."""

import numpy as np
import pytest
from fake_hadamard_runs import EPOCHS, GAMMA, write_hadamard_run
from fake_runs import judged

from nclab.analysis import AnalysisError, load_runs
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.ledger import load_ledger
from nclab.analysis.statistics import STATISTICS
from nclab.analysis.verdict import FAILS, HOLDS
from nclab.papers.unconstrained.hadamard_runs import groups, numbers, singular, times
from nclab.papers.wings import find_wing

LEDGER = find_wing("unconstrained").ledger
END = (GAMMA**EPOCHS - 1) / (GAMMA - 1)  # time, of learning rate 0.05 and 20 steps an epoch


def number(name, folder):
    load_ledger(LEDGER)  # finds the wing's statistics
    (run,) = load_runs([folder])
    return STATISTICS[name].value(run, run)


def drawn(name, root):
    return DRAWINGS[name].draw(load_runs([root]))


def test_time_is_the_sum_of_the_steps(tmp_path):
    (run,) = load_runs([write_hadamard_run(tmp_path)])
    rates = 0.05 * GAMMA ** np.arange(EPOCHS)
    expected = np.concatenate([[0], np.cumsum(20 * rates)])
    np.testing.assert_allclose(times(run, numbers(run).index), expected)


@pytest.mark.parametrize(("old", "new"), [("momentum: 0.0", "momentum: 0.9"), ("log_time", "cosine"), ("sgd", "adamw")])
def test_no_time_of_other_optimizers(tmp_path, old, new):
    folder = write_hadamard_run(tmp_path)
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text().replace(old, new))
    with pytest.raises(AnalysisError, match="the time of gradient flow is that of optimizer=sgd without momentum"):
        number("hadamard_off_flow", folder)


def test_constant_steps_have_a_time_too(tmp_path):
    folder = write_hadamard_run(tmp_path)
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text().replace("log_time", "constant"))
    (run,) = load_runs([folder])
    np.testing.assert_allclose(times(run, numbers(run).index), np.arange(EPOCHS + 1))


def test_numbers_of_a_run_that_is_the_flow(tmp_path):
    folder = write_hadamard_run(tmp_path)
    assert number("hadamard_leakage", folder) < 1e-14
    assert number("hadamard_off_flow", folder) < 1e-8
    assert number("hadamard_lyapunov_rise", folder) > 0
    (run,) = load_runs([folder])
    last = singular(numbers(run)).iloc[-1]
    assert number("hadamard_inequality", folder) == pytest.approx(last[1:].max() / last[1:].min() - 1)
    assert number("hadamard_lyapunov_last", folder) == pytest.approx(3 * numbers(run).lyapunov.iloc[-1])
    assert np.isnan(number("hadamard_on_face", folder))


def test_numbers_of_a_run_that_leaves_the_flow(tmp_path):
    assert number("hadamard_off_flow", write_hadamard_run(tmp_path, off=0.03)) == pytest.approx(0.03, rel=1e-6)
    folder = write_hadamard_run(tmp_path, turn=0.5, seed=1)
    (run,) = load_runs([folder])
    assert number("hadamard_leakage", folder) == numbers(run).leakage.iloc[-1] > 0.1
    assert number("hadamard_lyapunov_rise", folder) < 0


def test_numbers_on_and_beside_a_face(tmp_path):
    on, beside = (write_hadamard_run(tmp_path, classes=8, face=2, beside=value) for value in (0.0, 1e-3))
    assert number("hadamard_on_face", on) < 1e-14
    (run,) = load_runs([beside])
    s = singular(numbers(run))
    share = s[[1, 2]].div(s[[3, 4, 5, 6, 7]].mean(axis=1), axis=0)
    assert number("hadamard_off_face", beside) == pytest.approx((share.iloc[-1] / share.iloc[0]).min())
    assert number("hadamard_off_face", beside) > 2
    cosine = numbers(run).etf_cosine.to_numpy()
    fall = max(cosine[i] - cosine[j] for i in range(len(cosine)) for j in range(i, len(cosine)))
    assert number("hadamard_cosine_fall", beside) == pytest.approx(fall)
    assert fall > 0.005


def test_a_run_without_the_suite_is_refused(tmp_path):
    folder = write_hadamard_run(tmp_path)
    lines = [line for line in (folder / "metrics.csv").read_text().splitlines(keepends=True) if "leakage" not in line]
    (folder / "metrics.csv").write_text("".join(lines))
    with pytest.raises(AnalysisError, match=r"no leakage; expected hadamard in metrics\.suite"):
        number("hadamard_leakage", folder)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    for seed in range(3):
        for classes in (4, 8):
            write_hadamard_run(root, seed, classes)
            write_hadamard_run(root, seed, classes, directions="random", turn=0.5)
        for beside in (0.0, 1e-3):
            write_hadamard_run(root, seed, 8, face=2, beside=beside)
    return root


def test_groups_differ_in_their_seed_alone(study):
    found = [(g.classes, g.directions, g.face, g.beside, len(g.runs)) for g in groups(load_runs([study]))]
    assert found == [
        (4, "hadamard", 0, 0.0, 3),
        (4, "random", 0, 0.0, 3),
        (8, "hadamard", 0, 0.0, 3),
        (8, "hadamard", 2, 0.0, 3),
        (8, "hadamard", 2, 1e-3, 3),
        (8, "random", 0, 0.0, 3),
    ]


def test_singular_values_are_drawn_over_the_flow(study):
    figure, table = drawn("hadamard_singular_values", study)
    assert len(figure.axes) == 4
    exact = table[table.directions == "hadamard"]
    np.testing.assert_allclose(exact.descent, exact.flow, rtol=1e-6)
    assert set(table[table.classes == 8].i) == set(range(8))
    assert table.time.max() == pytest.approx(END)
    assert "seed 0" in figure.get_suptitle()
    assert [axes.get_title() for axes in figure.axes][:2] == ["K = 4, Hadamard", "K = 8, Hadamard"]
    assert all(axes.get_xscale() == "log" for axes in figure.axes)


def test_lyapunov_leakage_and_loss_are_drawn(study):
    figure, table = drawn("hadamard_lyapunov", study)
    assert len(figure.axes) == 6
    last = table[(table.metric == "leakage") & (table.epoch == EPOCHS) & (table.classes == 8)].set_index("directions")
    assert last.loc["hadamard", "high"] < 1e-13
    assert last.loc["random", "low"] > 0.1
    assert (table.n == 3).all()
    rises = table[(table.metric == "lyapunov") & (table.directions == "hadamard")].groupby("classes")["mean"].diff()
    assert (rises.dropna() > 0).all()
    assert "mean of 3 seeds" in figure.get_suptitle()


def test_the_face_is_drawn_with_the_flow_beyond_floats(study):
    figure, table = drawn("hadamard_face", study)
    assert len(figure.axes) == 3
    flow_ends = table[(table.kind == "flow")].groupby("start").last()
    assert flow_ends.log_time.iloc[0] == pytest.approx(1e4)
    assert flow_ends.loc[0.0, "etf_cosine"] < 0.8 < flow_ends.loc[1e-3, "etf_cosine"]
    descent = table[(table.kind == "descent") & (table.start == 1e-3)]
    assert descent.log_time.iloc[-1] == pytest.approx(np.log1p(END))
    on = table[(table.start == 0.0)]
    assert on.share.abs().max() < 1e-12


@pytest.mark.parametrize(
    ("drawing", "runs", "message"),
    [
        ("hadamard_singular_values", {"face": 2, "classes": 8}, "draws runs of model.face=0 with model.directions"),
        ("hadamard_lyapunov", {"face": 2, "classes": 8}, "draws runs of model.face=0, got none"),
        ("hadamard_face", {}, "at most 2 starts; got none"),
    ],
)
def test_pictures_of_other_runs_are_refused(tmp_path, drawing, runs, message):
    write_hadamard_run(tmp_path, **runs)
    with pytest.raises(AnalysisError, match=message):
        drawn(drawing, tmp_path)


def verdicts(root):
    """claim -> its verdicts in all settings, of this part of the ledger."""
    found = {}
    for judgement in judged(root, *(claim for claim in load_ledger(LEDGER) if claim.id.startswith("hadamard_"))):
        assert judgement.seeds == (0, 1, 2), judgement.claim.id
        found.setdefault(judgement.claim.id, set()).add(judgement.verdict)
    return found


def test_every_claim_holds_of_the_flow_itself(tmp_path):
    for seed in range(3):
        for classes in (4, 16):
            write_hadamard_run(tmp_path, seed, classes)
            for directions in ("aligned", "random"):
                write_hadamard_run(tmp_path, seed, classes, directions, turn=0.5)
        for beside in (0.0, 1e-3):
            write_hadamard_run(tmp_path, seed, 8, face=2, beside=beside)
    found = verdicts(tmp_path)
    assert found.pop("hadamard_lyapunov_of_others") == {FAILS}  # what only turns does not descend
    assert [name for name, own in found.items() if own != {HOLDS}] == []
    assert len(found) == 9


def test_claims_fail_where_they_are_false(tmp_path):
    for seed in range(3):
        write_hadamard_run(tmp_path, seed, 4, turn=0.5, spread=2.5)
        write_hadamard_run(tmp_path, seed, 16, turn=0.5, spread=0.01)
        write_hadamard_run(tmp_path, seed, 4, "random")
        write_hadamard_run(tmp_path, seed, 8, face=2, held=0.01)
        write_hadamard_run(tmp_path, seed, 8, face=2, beside=1e-3, held=1e-3)
    found = verdicts(tmp_path)
    assert found.pop("hadamard_lyapunov_of_others") == {HOLDS}
    assert [name for name, own in found.items() if FAILS not in own] == ["hadamard_cosine_is_no_lyapunov_function"]
