"""The figures of a depth study: what stands in their tables, panels and captions, and the command."""

import math
from pathlib import Path

import numpy as np
import pytest
from fake_depth_runs import CE, COEFFICIENTS, MSE, RN1, RN2, T11, write_depth_run, write_series
from matplotlib.text import Text
from named_columns import unnamed

from nclab.analysis import AnalysisError, load_runs, save_figure, style
from nclab.analysis.cli import main
from nclab.analysis.last_layer import classifier_input
from nclab.analysis.trend import trend
from nclab.papers.depth.block_figures import depth_blocks, ends
from nclab.papers.depth.figures import depth, slopes

COLUMNS = ["variant", "split", "layer", "metric", "blocks", "l2", "n", "mean", "std", "log10_mean", "log10_std", "rank"]
LINE = ["slope", "slope_std", "slope_low", "slope_high", "slope_seeds", "intercept", "no_slope"]


@pytest.fixture
def three(tmp_path):
    """RN1 and T11 at constant lambda, RN2 at 0.005/L; the last falls faster."""
    write_series(tmp_path, (2, 5, 13, 34))
    write_series(tmp_path, (2, 5, 13), model=T11, experiment="depth_t11", accuracy=0.97)
    write_series(tmp_path, (2, 5, 13), model=RN2, experiment="depth_rn2", over_depth=True, slope=-0.6)
    return tmp_path


def drawn(root):
    return depth(load_runs([root]))


def is_hollow(line):
    return isinstance(line.get_markerfacecolor(), str) and line.get_markerfacecolor() == "white"


def legend(artist):
    return [text.get_text() for text in artist.get_texts()]


# Against depth


def test_the_table_holds_every_number(three):
    figure, table = drawn(three)
    assert list(table) == COLUMNS + LINE
    assert list(table.variant.unique()) == ["RN1, λ = 0.005", "RN2, λ = 0.005/L", "T11, λ = 0.005"]
    rows = table[(table.variant == "RN2, λ = 0.005/L") & (table.metric == "nc1_trace_ratio")]
    assert list(rows.blocks) == [2, 5, 13]
    assert list(rows.l2) == pytest.approx([0.0025, 0.001, 0.005 / 13])
    assert list(rows.n) == [3, 3, 3]
    runs = [run for run in load_runs([three]) if run.config["experiment_name"] == "depth_rn2"]
    values = {}
    for run in runs:
        at = run.metrics.query("epoch == 100 and split == 'train' and metric == 'nc1_trace_ratio'")
        blocks = run.settings["model.blocks"]
        values.setdefault(run.seed, {})[blocks] = at[at.layer == f"block{blocks}"].value.item()
    logs = np.log10([[values[seed][blocks] for seed in range(3)] for blocks in (2, 5, 13)])
    np.testing.assert_allclose(rows.log10_mean, logs.mean(1))
    np.testing.assert_allclose(rows.log10_std, logs.std(1, ddof=1))
    np.testing.assert_allclose(rows["mean"], (10**logs).mean(1))
    e = trend(values).estimate
    np.testing.assert_allclose(rows[["slope", "slope_low", "slope_high"]].iloc[0], [e.mean, e.low, e.high])
    whole = table[table.layer == "network"]
    assert set(zip(whole.split, whole.metric, strict=True)) == {
        ("train", "accuracy"),
        ("test", "accuracy"),
        ("train", "l2_penalty"),
        ("train", "objective_change"),
    }
    change = table[table.metric == "objective_change"]
    assert change.slope.isna().all()
    np.testing.assert_allclose(change["mean"], 2)
    assert set(change.n) == {3}
    assert whole[whole.metric == "accuracy"].slope.isna().all()
    assert {"nc1", "nc2_weight_gram", "nc2_weight_orthogonal", "nc3_cosine"} < set(table.metric)
    assert "3 seeds" in figure.get_suptitle()
    assert "MNIST, 5,000 train samples, 100 epochs" in figure.get_suptitle()


def test_a_power_law_gives_its_exponent_and_the_line_that_is_drawn(tmp_path):
    for blocks in (2, 5, 13, 34):
        for seed in range(5):
            write_depth_run(tmp_path, blocks, seed)
    figure, table = drawn(tmp_path)
    for metric, a in COEFFICIENTS.items():
        rows = table[table.metric == metric]
        np.testing.assert_allclose(rows[["slope", "slope_low", "slope_high"]], -1 / 3)
        np.testing.assert_allclose(rows.intercept, math.log10(a))
    for axes, a in zip(figure.axes, COEFFICIENTS.values(), strict=False):
        (fitted,) = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_marker() == "None"]
        np.testing.assert_allclose(fitted.get_xdata(), [2, 34])
        np.testing.assert_allclose(fitted.get_ydata(), [a * x ** (-1 / 3) for x in (2, 34)])
        assert axes.get_yscale() == "log"
        assert legend(axes.get_legend()) == ["−0.33 [−0.33, −0.33]"]


