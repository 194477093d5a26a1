"""nclab-draw curves and heatmap: any column of metrics.csv, layer by layer."""

import numpy as np
import pytest
from fake_runs import ADAPTIVE, BASELINE, last, vit, write_experiment, write_run
from matplotlib.colors import LogNorm
from named_columns import unnamed

from nclab.analysis import DRAWINGS, AnalysisError, load_runs
from nclab.analysis.cli import main
from nclab.analysis.heatmap import heatmap
from nclab.analysis.looks import kind_look, looks
from nclab.analysis.metric_curves import last_values, metric_curves
from nclab.analysis.metric_table import metric_table

LAYERS = ["fc1", "fc2", "fc3", "fc4", "act4", "fc5"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return load_runs([write_experiment(tmp_path_factory.mktemp("runs"))])


def put(folder, **values):
    """Set a column's value at every layer and epoch of the train split, e.g. nc1=2.0."""
    file = folder / "metrics.csv"
    lines = file.read_text().splitlines()
    for metric, value in values.items():
        lines = [f"{line.rpartition(',')[0]},{value}" if f",{metric}," in line else line for line in lines]
    file.write_text("\n".join(lines) + "\n")


def by_hand(runs, policy, layer, metric, epoch):
    values = [
        float(line.rpartition(",")[2])
        for run in runs
        if run.policy == policy
        for line in (run.path / "metrics.csv").read_text().splitlines()
        if line.startswith(f"{epoch},train,{layer},{metric},")
    ]
    assert len(values) == 3
    return np.array(values)


def lines_of(axes):
    return [line for line in axes.lines if len(line.get_xdata()) > 2]


@pytest.mark.fast
def test_the_table_is_geometric_for_distances_and_the_error_for_accuracies(tmp_path):
    for seed, nc1 in enumerate((0.1, 1.0, 10.0)):
        put(write_run(tmp_path, seed=seed), nc1=nc1)
    runs = load_runs([tmp_path])
    table = metric_table(runs, ["nc1", "ncc_accuracy"])
    assert list(table.layer.unique()) == LAYERS  # the steps of depth and what the classifier reads
    nc1 = table[table.metric == "nc1"]
    np.testing.assert_allclose(nc1[["value", "low", "high", "mean"]].iloc[0], [1.0, 0.1, 10.0, 3.7])
    assert set(nc1.n) == {3}
    row = table.query("metric == 'ncc_accuracy' and layer == 'fc2' and epoch == 9").iloc[0]
    values = by_hand(runs, "baseline", "fc2", "ncc_accuracy", 9)
    np.testing.assert_allclose(
        row[["value", "low", "high"]].astype(float), 1 - values.mean() + values.std(ddof=1) * np.array([0, -1, 1])
    )


@pytest.mark.parametrize(
    ("metric", "value", "drawn", "note"),
    [
        ("nc4_mismatch", 0.0, 1 / 2000, "1/(2n), n = 500 train samples × 2 seeds"),
        ("nc1", 0.0, 0.05, "half of the smallest nc1"),
        ("rank", 0.0, 0.0, ""),
    ],
)
def test_what_is_0_stands_at_a_floor_that_the_caption_names(tmp_path, metric, value, drawn, note):
    for seed in range(2):
        folder = write_run(tmp_path, seed=seed, dataset={"name": "digits", "train_size": 500})
        rows = [f"{e},train,fc5,{metric},{0.1 if e < 20 else value}" for e in range(21)]
        kept = [line for line in (folder / "metrics.csv").read_text().splitlines() if f",{metric}," not in line]
        (folder / "metrics.csv").write_text("\n".join([*kept, *rows]) + "\n")
    figure, table = metric_curves(load_runs([tmp_path]), metric=(metric,))
    assert table.value.iloc[-1] == pytest.approx(drawn)
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "v"]
    assert bool(marks) == bool(note)
    if note:
        assert list(marks[0].get_ydata()) == [pytest.approx(drawn)]
        assert figure.axes[0].get_ylim()[0] <= drawn
        assert f"0 is drawn at {note}" in figure.get_suptitle()


