"""The figures of the terminal phase: what stands in their tables and captions, and the animation."""

import numpy as np
import pytest
from fake_terminal_runs import MSE, write_last_layer_run, write_terminal_run
from PIL import Image

from nclab.analysis import AnalysisError, load_runs
from nclab.analysis.class_plane import points, scaled
from nclab.analysis.drawings import DRAWINGS
from nclab.papers.terminal_phase.plane_figure import chosen_epochs


def drawn(name, root):
    return DRAWINGS[name].draw(load_runs([root]))


@pytest.fixture
def trained(tmp_path):
    for seed, full in enumerate((25, 30, 35)):
        write_terminal_run(tmp_path, seed, full=full)
    return tmp_path


def test_the_phase_is_drawn_over_seeds_with_its_start(trained):
    figure, table = drawn("terminal_phase", trained)
    caption = figure.get_suptitle()
    assert "MLP of depth 6 and width 256, 60 epochs; mean ± std of 3 seeds" in caption
    assert "TPT from epoch 25 to 35 (100 %)" in caption
    assert set(zip(table.tpt_first, table.tpt_last, strict=True)) == {(25, 35)}
    values = [run.metrics.query("epoch == 40 and metric == 'nc1'").value.item() for run in load_runs([trained])]
    row = table[(table.metric == "nc1") & (table.epoch == 40)].iloc[0]
    assert row["mean"] == pytest.approx(np.mean(values))
    assert row["std"] == pytest.approx(np.std(values, ddof=1))
    assert (row.low, row.high, row.n) == (min(values), max(values), 3)
    assert len(figure.axes) == 8
    assert all(axes.get_yscale() == "log" for axes in figure.axes)
    starts = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert sorted(starts) == [25, 35]


def test_variants_are_named_and_counted(trained):
    write_terminal_run(trained, noise=1, top=0.9, experiment="terminal_random_labels")
    write_terminal_run(trained, decay=0, experiment="terminal_no_decay")
    write_terminal_run(trained, imbalance=10.0, experiment="terminal_imbalanced")
    figure, table = drawn("terminal_phase", trained)
    kinds = ("imbalance 10:1", "no weight decay", "random labels")
    labels = ["cross-entropy", *(f"cross-entropy, {kind}" for kind in kinds)]
    assert list(table.variant.unique()) == labels
    assert "cross-entropy, random labels: no TPT" in figure.get_suptitle()
    assert [text.get_text() for text in figure.legends[0].get_texts()][:1] == ["cross-entropy"]


def test_runs_of_two_lengths_are_not_averaged(trained):
    write_terminal_run(trained, seed=9, epochs=30, full=20)
    with pytest.raises(AnalysisError, match="must not differ in epochs"):
        drawn("terminal_phase", trained)


def test_the_central_path_is_drawn_with_its_ratio(tmp_path):
    for seed in range(3):
        write_terminal_run(tmp_path, seed, loss=MSE, decay=0, off=0.05 * (1 + seed), experiment="mse")
    figure, table = drawn("central_path", tmp_path)
    ratio = table[table.metric == "ratio"]
    np.testing.assert_allclose(ratio["mean"], 0.1)
    np.testing.assert_allclose(ratio.low, 0.05)
    np.testing.assert_allclose(ratio.high, 0.15)
    assert len(figure.axes) == 2
    parts = table.pivot(index="epoch", columns="metric", values="mean")
    np.testing.assert_allclose(parts.least_squares_nc1 + parts.least_squares_nc23, parts.least_squares_loss)


@pytest.mark.parametrize("name", ["central_path", "class_plane"])
def test_two_kinds_of_training_do_not_make_one_picture(tmp_path, name):
    write_terminal_run(tmp_path, loss=MSE, decay=0, experiment="mse")
    write_terminal_run(tmp_path, loss=MSE | {"l2": 0.0}, decay=0, experiment="mse_no_decay")
    message = f"{name} draws one kind of training, got squared error, squared error, no weight decay"
    with pytest.raises(AnalysisError, match=message):
        drawn(name, tmp_path)


def test_runs_without_the_suite_are_left_out(trained, capsys):
    write_terminal_run(trained, loss=MSE, decay=0, experiment="mse")
    _, table = drawn("central_path", trained)
    assert set(table.variant) == {"squared error"}
    assert "left out: 3 of 4 runs" in capsys.readouterr().err


def test_the_last_layer_is_drawn(tmp_path):
    for seed in range(3):
        write_last_layer_run(tmp_path, seed)
    figure, table = drawn("max_margin", tmp_path)
    gap = table[table.metric == "margin_gap"].set_index("epoch")["mean"]
    assert gap[1000] == pytest.approx(1 / 1002)
    measured, guide = (line.get_ydata() for line in figure.axes[0].lines[:2])
    np.testing.assert_allclose(guide, measured)  # 1 / log t is what it is
    assert "digits, 300 train samples, linear classifier, 1,000 steps" in figure.get_suptitle()


def test_points_are_scaled_by_the_means(trained):
    run = load_runs([trained])[0]
    table = scaled(points(run))
    lengths = np.hypot(table.x, table.y)
    np.testing.assert_allclose(lengths[table.kind != "sample"], 1, atol=2e-5)  # means in units of means, rows of rows
    np.testing.assert_allclose(lengths[(table.kind == "sample") & (table.number == 1)], 0.95, atol=2e-5)
    assert set(table.label) == {0, 1, 2}


def test_the_plane_and_its_animation(trained, tmp_path):
    figure, _ = drawn("class_plane", trained)
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 6
    assert "epoch 25, TPT begins: 100.0 %" in titles
    assert titles[0].startswith("epoch 0,")
    assert "seed 0" in figure.get_suptitle()
    paths = DRAWINGS["class_plane"].save(load_runs([trained]), tmp_path / "out" / "plane")[1]
    assert [path.suffix for path in paths] == [".pdf", ".png", ".csv", ".gif"]
    with Image.open(paths[-1]) as film:
        assert film.is_animated
        assert film.n_frames >= 13  # epochs 0, 5 ... 60
    assert paths[-1].stat().st_size < 150_000


def test_epochs_are_chosen_around_the_start():
    assert chosen_epochs(list(range(0, 101, 5)), 60) == [0, 5, 30, 60, 80, 100]
    assert len(chosen_epochs(list(range(0, 61, 3)), 6)) == 6
    assert chosen_epochs([0, 10], None) == [0, 10]


def test_a_run_without_the_suite_is_refused(trained):
    for file in trained.glob("*/*/metrics.csv"):
        lines = [line for line in file.read_text().splitlines(keepends=True) if "plane_" not in line]
        file.write_text("".join(lines))
    with pytest.raises(AnalysisError, match=r"no plane_ columns; expected projection in metrics\.suite"):
        drawn("class_plane", trained)
