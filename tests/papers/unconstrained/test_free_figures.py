"""The figures and tables of free features: what stands in their tables and captions."""

import numpy as np
import pytest
from fake_free_runs import write_free_run

from nclab.analysis import AnalysisError, load_runs
from nclab.analysis.drawings import DRAWINGS
from nclab.theory import deep
from nclab.theory.one_layer import cross_entropy_optimum, squared_error_optimum

BEST = cross_entropy_optimum(4, 2, 0.01, 0.01).objective
DNC = deep.collapsed(4, 2, 2).least(0.01).objective
LOW = deep.low_rank(4, 2, 2).least(0.01).objective


def drawn(name, root):
    return DRAWINGS[name].draw(load_runs([root]))


@pytest.fixture
def one_layer(tmp_path):
    for seed in range(3):
        write_free_run(tmp_path, {0: 2.0, 1: BEST + 0.1 * (seed + 1), 2: BEST}, seed)
        write_free_run(tmp_path, {0: 2.0, 1: BEST + 0.5, 2: BEST + 1e-9}, seed, optimizer="lbfgs")
    return tmp_path


@pytest.fixture
def widths(tmp_path):
    for seed in range(3):
        narrow, wide = (3.0, 2.0, 1e-2, 0.0), (2.0, 2.0, 2.0, 0.0)
        write_free_run(tmp_path, {0: 3.0, 1: 1.0, 2: 0.9 * DNC}, seed, "deep", singular=narrow, dim=8)
        write_free_run(tmp_path, {0: 3.0, 1: 1.0, 2: 1.001 * DNC}, seed, "deep", singular=wide, dim=64)
    return tmp_path


def test_the_landscape_is_drawn_by_step_over_starts(one_layer):
    figure, table = drawn("landscape", one_layer)
    assert list(table.variant.unique()) == ["gradient descent", "L-BFGS"]
    row = table[(table.variant == "gradient descent") & (table.metric == "gap") & (table.epoch == 1)].iloc[0]
    np.testing.assert_allclose([row.low, row["median"], row.high], [0.1, 0.2, 0.3])
    assert (row.step, row.n) == (50, 3)
    assert "4 classes of 2, 6 dimensions" in figure.get_suptitle()
    assert "median of 3 starts" in figure.get_suptitle()
    assert [axes.get_yscale() for axes in figure.axes] == ["log"] * 4
    lowest = min(line.get_ydata().min() for line in figure.axes[0].lines)
    assert lowest == 1e-17  # where rounding has made it 0


def test_losses_are_drawn_beside_one_another(tmp_path):
    best = squared_error_optimum(4, 2, 0.01, 0.01, 0.01).objective
    for seed in range(2):
        write_free_run(tmp_path, {0: 2.0, 1: BEST}, seed)
        write_free_run(tmp_path, {0: 2.0, 1: best + 1e-3}, seed, loss="mse")
    figure, table = drawn("landscape_losses", tmp_path)
    assert list(table.variant.unique()) == ["cross-entropy", "squared error"]
    row = table[(table.variant == "squared error") & (table.metric == "gap") & (table.epoch == 1)].iloc[0]
    np.testing.assert_allclose(row["median"], 1e-3)
    assert "cross-entropy" not in figure.get_suptitle()
    table, _ = drawn("landscape_ends", tmp_path)
    assert list(table.variant) == ["gradient descent", "gradient descent, squared error"]


def test_saddles_are_drawn_by_their_rank(tmp_path):
    metrics = {("network", "hessian_least"): {0: -0.3, 2: -1e-9}}
    for groups in (1, 2):
        write_free_run(tmp_path, {0: 2.0, 1: 1.0, 2: BEST}, metrics=metrics, name="saddle", groups=groups)
    figure, table = drawn("saddles", tmp_path)
    assert list(table.variant.unique()) == ["from all zero", "from rank 1"]
    negative = table[table.metric == "negative"].set_index(["variant", "epoch"])["median"]
    assert negative["from rank 1", 0] == 0.3
    assert len(figure.axes) == 2