def test_up_to_four_policies_have_a_panel_each_where_a_line_is_a_layer(runs):
    names = ["baseline", "last 3 ETF", "Adaptive-ETF"]
    figure, table = metric_curves(runs, names, metric=("nc1", "ncc_accuracy"))
    assert [axes.get_title() for axes in figure.axes[:3]] == names
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["train nc1", "1 − train ncc_accuracy"]
    assert {axes.get_yscale() for axes in figure.axes} == {"log"}
    rows = table.query("metric == 'nc1' and policy == 'last 3 ETF' and layer == 'fc4'")
    assert any(np.allclose(line.get_ydata(), rows.value) for line in lines_of(figure.axes[1]))
    fixed = [line for line in lines_of(figure.axes[1]) if line.is_dashed()]
    assert len(fixed) == 3
    assert {line.get_marker() for line in fixed} == {"s"}
    assert {text.get_text() for text in figure.axes[2].texts} == {"fc5", "fc4", "fc3 2/3"}
    assert [text.get_text() for text in figure.legends[0].get_texts()][:1] == ["fc1"]


def test_more_policies_have_a_line_each_in_panels_of_layers(runs):
    figure, table = metric_curves(runs)
    assert [axes.get_title() for axes in figure.axes] == LAYERS
    assert len(lines_of(figure.axes[0])) == table.policy.nunique() == 5
    styles = {(line.get_color(), str(line._dash_pattern), line.get_marker()) for line in lines_of(figure.axes[0])}
    assert len(styles) == 5
    below = [axes.get_title() for axes in figure.axes if axes.get_xlabel() == "epoch"]
    assert below == ["fc3", "fc4", "act4", "fc5"]  # the second row has two panels


def test_axes_leave_the_untrained_network_out(tmp_path):
    folder = write_run(tmp_path)
    lines = (folder / "metrics.csv").read_text().splitlines()
    lines = [
        f"{line.rpartition(',')[0]},900.0" if line.startswith("0,") and ",nc1," in line else line for line in lines
    ]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    runs = load_runs([tmp_path])
    assert metric_curves(runs)[0].axes[0].get_ylim()[1] <= 1.0
    figure, _ = heatmap(runs)
    mesh = figure.axes[0].collections[0]
    assert mesh.norm.vmax <= 1.0
    assert mesh.colorbar.extend == "max"


def test_a_panel_of_flat_lines_becomes_a_sentence(tmp_path):
    put(write_run(tmp_path), nc1=0.25)
    write_run(tmp_path, last(1))
    figure, _ = metric_curves(load_runs([tmp_path]))
    flat, steep = figure.axes
    assert not lines_of(flat)
    assert [text.get_text() for text in flat.texts] == [f"nc1 = 0.25\nin {', '.join(LAYERS)}\nat every epoch"]
    assert len(lines_of(steep)) == 6


@pytest.mark.parametrize("draw", [metric_curves, heatmap])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": ("nc9",)}, "unknown metric of these runs 'nc9'; did you mean nc"),
        ({"split": "valid"}, "unknown split of nc1 'valid'; .*valid: train, test"),
        ({"layers": ("fc9",)}, "unknown layer with train nc1 'fc9'"),
        ({"metric": ("nc3",)}, "train nc3 is nan at every layer and epoch"),
    ],
)
def test_what_was_not_measured_is_refused_by_name(runs, draw, options, message):
    with pytest.raises(AnalysisError, match=message):
        draw(runs, **options)


