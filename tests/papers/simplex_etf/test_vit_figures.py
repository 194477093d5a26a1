"""Figures 3 and 4: transformers of several depths, never averaged over the depth."""

from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from fake_runs import BASELINE, FFN, vit, write_run, write_transformers

from nclab.analysis import DRAWINGS, AnalysisError, load_runs, save_figure
from nclab.papers.simplex_etf.vit_figures import figure3, figure4

FROZEN = FFN | {"kind": "frozen"}


@pytest.fixture
def transformers(tmp_path):
    return write_transformers(tmp_path)


def legend(artist):
    return [text.get_text() for text in artist.get_texts()]


def parameters(axes):
    """What stands below the epochs."""
    epoch, *lines = axes.get_xlabel().split("\n")
    assert epoch == "epoch"
    return lines


def test_figure3_has_a_column_a_depth_and_never_mixes_depths(transformers):
    figure, table = figure3(load_runs([transformers]))
    assert list(table) == ["blocks", "policy", "split", "layer", "epoch", "mean", "std", "n", "learnable"]
    assert list(table.blocks.unique()) == [1, 2, 3, 4]
    assert list(table.policy.unique()) == ["baseline", "FFN-ETF"]
    assert list(table.layer.unique()) == ["network"]
    assert (table.n == 2).all()
    assert [axes.get_title() for axes in figure.axes] == ["1 block", "2 blocks", "3 blocks", "4 blocks", *12 * [""]]
    assert [axes.get_ylabel() for axes in figure.axes[::4]] == [
        *("train accuracy", "1 − train accuracy", "test accuracy", "1 − test accuracy"),
    ]
    for axes in figure.axes:
        assert len(axes.lines) == len(axes.collections) == 2  # curves and their bands
        assert len({str(line.get_linestyle()) + line.get_color() for line in axes.lines}) == 2
    rows = table.query("blocks == 3 and policy == 'FFN-ETF' and split == 'test'")
    np.testing.assert_array_equal(figure.axes[10].lines[1].get_ydata(), rows["mean"])
    np.testing.assert_array_equal(figure.axes[14].lines[1].get_ydata(), 1 - rows["mean"])
    assert figure.axes[14].get_yscale() == "log"
    assert "digits, ViT, width 64, cosine rate: accuracy of the network" in figure.get_suptitle()
    assert legend(figure.legends[0]) == ["baseline", "FFN-ETF"]


def test_figure3_tells_the_learnable_parameters_of_each_panel(transformers):
    figure, table = figure3(load_runs([transformers]))
    assert [parameters(axes) for axes in figure.axes[12:]] == [
        ["baseline: 800", "FFN-ETF: 600 (−25 %)"],
        ["baseline: 1,200", "FFN-ETF: 800 (−33 %)"],
        ["baseline: 1,600", "FFN-ETF: 1,000 (−38 %)"],
        ["baseline: 2,000", "FFN-ETF: 1,200 (−40 %)"],
    ]
    assert all(axes.get_legend() is None for axes in figure.axes)  # legends stand outside the data
    assert set(table.query("blocks == 4 and policy == 'FFN-ETF'").learnable) == {1200}
    alone, _ = figure3(load_runs([transformers]), ["FFN-ETF"])
    assert parameters(alone.axes[12]) == ["FFN-ETF: 600"]


def test_figure3_takes_controls_in_the_order_asked_for(transformers):
    write_transformers(transformers, etfs=(FROZEN,))
    for blocks in (1, 2):
        write_run(transformers, BASELINE, model=vit(blocks, ratio=0.0))
    names = ["no FFN", "baseline", "frozen FFN", "FFN-ETF"]
    figure, _ = figure3(load_runs([transformers]), names)
    assert [label for label in legend(figure.legends[0]) if label != "no error in any seed"] == names
    assert parameters(figure.axes[12]) == [
        *("no FFN: 600 (−25 %)", "baseline: 800", "frozen FFN: 600 (−25 %)", "FFN-ETF: 600 (−25 %)"),
    ]
    assert len(parameters(figure.axes[14])) == 3  # no FFN was trained with 1 and 2 blocks only
    assert "mean ± std of 1 to 2 seeds" in figure.get_suptitle()


def test_looks_differ_without_colour_too(transformers):
    others = [FROZEN, FFN | {"classifier": True}, FFN | {"blocks": "last1"}, FROZEN | {"blocks": "last1"}]
    write_transformers(transformers, (2,), etfs=others)
    runs = load_runs([transformers], where={"model.blocks": 2})
    figure, _ = figure3(runs, sorted({run.policy for run in runs}))
    handles = figure.legends[0].legend_handles
    assert len({str(line.get_linestyle()) + str(line._dash_pattern) for line in handles}) == 6
    assert len({line.get_color() for line in handles}) == 6


