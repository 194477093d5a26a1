"""Figures 1 and 2, and how pictures are saved."""

import pandas as pd
import pytest
from fake_runs import ADAPTIVE, BASELINE, last, vit, write_experiment, write_run

from nclab.analysis import AnalysisError, load_runs, save_figure
from nclab.papers.simplex_etf.figures import figure1, figure2


@pytest.fixture
def experiment(tmp_path):
    return write_experiment(tmp_path)


@pytest.mark.fast
def test_figure1_has_a_column_a_policy_and_dashes_fixed_layers(experiment):
    runs = load_runs([experiment])
    figure, table = figure1(runs)
    assert list(table.policy.unique()) == ["baseline", "last 1 ETF", "last 2 ETF", "last 3 ETF"]
    assert [axes.get_title() for axes in figure.axes] == [*table.policy.unique(), *4 * [""]]
    baseline, last3 = figure.axes[0], figure.axes[3]
    dashed = [sum(line.is_dashed() and len(line.get_xdata()) > 1 for line in axes.lines) for axes in (baseline, last3)]
    assert dashed == [0, 3]
    assert len(baseline.collections) == 6  # a band a curve
    one, _ = figure1([run for run in runs if run.seed == 0], policies=["Baseline", "Adaptive-ETF"])
    assert len(one.axes) == 4
    assert not one.axes[0].collections


def test_figure2_marks_every_switch_of_every_seed(experiment):
    figure, table = figure2(load_runs([experiment]))
    assert list(table.policy.unique()) == ["baseline", "Adaptive-ETF"]
    for axes, expected in zip(figure.axes, ([], [7, 8, 9, 9, 10, 11, 14, 14]) * 2, strict=True):
        marks = [line for line in axes.lines if line.get_marker() == "|"]
        assert sorted(x for line in marks for x in line.get_xdata()) == expected
        bottom = axes.get_ylim()[0]
        heights = [bottom + (axes.get_ylim()[1] - bottom) * max(line.get_ydata(), default=0) for line in marks]
        assert max(heights, default=0) < table["mean"][table.epoch > 0].min()  # clear of the curves


def test_figure2_of_a_transformer_shows_blocks_and_marks_each_run_once(tmp_path):
    for seed in range(2):
        write_run(tmp_path, seed=seed, model=vit(2))
        fix = [(6 + seed, "head"), (9, "block2.ffn_in"), (9, "block2.ffn_out")]
        write_run(tmp_path, ADAPTIVE, seed, model=vit(2), fix=fix)
    figure, table = figure2(load_runs([tmp_path]))
    assert list(table.layer.unique()) == ["block1", "block2", "head", "network"]
    assert "vit of 2 blocks: NCC accuracy of each block and the head" in figure.get_suptitle()
    marks = [line for line in figure.axes[1].lines if line.get_marker() == "|"]
    assert sorted(x for line in marks for x in line.get_xdata()) == [6, 7, 9, 9]
    assert [text.get_text() for text in figure.axes[1].texts] == ["×2"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        *("block1", "block2", "head", "network", "fixed layer", "switch"),
    ]


def test_figure1_leaves_out_controls_unless_asked(tmp_path):
    for etf in (BASELINE, last(1), last(1, kind="frozen")):
        write_run(tmp_path, etf)
    runs = load_runs([tmp_path])
    assert list(figure1(runs)[1].policy.unique()) == ["baseline", "last 1 ETF"]
    assert len(figure1(runs, ["baseline", "frozen last 1"])[0].axes) == 4


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