def test_the_table_of_ends_has_the_worst_start(one_layer):
    table, _ = drawn("landscape_ends", one_layer)
    DRAWINGS["landscape_ends"].save(load_runs([one_layer]), one_layer / "ends")
    assert "1.0e-09" in (one_layer / "ends.md").read_text()
    found = table.set_index("variant")
    assert found.loc["L-BFGS", "distance to the minimum"] == "1.0e-09"
    assert found.loc["gradient descent", "nc1"] == "1.0e-03"
    assert set(found.starts) == {3}


def test_objectives_are_drawn_over_closed_forms(widths):
    figure, table = drawn("deep_objective", widths)
    last = table[table.epoch == 2].groupby("model.dim").ratio.mean()
    np.testing.assert_allclose(last, [0.9, 1.001])
    np.testing.assert_allclose(table.lower, LOW)
    assert [axes.get_title() for axes in figure.axes] == ["width 8", "width 64"]
    levels = {line.get_ydata()[0] for line in figure.axes[0].lines if line.get_color() == "0.35"}
    assert levels == {deep.some_in_pairs(4, 2, 2, 1, 0.01) / DNC}
    assert "2 linear layers, cross-entropy, λ = 0.01" in figure.get_suptitle()


def test_singular_values_are_shares_of_the_largest(widths):
    figure, table = drawn("deep_singular_values", widths)
    row = table[(table["model.dim"] == 8) & (table.layer == "free")].set_index("index")
    np.testing.assert_allclose(row["mean"], [1, 2 / 3, 0.01 / 3, 0])
    assert set(row["rank"]) == {2}
    assert set(table[table["model.dim"] == 64]["rank"]) == {3}
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["free", "fc1", "fc2"]


def test_rank_objective_and_share_against_width(widths):
    figure, table = drawn("deep_rank", widths)
    means = table.groupby("model.dim")[["rank", "at_dnc"]].mean()
    assert means.loc[8].tolist() == [2, 0]
    assert means.loc[64].tolist() == [3, 1]
    assert figure.axes[0].get_xscale() == "log"


def test_rank_against_lambda(tmp_path):
    for l2 in (2.0**-8, 2.0**-7):
        write_free_run(tmp_path, {0: 3.0, 2: 1.0}, kind="deep", singular=(1, 1, 1, 0), l2=l2)
    figure, table = drawn("deep_rank", tmp_path)
    assert list(table.columns[:2]) == ["loss.l2", "seed"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["$2^{-8}$", "$2^{-7}$"]


def test_two_swept_keys_are_refused(widths):
    write_free_run(widths, {0: 3.0, 2: 1.0}, kind="deep", singular=(1, 1, 1, 0), l2=0.5, dim=8)
    with pytest.raises(AnalysisError, match=r"differ in one of model\.dim, loss\.l2; they differ in both"):
        drawn("deep_rank", widths)


def test_the_graph_is_drawn_from_theory(widths):
    figure, table = drawn("graph_ratio", widths)
    row = table[(table.depth == 4) & (table.vertices == 5)].iloc[0]
    expected = deep.regular_graph(5, 2, 4).least(0.01).objective
    assert row.ratio == pytest.approx(expected / deep.collapsed(10, 2, 4, "mse", relu=True).least(0.01).objective)
    small = deep.regular_graph(5, 2, 4).least(1e-9).objective
    assert row.limit == pytest.approx(
        small / deep.collapsed(10, 2, 4, "mse", relu=True).least(1e-9).objective, rel=1e-3
    )
    assert (table[table.depth == 3].limit > 1).all()
    assert "no training" in figure.get_suptitle()


def test_the_table_of_deep_runs(widths):
    table, _ = drawn("deep_ends", widths)
    DRAWINGS["deep_ends"].save(load_runs([widths]), widths / "ends")
    assert "3 of 3" in (widths / "ends.md").read_text()
    found = table.set_index("width")
    assert found.loc[8, "L_DNC"] == f"{DNC:.5f}"
    assert found.loc[8, "L_lower"] == f"{LOW:.5f}"
    assert (found.loc[8, "at DNC"], found.loc[64, "at DNC"]) == ("0 of 3", "3 of 3")
    assert set(found.layers) == {"2 linear"}