def test_figure4_shows_the_feed_forward_layers_and_the_head(transformers):
    figure, table = figure4(load_runs([transformers]))
    assert list(table.policy.unique()) == ["baseline", "FFN-ETF"]
    assert list(table.query("blocks == 2").layer.unique()) == [
        *("block1.ffn_in", "block1.ffn_out", "block2.ffn_in", "block2.ffn_out", "head"),
    ]
    assert dict(zip(table.layer, zip(table.block, table.role, strict=True), strict=True))["block3.ffn_out"] == (
        *(3, "ffn_out"),
    )
    assert [axes.get_ylabel() for axes in figure.axes[::4]] == [
        f"{policy}\n{split}\n{error}NCC accuracy"
        for policy in ("baseline", "FFN-ETF")
        for split in ("train", "test")
        for error in ("", "1 − ")
    ]
    assert [len(axes.lines) for axes in figure.axes] == [3, 5, 7, 9] * 8
    viridis = mpl.colormaps["viridis"](np.linspace(0.0, 0.86, 4))
    one, four = figure.axes[0], figure.axes[3]
    for axes in (one, four):  # block 1 has one colour whatever the depth
        np.testing.assert_array_equal(axes.lines[0].get_color(), viridis[0])
        assert axes.lines[-1].get_color() == "black"
    assert [line.is_dashed() for line in four.lines] == [True, False] * 4 + [False]
    assert sorted(legend(figure.legends[0])) == [
        *("block 1", "block 2", "block 3", "block 4", "ffn_in", "ffn_out", "fixed layer", "head"),
    ]
    markers = [{line.get_marker() for line in axes.lines} for axes in (figure.axes[3], figure.axes[19])]
    assert markers == [{"None"}, {"s", "None"}]  # of the baseline nothing is fixed, of FFN-ETF all but the head


def test_figure4_of_four_depths_fits_a_page_and_its_labels_stand_apart(transformers):
    figure, _ = figure4(load_runs([transformers]))
    figure.draw_without_rendering()
    assert figure.get_figheight() <= 9
    boxes = [axes.yaxis.label.get_window_extent() for axes in figure.axes[::4]]
    assert not any(above.overlaps(below) for above, below in pairwise(boxes))
    below = figure.legends[0].get_window_extent()
    assert not any(axes.get_window_extent().overlaps(below) for axes in figure.axes)


def test_figure4_has_two_rows_a_policy_and_says_where_no_run_is(transformers, tmp_path):
    write_run(transformers, FROZEN, model=vit(3))
    figure, _ = figure4(load_runs([transformers]), ["baseline", "frozen FFN"])
    assert len(figure.axes) == 32
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes[16:20]] == [
        *(["no run"], ["no run"], [], ["no run"]),
    ]
    assert all(path.stat().st_size for path in save_figure(*figure4(load_runs([transformers])), tmp_path / "f"))


def test_one_seed_and_some_depths_are_enough(tmp_path):
    runs = load_runs([write_transformers(tmp_path, depths=(1, 4), seeds=(0,))])
    for draw in (figure3, figure4):
        figure, table = draw(runs)
        assert [axes.get_title() for axes in figure.axes[:4]] == ["1 block", "1 block", "4 blocks", "4 blocks"]
        assert not any(axes.collections for axes in figure.axes)
        assert table["std"].isna().all()
        assert "one seed" in figure.get_suptitle()


@pytest.mark.parametrize("draw", [figure3, figure4])
@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"epochs": 9, "model": vit(3)}, r"epochs = 20, 9; choose, e\.g\. with --epochs 9"),
        ({"model": vit(3) | {"width": 32}}, r"model\.width = 64, 32"),
        ({"optimizer": {"name": "sgd", "lr": 0.1}, "model": vit(3)}, r"optimizer\.lr = 0\.01, 0\.1"),
        ({"dataset": {"name": "mnist", "train_size": None}, "model": vit(3)}, "dataset.name = digits, mnist"),
        ({"etf": FFN | {"frame": "canonical"}, "model": vit(3)}, r"etf\.frame = random, canonical"),
        ({"experiment": "again", "model": vit(2)}, "seed 0 of FFN-ETF is there twice"),
    ],
)
def test_nothing_but_depth_policy_and_seed_may_differ(tmp_path, draw, other, message):
    write_transformers(tmp_path, depths=(1, 2), seeds=(0,))
    write_run(tmp_path, **{"etf": FFN} | other)
    with pytest.raises(AnalysisError, match=message):
        draw(load_runs([tmp_path]))


def test_what_is_missing_is_said(tmp_path):
    write_run(tmp_path, BASELINE, model=vit(1, ratio=0.0))
    runs = load_runs([tmp_path])
    with pytest.raises(AnalysisError, match=r"usual policies \(baseline, FFN-ETF\); there are: no FFN"):
        figure3(runs)
    with pytest.raises(AnalysisError, match=r"usual policies \(baseline, FFN-ETF\); there are: no FFN"):
        figure4(runs)
    with pytest.raises(AnalysisError, match="figure4 draws vision transformers with feed-forward layers"):
        DRAWINGS["figure4"].draw(runs, ["no FFN"])