def test_a_heat_map_has_a_row_a_layer_and_a_column_an_epoch(runs):
    names = ["baseline", "last 2 ETF", "Adaptive-ETF"]
    figure, table = heatmap(runs, names)
    assert [axes.get_title() for axes in figure.axes[:3]] == names
    axes = figure.axes[2]
    (mesh,) = axes.collections
    assert isinstance(mesh.norm, LogNorm)
    assert mesh.cmap.name == "cividis"
    values = mesh.get_array()
    assert values.shape == (6, 21)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == LAYERS  # from the bottom up
    errors, table = heatmap(runs, names, metric=("ncc_accuracy",))
    at_13 = table.query("policy == 'Adaptive-ETF' and epoch == 13").set_index("layer").value
    for row, value in enumerate(at_13[LAYERS]):
        assert errors.axes[2].collections[0].get_array()[row, 13] == pytest.approx(value)
    marks = sorted({(line.get_xdata()[0], line.get_ydata()[0] + 0.5) for line in axes.lines})
    assert marks == [(8, 5), (10, 3), (14, 2)]  # epoch and row of fc5, fc4, fc3
    assert [line.get_ydata()[0] for line in figure.axes[1].lines] == [3, 5]  # fixed from the start: fc4, fc5
    assert "train nc1" in figure.get_suptitle()


def test_a_heat_map_is_of_one_column(runs):
    with pytest.raises(AnalysisError, match="heatmap draws one --metric, got nc1, nc3; curves draws several"):
        heatmap(runs, metric=("nc1", "nc3"))


def test_undefined_cells_are_grey_and_named(tmp_path):
    folder = write_run(tmp_path, model=vit(1))
    text = (folder / "metrics.csv").read_text()
    (folder / "metrics.csv").write_text(text.replace("0,train,block1,nc1,1.000000", "0,train,block1,nc1,nan", 1))
    figure, _ = heatmap(load_runs([tmp_path]))
    assert figure.axes[0].collections[0].get_array().mask.sum() == 1
    assert "undefined (nan)" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_every_name_says_its_column(runs):
    for name in ("curves", "heatmap"):
        figure, table = DRAWINGS[name].draw(runs)
        words = [figure.get_suptitle(), *(axes.get_ylabel() for axes in figure.axes), DRAWINGS[name].caption]
        assert any("train nc1" in text for text in words)
        assert not any(unnamed(text) for text in words)
    assert last_values(table).metric[0] == "train nc1"


def test_legends_and_titles_are_not_over_the_data(runs):
    for draw in (metric_curves, heatmap):
        figure, _ = draw(runs)
        figure.draw_without_rendering()
        box, title = figure.legends[0].get_window_extent(), figure._suptitle.get_window_extent()
        for part in (box, title):
            assert figure.bbox.x0 <= part.x0 < part.x1 <= figure.bbox.x1
            assert not any(axes.get_window_extent().overlaps(part) for axes in figure.axes)


def test_looks_differ_in_colour_dash_and_marker():
    found = looks(["baseline", *(f"p{i}" for i in range(40))])
    assert len({str(sorted(look.items(), key=str)) for look in found.values()}) == 41
    assert found["baseline"]["color"] == "black"
    kinds = ["baseline", "last 3 ETF", "scaled last 3", "orthogonal last 3", "frozen last 3", "last 3 ETF canonical"]
    assert len({tuple(kind_look(kind).values()) for kind in kinds}) == 6
    assert kind_look("last 1 ETF") == kind_look("FFN-ETF")


def test_the_command_takes_columns_and_others_refuse_them(tmp_path, capsys):
    for etf in (BASELINE, last(1), ADAPTIVE):
        write_run(tmp_path, etf, experiment="exp", fix=[(7, "fc5")] if etf is ADAPTIVE else ())
    out = tmp_path / "out"
    main(["curves", str(tmp_path), "--metric", "nc1,ncc_accuracy", "--layers", "fc4,fc5", "--split", "test",
          "--out", str(out)])  # fmt: skip
    assert "test nc1" in capsys.readouterr().out
    assert out.with_suffix(".csv").read_text().startswith("metric,split,policy,layer,epoch,n,zeros,mean,std")
    with pytest.raises(SystemExit):
        main(["figure1", str(tmp_path), "--metric", "nc1"])
    assert "figure1 takes no --metric; drawings that do: curves, heatmap" in capsys.readouterr().err
