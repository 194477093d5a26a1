"""A final number against a swept key: lines, panels, spreads, axes, and what is refused."""

import json

import numpy as np
import pytest
from fake_runs import BASELINE, MLP, edit, last, write_run

from nclab.analysis import AnalysisError, load_runs
from nclab.analysis.cli import main
from nclab.analysis.sweep_figure import sweep

NOISE = (0.0, 0.2, 0.4)


def noisy(root, noise, etf=BASELINE, seed=0, size=1000, accuracy=0.8, model=MLP, **dataset):
    given = {"name": "digits", "train_size": size, "label_noise": noise} | dataset
    return edit(write_run(root, etf, seed, dataset=given, model=model), test=accuracy)


@pytest.fixture
def runs(tmp_path):
    for noise in NOISE:
        for seed, more in enumerate((-0.01, 0.0, 0.01)):
            for size in (1000, 5000):
                noisy(tmp_path, noise, BASELINE, seed, size, 0.8 - noise + more)
                noisy(tmp_path, noise, last(3), seed, size, 0.8 - noise / 2 + more)
                noisy(tmp_path, noise, BASELINE, seed, size, 0.7 - noise + more, MLP | {"depth": 3})
    return load_runs([tmp_path])


def lines(axes):
    return [np.asarray(container.lines[0].get_xydata(), float) for container in axes.containers]


def test_means_and_spreads_of_every_line_and_panel(runs):
    figure, table = sweep(runs)
    assert set(table.columns) == {"dataset.label_noise", "panel", "label", "seeds", "accuracy", "accuracy_std"}
    assert len(table) == 3 * 2 * 3
    row = table[(table.panel == 5000) & (table.label == "last 3 ETF") & (table["dataset.label_noise"] == 0.4)].iloc[0]
    assert (row.seeds, row.accuracy, row.accuracy_std) == (3, pytest.approx(0.6), pytest.approx(0.01))
    left, right = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["dataset.train_size = 1,000", "dataset.train_size = 5,000"]
    assert left.get_ylabel() == "test accuracy (%)"
    assert left.get_xlabel() == right.get_xlabel() == "dataset.label_noise"
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["baseline", "baseline, depth 3", "last 3 ETF"]
    for axes in figure.axes:
        np.testing.assert_allclose([line[:, 1] for line in lines(axes)],
                                   [[80, 60, 40], [70, 50, 30], [80, 70, 60]])  # fmt: skip
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.2", "0.4"]
    assert "mean ± std of 3 seeds" in figure.get_suptitle()


def test_points_stand_where_their_values_are(runs):
    figure, _ = sweep(runs)
    middle = lines(figure.axes[0])[1][:, 0]  # of three lines the second is not moved aside
    np.testing.assert_allclose(middle, [0, 0.5, 1], atol=1e-9)


@pytest.mark.parametrize(
    ("values", "places", "said"),
    [
        ((1e-4, 1e-3, 1e-2), (0, 0.5, 1), False),  # decades: a log axis
        ((0.0, 1e-4, 1e-2), (0, 0.5, 1), True),  # with a 0: evenly spaced, and said
        ((0.1, 0.2, 0.4), (0, 1 / 3, 1), False),
    ],
)
def test_the_axis_of_values_that_span_decades(tmp_path, values, places, said):
    for value in values:
        edit(write_run(tmp_path, BASELINE, optimizer={"name": "sgd", "lr": 0.1, "weight_decay": value}), test=0.5)
    figure, _ = sweep(load_runs([tmp_path]))
    (axes,) = figure.axes
    np.testing.assert_allclose(lines(axes)[0][:, 0], places, atol=1e-9)
    assert axes.get_xlabel() == "optimizer.weight_decay"
    assert any("evenly" in text.get_text() for text in axes.texts) == said


def test_the_table_is_what_the_command_writes(runs, tmp_path, capsys):
    out = tmp_path / "drawn"
    folder = str(runs[0].path.parent)
    main(["sweep", folder, "--along", "dataset.train_size", "--where", "dataset.label_noise=0.2", "--out", str(out)])
    assert (tmp_path / "drawn.csv").read_text().startswith("dataset.train_size,panel,label,seeds,accuracy")
    with pytest.raises(SystemExit):
        main(["sweep", folder, "--along", "dataset.name", "--out", str(out)])
    assert "--along dataset.name: expected a number in every run, got digits" in capsys.readouterr().err


def test_what_is_refused(tmp_path, runs):
    with pytest.raises(AnalysisError, match=r"panels tell one further key apart, and runs differ in dataset.label_no"):
        sweep(runs, along="model.depth")
    (tmp_path / "more").mkdir()
    write_run(tmp_path / "more", BASELINE, 0)
    with pytest.raises(AnalysisError, match=r"no numeric key was swept; runs differ in seed and policy alone"):
        sweep(load_runs([tmp_path / "more"]))
    with pytest.raises(AnalysisError, match=r"--metric: expected one of accuracy, loss \(final numbers .* got r2"):
        sweep(runs, metric=("r2",))
    with pytest.raises(AnalysisError, match=r"--split: expected one of .*train.*, got valid"):
        sweep(runs, split="valid")
    with pytest.raises(AnalysisError, match=r"seed 0 of baseline is there twice at dataset.label_noise="):
        sweep([*runs, runs[0]])


def test_more_panels_than_fit_are_refused(tmp_path):
    for size in (10, 20, 30, 40, 50):
        for noise in range(6):
            noisy(tmp_path, noise / 10, size=size)
    with pytest.raises(AnalysisError, match=r"at most 4 panels stand side by side, got 5 values of dataset.train_size"):
        sweep(load_runs([tmp_path]))


def test_a_second_metric_has_a_row_of_its_own(runs, tmp_path):
    for run in runs:
        summary = json.loads((run.path / "summary.json").read_text())
        assert summary["final"]["test"]["loss"] == 0.3
    figure, table = sweep(runs, metric=("accuracy", "loss"))
    assert len(figure.axes) == 4
    assert [figure.axes[i].get_ylabel() for i in (0, 2)] == ["test accuracy (%)", "test loss"]
    assert set(table.loss) == {0.3}