def test_slopes_stand_below_all_points(three):
    figure, table = drawn(three)
    with style():
        figure.set_dpi(200)  # as saved
        figure.draw_without_rendering()
    for axes, metric in zip(figure.axes, COEFFICIENTS, strict=False):
        rows = table[table.metric == metric]
        lowest = 10 ** (rows.log10_mean - rows.log10_std).min()
        top = axes.get_legend().get_window_extent().y1
        assert top <= axes.transData.transform((1, lowest))[1]
        assert axes.get_legend().get_window_extent().x1 <= axes.get_window_extent().x1
        assert [text.get_text() for text in axes.get_xticklabels()] == ["2", "5", "13", "34"]
        assert len(legend(axes.get_legend())) == 3
    assert figure.axes[3].get_ylabel() == "train accuracy"
    low, high = figure.axes[3].get_ylim()
    assert low < 0.97
    assert high > 0.99
    handles = figure.legends[0].legend_handles
    assert legend(figure.legends[0]) == list(table.variant.unique())
    assert len({line.get_color() for line in handles}) == len({line.get_marker() for line in handles}) == 3


def test_mse_without_a_bias_is_measured_against_the_orthogonal_frame(tmp_path):
    write_series(tmp_path)
    model = RN1 | {"head_bias": False}
    write_series(tmp_path, loss=MSE, model=model, experiment="depth_rn1_mse", end={"nc2_weight_orthogonal": 0.25})
    figure, table = drawn(tmp_path)
    nc2 = figure.axes[1]
    assert nc2.get_title() == "Classifier to an ETF\n† an orthogonal frame: nc2_weight_orthogonal"
    marked = [text.endswith("†") for text in legend(nc2.get_legend())]
    assert marked == ["MSE" in variant for variant in table.variant.unique()]
    heights = [line.get_ydata() for line in nc2.lines if len(line.get_xdata()) == 3]
    assert any(np.allclose(height, 0.25) for height in heights)
    assert not any("†" in text for axes in (figure.axes[0], figure.axes[2]) for text in legend(axes.get_legend()))


def test_seeds_without_a_slope_are_told_in_the_picture(tmp_path):
    write_series(tmp_path, seeds=range(4))
    for blocks in (2, 5, 13):
        write_depth_run(tmp_path, blocks, 4, end={"nc3_cosine": 0.0 if blocks == 13 else 0.1})
    write_depth_run(tmp_path, 2, 5)
    figure, table = drawn(tmp_path)
    nc1, _, nc3 = (legend(axes.get_legend())[0] for axes in figure.axes[:3])
    assert nc1.endswith("*")
    assert nc3.endswith("*")
    row = table[(table.metric == "nc3_cosine") & (table.blocks == 13)].iloc[0]
    assert (row.slope_seeds, row.n) == (4, 5)
    assert row.no_slope == "not positive at 13 with seed 4; no number at 5, 13 with seed 5"
    assert "no slope of nc1_trace_ratio, nc2_weight_gram: no number at 5, 13 with seed 5" in figure.get_suptitle()
    assert "no slope of nc3_cosine: not positive at 13 with seed 4; no number" in figure.get_suptitle()
    assert slopes(table)["slope of nc1_trace_ratio"][0].endswith("*")


def test_two_depths_and_one_seed_are_drawn_without_a_slope(tmp_path):
    write_depth_run(tmp_path, 2)
    write_depth_run(tmp_path, 5)
    figure, table = drawn(tmp_path)
    assert legend(figure.axes[0].get_legend()) == ["no slope"]
    assert "a slope takes at least 3 depths, there are 2 with seed 0" in figure.get_suptitle().replace("\n", " ")
    assert table.slope.isna().all()
    assert table["std"].isna().all()
    write_depth_run(tmp_path, 13)
    assert legend(drawn(tmp_path)[0].axes[0].get_legend()) == ["−0.33 one seed"]


