"""Accuracy against learnable parameters: points, front, and labels that hide nothing."""

import json

import numpy as np
import pandas as pd
import pytest
from fake_runs import ADAPTIVE, BASELINE, MLP, edit, last, write_run
from matplotlib.figure import Figure

from nclab.analysis import AnalysisError, load_runs, style
from nclab.analysis.pareto import front, pareto
from nclab.analysis.placing import place_labels


def run(root, etf, seed, learnable, train, test, **settings):
    edit(write_run(root, etf, seed, **settings), train=train, test=test, parameters_learnable=learnable)


@pytest.fixture
def runs(tmp_path):
    for seed, more in enumerate((-0.01, 0.0, 0.01)):
        run(tmp_path, BASELINE, seed, 1000, 0.97 + more, 0.90 + more)
        run(tmp_path, last(3), seed, 600, 0.98, 0.89 + more)
        run(tmp_path, last(3, kind="frozen_scaled"), seed, 600, 0.96, 0.88)
        run(tmp_path, ADAPTIVE, seed, 500 + 10 * seed, 0.90, 0.80, fix=[(7, "fc5")])
        run(tmp_path, BASELINE, seed, 700, 0.95, 0.87, model=MLP | {"depth": 3})
    return load_runs([tmp_path])


def points(axes):
    return {tuple(line.get_xydata()[0].round(6)): line for line in axes.lines if line.get_gid() == "point"}


def test_the_front_by_brute_force():
    rng = np.random.default_rng(0)
    cost, gain = pd.Series(rng.integers(0, 9, 60)), pd.Series(rng.integers(0, 9, 60) / 9)
    beaten = [
        any((cost[j] <= cost[i] and gain[j] > gain[i]) or (cost[j] < cost[i] and gain[j] >= gain[i]) for j in range(60))
        for i in range(60)
    ]
    assert front(cost, gain) == [not b for b in beaten]
    assert 1 < sum(front(cost, gain)) < 60
    assert front(pd.Series([1, 2]), pd.Series([np.nan, 0.5])) == [False, True]


def test_a_point_a_policy_and_size_with_the_spread_over_seeds(runs):
    figure, table = pareto(runs)
    assert set(table.label) == {"baseline", "baseline, depth 3", "last 3 ETF", "scaled last 3", "Adaptive-ETF"}
    fronts = table.set_index("label")[["train_front", "test_front"]]
    assert list(fronts.index[fronts.train_front]) == ["last 3 ETF", "Adaptive-ETF"]
    assert list(fronts.index[fronts.test_front]) == ["baseline", "last 3 ETF", "Adaptive-ETF"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["train accuracy (%)", "test accuracy (%)"]
    train, test = figure.axes
    heights = sorted(round(y, 6) for _, y in points(train))
    assert heights == [90, 95, 96, 97, 98]
    bars = [line.get_ydata() for line in train.lines if len(line.get_xdata()) == 2 and line.get_gid() is None]
    assert any(np.allclose(ends, [96, 98]) for ends in bars)  # 97 +- std of 96, 97, 98
    (line,) = [line for line in test.lines if line.get_gid() == "front"]
    np.testing.assert_allclose(line.get_xydata(), [[510, 80], [600, 89], [1000, 90]])
    assert line.get_drawstyle() == "steps-post"
    filled = {x for (x, _), point in points(test).items() if point.get_markerfacecolor() != "white"}
    assert len(filled) == 3
    title = "digits, MLP, width 400, cosine rate: accuracy and learnable parameters; mean ± std of 3 seeds"
    assert title in figure.get_suptitle()


def test_points_of_equally_many_parameters_stand_side_by_side(runs):
    figure, _ = pareto(runs)
    places = sorted(x for x, _ in points(figure.axes[0]))
    assert len(set(places)) == 5
    assert places[1] == pytest.approx(600, abs=5)
    assert places[2] == pytest.approx(600, abs=5)
    assert "stand side by side" in figure.get_suptitle()


def boxes(axes):
    return [text.get_window_extent() for text in axes.texts]


def test_labels_hide_neither_points_nor_one_another(runs):
    figure, table = pareto(runs)
    for axes in figure.axes:
        found = boxes(axes)
        assert sorted(text.get_text() for text in axes.texts) == sorted(table.label)
        assert not any(a.overlaps(b) for i, a in enumerate(found) for b in found[i + 1 :])
        at = axes.transData.transform(np.array(list(points(axes))))
        assert not any(box.contains(*point) for box in found for point in at)
        for text, box in zip(axes.texts, found, strict=True):  # nearest to its own point, or with a line to it
            far = np.linalg.norm(at - np.clip(at, box.min, box.max), axis=1)
            own = np.abs(at - axes.transData.transform(text.xy)).max(axis=1).argmin()
            assert far.argmin() == own or any(
                np.allclose(line.get_xydata()[0], text.xy) for line in axes.lines if line.get_color() == "0.6"
            )
        frame = axes.get_window_extent()
        assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in found)
    legend = figure.legends[0].get_window_extent()
    assert not any(axes.get_window_extent().overlaps(legend) for axes in figure.axes)


@pytest.mark.parametrize("spread", [0.0, 0.02, 1.0])
def test_sixteen_labels_find_places_even_on_one_spot(spread):
    rng = np.random.default_rng(1)
    at = [(0.5 + spread * x, 0.5 + spread * y) for x, y in rng.uniform(-0.4, 0.4, (16, 2))]
    with style():
        figure = Figure(figsize=(7, 3), layout="constrained")
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        place_labels(axes, at, [f"orthogonal last {i}" for i in range(16)], 6.5, [((0.5, 0.2), (0.5, 0.8))])
    figure.draw_without_rendering()
    found = boxes(axes)
    assert len(found) == 16
    assert not any(a.overlaps(b) for i, a in enumerate(found) for b in found[i + 1 :])
    if spread == 0.0:
        assert axes.lines  # far labels have a line to their point


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 9}, "must not differ in epochs = 20, 9; choose, e.g. with --dataset, --epochs or --where"),
        ({"dataset": {"name": "mnist", "train_size": None}}, "must not differ in dataset.name = digits, mnist"),
    ],
)
def test_points_that_cannot_be_compared_are_refused(tmp_path, settings, message):
    write_run(tmp_path)
    write_run(tmp_path, last(1), **settings)
    with pytest.raises(AnalysisError, match=message):
        pareto(load_runs([tmp_path]))


def test_one_seed_has_no_spread(tmp_path):
    write_run(tmp_path)
    figure, table = pareto(load_runs([tmp_path]))
    assert "one seed" in figure.get_suptitle()
    assert json.loads(table.to_json())["train_front"] == {"0": True}
