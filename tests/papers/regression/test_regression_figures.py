"""The figures of the regression: what stands in their tables, captions and legends."""

import numpy as np
import pytest
from fake_regression_runs import S, write_network_run, write_ufm_run

from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.runs import AnalysisError, load_runs
from nclab.papers.regression.numbers import matrices
from nclab.theory.regression import nrc3, ufm_gram


def drawn(name, root):
    return DRAWINGS[name].draw(load_runs([root]))


def texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.fixture
def networks(tmp_path):
    for seed in range(3):
        for decay in (0, 0.002):
            write_network_run(tmp_path, seed, decay, rate=-1.0 if decay else -0.01)
        write_network_run(tmp_path, seed, permuted=True)
    return tmp_path


def test_curves_are_drawn_by_decay_over_seeds(networks):
    figure, table = drawn("regression_curves", networks)
    labels = ["λ = 0", "λ = 0.002", "λ = 0.002, permuted targets"]
    assert list(table.variant.unique()) == labels
    assert texts(figure) == [*labels, "test split"]
    assert "mean of 3 seeds, band from least to greatest" in figure.get_suptitle()
    row = table[(table.variant == labels[1]) & (table.metric == "nrc1") & (table.epoch == 50)].iloc[0]
    seeds = 0.7 / 51 * (1 + 0.01 * np.arange(3))
    assert [row["mean"], row.low, row.high, row.n] == pytest.approx([seeds.mean(), seeds[0], seeds[2], 3])
    assert len(figure.axes) == 6
    assert all(axes.get_yscale() == "log" for axes in figure.axes)
    assert {*table.split[table.metric == "r2_error"]} == {"train", "test"}


def test_several_steps_an_epoch_are_counted_as_steps(networks, tmp_path_factory):
    figure, table = drawn("regression_curves", networks)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_xlim()) == ("epoch", (0, 100))
    assert figure.get_suptitle().endswith("100 epochs; mean of 3 seeds, band from least to greatest")
    assert (table.step == table.epoch).all()
    repeated = tmp_path_factory.mktemp("repeated")
    write_network_run(repeated, repeats=100)
    figure, table = drawn("regression_curves", repeated)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_xlim()) == ("step", (0, 10_000))
    assert figure.axes[0].lines[0].get_xdata().max() == 10_000
    assert "10,000 steps" in figure.get_suptitle()
    assert (table.step == 100 * table.epoch).all()
    small = tmp_path_factory.mktemp("small batches")
    write_network_run(small, repeats=100, batch=20)  # an epoch has more steps than repeats
    assert drawn("regression_curves", small)[0].axes[0].get_xlabel() == "epoch"


def test_a_curve_ends_where_a_seed_has_no_number(tmp_path):
    """Features that do not vary have no NRC1: the mean of the other seeds would be that of other networks."""
    for seed in range(3):
        folder = write_network_run(tmp_path, seed)
    text = (folder / "metrics.csv").read_text().splitlines()
    gone = [line.rpartition(",")[0] + ",nan" if ",nrc1," in line and int(line.split(",")[0]) > 50 else line
            for line in text]  # fmt: skip
    (folder / "metrics.csv").write_text("\n".join(gone) + "\n")
    figure, table = drawn("regression_curves", tmp_path)
    last = table.groupby("metric").epoch.max()
    assert (last["nrc1"], last["nrc2"]) == (50, 100)
    assert figure.axes[0].lines[0].get_xdata().max() == 50


def test_of_one_target_there_is_no_curve_of_nrc3(tmp_path):
    write_network_run(tmp_path, s=np.array([[1.0]]), dataset="diabetes")
    figure, table = drawn("regression_curves", tmp_path)
    assert "nrc3" not in set(table.metric)
    assert [text.get_text() for text in figure.axes[2].texts] == ["not defined:\none target"]
    with pytest.raises(AnalysisError, match="NRC3 is not defined of one target"):
        drawn("regression_g", tmp_path)


def test_nrc3_is_drawn_against_g(networks):
    _, table = drawn("regression_g", networks)
    rows = table[table.variant == "λ = 0.002"]
    assert (rows.g.min(), len(rows)) == (0, 200)
    assert rows.g.max() < np.linalg.eigvalsh(S)[0] <= rows.g.max() * 200 / 199 + 1e-9
    (run, *_) = [r for r in load_runs([networks]) if r.settings["optimizer.weight_decay"] and r.seed == 0]
    gram = matrices(run, "weight_gram")[100]
    assert rows["mean"].iloc[50] == pytest.approx(nrc3(gram, S, rows.g.iloc[50]), rel=1e-9)
    assert rows["mean"].min() == pytest.approx(np.interp(rows.best_g.iloc[0], rows.g, rows["mean"]), abs=1e-4)


def test_the_variance_is_drawn_before_and_after(networks):
    figure, table = drawn("regression_variance", networks)
    rows = table[(table.variant == "λ = 0.002") & (table.when == "last")].set_index("component")["mean"]
    assert rows[1] + rows[2] == pytest.approx(1 - 0.505 / 101)
    before = table[(table.variant == "λ = 0.002") & (table.when == "untrained")].set_index("component")["mean"]
    assert before[3] == pytest.approx(0.505 / 3)
    assert "n = 2 targets" in figure.axes[0].get_xlabel()


def test_unconstrained_features_are_drawn_with_their_closed_form(tmp_path):
    for seed in range(2):
        for l2 in (0, 0.01, 0.09):
            write_ufm_run(tmp_path, seed, l2, off=1e-6)
    figure, table = drawn("regression_ufm", tmp_path)
    assert set(texts(figure)) == {"sqrt(c) = 0", "sqrt(c) = 0.1", "sqrt(c) = 0.9", "trained", "closed form"}
    own = table[table.root_c == 0.1].groupby("metric")["mean"].last()
    gram, _, _ = ufm_gram(S, 1.0, 0.01)
    expected = np.linalg.eigvalsh(gram)[::-1] / 10
    assert [own[f"closed_form_{k}"] for k in (1, 2)] == pytest.approx(expected)
    assert [own[f"eigenvalue_{k}"] for k in (1, 2)] == pytest.approx(expected + 1e-7)
    assert own["gap"] == pytest.approx(1e-6 * ufm_gram(S, 1.0, 0.01)[1], rel=1e-6)
    assert "3 targets" not in figure.get_suptitle()
    assert "2 targets, 100 samples, features of 16" in figure.get_suptitle()


def test_other_runs_are_refused(networks, tmp_path):
    with pytest.raises(AnalysisError, match="regression_ufm draws unconstrained features that measure the suite"):
        drawn("regression_ufm", networks)