def test_an_undefined_number_is_no_point(tmp_path):
    write_series(tmp_path, end={"nc1_trace_ratio": math.nan})
    figure, table = drawn(tmp_path)
    rows = table[table.metric == "nc1_trace_ratio"]
    assert set(rows.n) == {0}
    assert rows["mean"].isna().all()
    assert legend(figure.axes[0].get_legend()) == ["no slope"]
    assert all(path.stat().st_size for path in save_figure(figure, table, tmp_path / "f"))


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        (
            "nc3_cosine",
            "metrics.csv: no train nc3_cosine of block5 at epoch 100, the last; expected a run that measures",
        ),
        ("accuracy", "no train accuracy of network at epoch 100"),
    ],
)
def test_a_run_that_was_not_measured_is_named(tmp_path, lacking, message):
    write_depth_run(tmp_path, 2)
    write_depth_run(tmp_path, 5, lacking=(lacking,))
    with pytest.raises(AnalysisError, match=message):
        drawn(tmp_path)


def test_what_older_runs_lack_besides_is_left_out_of_the_table(tmp_path):
    write_series(tmp_path, lacking=("l2_penalty", "nc2_weight_orthogonal"), loss=CE)
    _, table = drawn(tmp_path)
    assert not {"l2_penalty", "nc2_weight_orthogonal"} & set(table.metric)
    assert slopes(table)["slope of nc2_weight_orthogonal"][0] == "-"


def test_the_classifiers_input_is_the_norm_or_the_last_block(tmp_path):
    runs = [load_runs([write_depth_run(tmp_path, 3, model=model)])[0] for model in (RN1, T11, T11 | {"norm": "pre"})]
    assert [classifier_input(run) for run in runs] == ["block3", "block3", "norm"]
    events = write_depth_run(tmp_path, 5, model=T11 | {"norm": "pre"}) / "events.jsonl"
    between = '{"layer": "pool", "role": "hidden", "site": null, "stage": null}, {"layer": "head"'
    events.write_text(events.read_text().replace('{"layer": "head"', between))
    assert classifier_input(load_runs([events.parent])[0]) == "norm"  # the role says so
    events = write_depth_run(tmp_path, 4) / "events.jsonl"
    events.write_text('{"event": "start", "layers": []}\n')
    with pytest.raises(AnalysisError, match="expected a layer in front of one of role classifier, got the roles of no"):
        classifier_input(load_runs([events.parent])[0])


def test_how_far_training_was_from_rest_is_in_the_caption(tmp_path):
    write_series(tmp_path, change=-0.031)
    write_series(tmp_path, model=RN2, experiment="depth_rn2", change=0.21)
    figure, table = drawn(tmp_path)
    assert "objective changed by 3.1 to 21 % over the last tenth of training" in figure.get_suptitle()
    assert list(slopes(table)["objective changed by"]) == ["3.1 %", "21 %"]
    figure, _ = drawn(write_series(tmp_path / "half", measured=(0.5,), lacking=("l2_penalty",)))
    assert "over the last 50 % of training" in figure.get_suptitle()
    write_series(tmp_path / "half", model=RN2, experiment="depth_rn2")
    assert "over the last 10 to 50 % of training" in drawn(tmp_path / "half")[0].get_suptitle()
    for folder in [file.parent for file in write_series(tmp_path / "early", epochs=40).rglob("DONE")]:
        config, summary = folder / "config.yaml", folder / "summary.json"
        config.write_text(config.read_text().replace("epochs: 40", "epochs: 100\nstop_at_loss: 0.1"))
        summary.write_text(summary.read_text().replace("{", '{"epochs": 40, ', 1))
    assert "over the last tenth of training" in drawn(tmp_path / "early")[0].get_suptitle()
    figure, table = drawn(write_series(tmp_path / "none", measured=()))
    assert "objective" not in figure.get_suptitle()
    assert "objective_change" not in set(table.metric)
    assert list(slopes(table)["objective changed by"]) == ["-"]


def test_depths_that_a_variant_lacks_are_named(three, tmp_path):
    figure, _ = drawn(three)
    assert "RN2, λ = 0.005/L: no run of 34 blocks; T11, λ = 0.005: no run of 34 blocks" in figure.get_suptitle()
    assert "RN1, λ = 0.005: no run" not in figure.get_suptitle()
    assert "no run" not in drawn(write_series(tmp_path / "alone"))[0].get_suptitle()


