"""Figures 1 and 2, and how pictures are saved."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from fake_runs import ADAPTIVE, BASELINE, last, vit, write_experiment, write_run

from nclab.analysis import AnalysisError, load_runs, save_figure
from nclab.papers.simplex_etf.figures import figure1, figure2


@pytest.fixture
def experiment(tmp_path):
    return write_experiment(tmp_path)


def data(axes):
    """The curves of a panel: epochs and values, without lines of switches and marks of errors of 0."""
    return [line for line in axes.lines if len(line.get_xdata()) > 2 and line.get_linestyle() != "None"]


def switch_lines(axes):
    """Epochs of the vertical lines."""
    return sorted(line.get_xdata()[0] for line in axes.lines if list(line.get_ydata()) == [0, 1])


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.fast
def test_figure1_has_a_column_a_policy_and_dashes_and_marks_fixed_layers(experiment):
    runs = load_runs([experiment])
    figure, table = figure1(runs)
    assert list(table.policy.unique()) == ["baseline", "last 1 ETF", "last 2 ETF", "last 3 ETF"]
    assert [axes.get_title() for axes in figure.axes] == [*table.policy.unique(), *12 * [""]]
    assert [axes.get_ylabel() for axes in figure.axes[::4]] == [
        *("train NCC accuracy", "1 − train NCC accuracy", "test NCC accuracy", "1 − test NCC accuracy"),
    ]
    for row in range(4):
        fixed = [[line for line in data(axes) if line.is_dashed()] for axes in figure.axes[4 * row : 4 * row + 4]]
        assert [len(lines) for lines in fixed] == [0, 1, 2, 3]
        assert {line.get_marker() for lines in fixed for line in lines} == {"s"}
    assert len(figure.axes[0].collections) == 6  # a band a curve
    one, _ = figure1([run for run in runs if run.seed == 0], policies=["Baseline", "Adaptive-ETF"])
    assert len(one.axes) == 8
    assert not one.axes[0].collections


def test_the_error_beside_it_is_1_minus_accuracy_on_a_log_axis_with_decades(experiment):
    figure, table = figure1(load_runs([experiment]))
    accuracy, error = figure.axes[3], figure.axes[7]
    assert (accuracy.get_yscale(), error.get_yscale()) == ("linear", "log")
    for left, right in zip(data(accuracy), data(error), strict=True):
        np.testing.assert_allclose(right.get_ydata(), 1 - left.get_ydata(), rtol=1e-9)
    rows = table.query("policy == 'last 3 ETF' and split == 'train' and layer == 'fc5'")
    assert any(np.allclose(line.get_ydata(), 1 - rows["mean"]) for line in data(error))
    assert error.get_ylim()[0] <= (1 - table["mean"][table.split == "train"]).min()
    assert accuracy.get_yticks()[-1] == 1.0
    assert accuracy.spines["left"].get_bounds()[1] == 1.0  # the axis ends where its ticks do


def test_figure2_draws_a_line_where_layers_were_fixed_and_names_them_above(experiment):
    figure, table = figure2(load_runs([experiment]))
    assert list(table.policy.unique()) == ["baseline", "Adaptive-ETF"]
    accuracy, error = figure.axes[2], figure.axes[3]  # side by side
    assert [axes.get_title() for axes in figure.axes[:4]] == [*2 * ["baseline"], *2 * ["Adaptive-ETF"]]
    for axes in (accuracy, error, figure.axes[6]):
        assert switch_lines(axes) == [8, 10, 14]  # medians of 7, 8, 9; 9, 10, 11; 14, 14
    assert switch_lines(figure.axes[0]) == []
    labels = {text.get_text(): text for text in accuracy.texts}
    assert set(labels) == {"fc5", "fc4", "fc3 2/3"}
    assert not figure.axes[6].texts
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in labels.values()]
    top, title = accuracy.get_window_extent().y1, accuracy.title.get_window_extent()
    assert all(box.y0 >= top and box.y1 <= title.y0 + 1 for box in boxes)  # no data, no title behind them
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    assert "median epoch" in figure.get_suptitle()


def test_figure2_of_a_transformer_shows_blocks_and_one_switch_a_block(tmp_path):
    for seed in range(2):
        write_run(tmp_path, seed=seed, model=vit(2))
        fix = [(6 + seed, "head"), (9, "block2.ffn_in"), (9, "block2.ffn_out")]
        write_run(tmp_path, ADAPTIVE, seed, model=vit(2), fix=fix)
    figure, table = figure2(load_runs([tmp_path]))
    assert list(table.layer.unique()) == ["block1", "block2", "head", "network"]
    title = "digits, ViT of 2 blocks, width 64, cosine rate: NCC accuracy of each block and the head"
    assert title in figure.get_suptitle()
    assert switch_lines(figure.axes[2]) == [6.5, 9]
    assert [text.get_text() for text in figure.axes[2].texts] == ["head", "block2"]
    assert set(legend_of(figure)) >= {"block1", "block2", "head", "network accuracy", "fixed layer", "switch"}


def test_errors_of_0_stand_marked_at_a_floor_that_the_caption_names(tmp_path):
    for seed in range(2):
        folder = write_run(tmp_path, seed=seed, dataset={"name": "digits", "train_size": 500})
        lines = (folder / "metrics.csv").read_text().splitlines()
        lines = [f"{line.rpartition(',')[0]},1.0" if "20,train,fc5,ncc" in line else line for line in lines]
        (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    figure, _ = figure1(load_runs([tmp_path]))
    error = figure.axes[1]
    (mark,) = [line for line in error.lines if line.get_marker() == "v"]
    assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([20], [1 / 2000])
    assert error.get_ylim()[0] <= 1 / 2000
    assert any(line.get_ydata()[-1] == 1 / 2000 for line in data(error))  # the curve goes there
    assert not [line for line in figure.axes[3].lines if line.get_marker() == "v"]
    assert "errors of 0 are drawn at 1/(2n), n = 500 train samples × 2 seeds" in figure.get_suptitle()
    assert "no error in any seed" in legend_of(figure)


@pytest.mark.parametrize("draw", [figure1, figure2])
def test_legend_and_title_fit_and_are_not_over_the_data(experiment, draw):
    figure, _ = draw(load_runs([experiment]))
    figure.draw_without_rendering()
    page, box = figure.bbox, figure.legends[0].get_window_extent()
    title = figure._suptitle.get_window_extent()
    for part in (box, title):
        assert page.x0 <= part.x0 < part.x1 <= page.x1
        assert page.y0 <= part.y0 < part.y1 <= page.y1
    for axes in figure.axes:
        assert not axes.get_window_extent().overlaps(box)
        assert not axes.get_window_extent().overlaps(title)
        for label in (axes.yaxis.label, axes.xaxis.label, axes.title):
            assert not label.get_text() or label.get_window_extent().height < 1.15 * axes.get_window_extent().height


def test_figure1_leaves_out_controls_unless_asked(tmp_path):
    for etf in (BASELINE, last(1), last(1, kind="frozen")):
        write_run(tmp_path, etf)
    runs = load_runs([tmp_path])
    assert list(figure1(runs)[1].policy.unique()) == ["baseline", "last 1 ETF"]
    assert len(figure1(runs, ["baseline", "frozen last 1"])[0].axes) == 8


def test_figure1_shows_the_authors_canonical_frames_beside_random_ones(tmp_path):
    for etf in (BASELINE, last(3), last(3, frame="canonical", classifier_frame="canonical")):
        write_run(tmp_path, etf)
    table = figure1(load_runs([tmp_path]))[1]
    assert list(table.policy.unique()) == ["baseline", "last 3 ETF", "last 3 ETF canonical"]


def test_the_titles_of_five_columns_stand_apart(tmp_path):
    for etf in (BASELINE, last(3), *(last(k, frame="canonical", classifier_frame="canonical") for k in (1, 2, 3))):
        write_run(tmp_path, etf)
    figure, _ = figure1(load_runs([tmp_path]))
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes[:5]]
    assert all(right.x0 - left.x1 > 12 for left, right in pairwise(boxes))


def test_a_figure_without_its_policies_says_what_is_there(tmp_path):
    write_run(tmp_path, last(1))
    with pytest.raises(AnalysisError, match=r"\(baseline, Adaptive-ETF\); there are: last 1 ETF"):
        figure2(load_runs([tmp_path]))


def test_pictures_are_files_with_equal_bytes_each_time(experiment, tmp_path):
    runs = load_runs([experiment])
    first = save_figure(*figure2(runs), tmp_path / "new" / "a_0.5")
    second = save_figure(*figure2(runs), tmp_path / "new" / "b")
    assert [path.name for path in first] == ["a_0.5.pdf", "a_0.5.png", "a_0.5.csv"]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
    pdf = first[0].read_bytes()
    assert b"CreationDate" not in pdf
    assert b"/FontFile2" in pdf  # TrueType, embedded
    assert b"/Type3" not in pdf
    assert len(pd.read_csv(first[2])) == 2 * 2 * 6 * 21