def test_a_lower_rank_is_hollow_and_named(tmp_path):
    """NC1 runs over the dimensions that class means span: where there are fewer it is another number."""
    for blocks in (2, 5, 13, 34):
        for seed in range(2):
            write_depth_run(tmp_path, blocks, seed, end={"rank": 8.0 if (blocks, seed) == (34, 1) else 9.0})
    figure, table = drawn(tmp_path)
    hollow = [line for line in figure.axes[0].lines if is_hollow(line)]
    assert [list(line.get_xdata()) for line in hollow] == [[34]]
    assert not [line for axes in figure.axes[1:] for line in axes.lines if is_hollow(line)]
    said = (
        "hollow: class means span fewer dimensions, nc1_trace_ratio not comparable: RN1, λ = 0.005: last of 34 blocks"
    )
    assert f"{said} (rank 8 of 9)" in figure.get_suptitle().replace("\n", " ")
    assert list(table[table.metric == "nc1"]["rank"]) == [9, 9, 9, 8]
    assert table[table.metric == "accuracy"]["rank"].isna().all()
    figure, table = depth_blocks(load_runs([tmp_path]))
    hollow = [line for line in figure.axes[0].lines if is_hollow(line)]
    assert [list(line.get_xdata()) for line in hollow] == [[1.0]]
    assert "block34 of 34 blocks (rank 8 of 9)" in figure.get_suptitle().replace("\n", " ")
    assert not [line for line in figure.axes[1].lines if is_hollow(line)]


@pytest.mark.parametrize("draw", [depth, depth_blocks])
def test_every_word_of_a_picture_names_its_column(three, draw):
    figure, _ = draw(load_runs([three]))
    words = [text.get_text() for text in figure.findobj(Text) if text.get_text()]
    assert any("nc1_trace_ratio" in text for text in words)
    assert [text for text in words if unnamed(text)] == []


# Along the depth


def test_blocks_have_a_column_a_variant_and_a_curve_a_depth(three):
    figure, table = depth_blocks(load_runs([three]))
    titles = [axes.get_title().replace("\u00a0", " ") for axes in figure.axes[:3]]
    assert titles == ["RN1, λ = 0.005", "RN2, λ = 0.005/L", "T11, λ = 0.005"]
    assert [len(axes.lines) for axes in figure.axes] == [4, 3, 3] * 2
    assert len(legend(figure.legends[0])) == 4
    rows = table[(table.variant == "RN1, λ = 0.005") & (table.blocks == 5) & (table.metric == "ncc_accuracy")]
    assert list(rows.block) == [0, 1, 2, 3, 4, 5]  # 0: what the first block reads
    assert list(rows.layer) == ["embed", "block1", "block2", "block3", "block4", "block5"]
    np.testing.assert_allclose(rows.position, np.arange(6) / 5)
    np.testing.assert_allclose(rows["mean"], [*(0.7 + 0.29 * np.sqrt(np.arange(5) / 5)), 0.99])
    assert set(rows.n) == {3}
    np.testing.assert_allclose(figure.axes[3].lines[1].get_ydata(), rows["mean"])
    nc1 = table[(table.variant == "RN1, λ = 0.005") & (table.blocks == 5) & (table.metric == "nc1_trace_ratio")]
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), 10**nc1.log10_mean)
    assert [axes.get_yscale() for axes in figure.axes] == [*3 * ["log"], *3 * ["linear"]]
    assert figure.axes[0].get_ylabel() == "train nc1_trace_ratio"
    assert ends(table).iloc[1]["ncc_accuracy of first, middle, last block"] == "0.83, 0.925, 0.99"


def test_more_variants_than_columns_go_below(tmp_path):
    for i in range(5):
        write_series(tmp_path, (2, 3), seeds=(0,), experiment=f"e{i}")
    figure, table = depth_blocks(load_runs([tmp_path]))
    assert len(figure.axes) == 10
    assert len(table.variant.unique()) == 5
    assert "one seed" in figure.get_suptitle()
    assert all(path.stat().st_size for path in save_figure(figure, table, tmp_path / "f"))


def test_layers_that_do_not_fit_the_number_of_blocks_are_refused(tmp_path):
    folder = write_depth_run(tmp_path, 3)
    text = (folder / "events.jsonl").read_text().replace('"role": "block"', '"role": "hidden"', 1)
    (folder / "events.jsonl").write_text(text)
    with pytest.raises(AnalysisError, match="expected 3 layers of role block, the model's blocks, got 2"):
        depth_blocks(load_runs([tmp_path]))


# The command


@pytest.mark.parametrize(
    ("name", "printed"), [("depth", "slope of nc1_trace_ratio"), ("depth_blocks", "nc1_trace_ratio of first, middle")]
)
def test_the_command_draws_and_prints(three, capsys, name, printed):
    out = three / "pictures" / name
    main([name, str(three), "--out", str(out), "--where", "model.name=rn"])
    text = capsys.readouterr().out
    assert printed in text
    assert "T11" not in text
    assert all(Path(f"{out}.{ending}").stat().st_size for ending in ("pdf", "png", "csv"))
