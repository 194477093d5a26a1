"""Long-tailed training: names of methods, numbers of the claims, figures, tables, and the runs of every profile."""

import pytest
import torch
from fake_tail_runs import METHODS, write_tail_run

from nclab.analysis import AnalysisError, load_runs
from nclab.analysis.claims import judge
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.ledger import load_ledger
from nclab.analysis.statistics import STATISTICS
from nclab.config.place import CONF
from nclab.config.plan import Plan
from nclab.etf import POLICIES
from nclab.models import MODELS
from nclab.papers.long_tail.methods import ORDER, method, methods


def value(name, folder):
    (run,) = load_runs([folder])
    DRAWINGS.names()  # the wing's statistics are found with its drawings
    return STATISTICS[name].value(run, run)


@pytest.fixture
def all_methods(tmp_path):
    """Three seeds of every method; each is 0.01 better than the one before."""
    for i, name in enumerate(METHODS):
        for seed in range(3):
            write_tail_run(tmp_path, name, seed, shift=0.01 * i)
    return load_runs([tmp_path])


def test_a_method_is_named_by_what_differs_from_cross_entropy(all_methods):
    groups = methods(all_methods)
    assert list(groups) == [name for name in ORDER if name in METHODS]
    assert len(groups) == len(METHODS) == 16
    assert {len(group) for group in groups.values()} == {3}


def test_what_is_no_method_of_ours_is_refused(tmp_path):
    (run,) = load_runs([write_tail_run(tmp_path, "slerp")])
    run.settings["sampler.name"] = "class_balanced"
    with pytest.raises(AnalysisError, match=r"expected one of the methods .*; got slerp and class-balanced sampling"):
        method(run)
    write_tail_run(tmp_path, "slerp", seed=1, epochs=20)
    with pytest.raises(AnalysisError, match="must not differ in epochs"):
        methods(load_runs([tmp_path]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("balanced_accuracy", 65.0),  # the mean of 90, 80, ..., 40
        ("tail_accuracy", 45.0),
        ("centre_cosine", 0.97),
        ("tail_row_cosine", 0.4),
        ("tail_beyond_head_rows", 0.3),
        ("row_cosine", 0.825),
        ("tail_beyond_head_alignment", -0.2),  # of classes 4 and 5 against 0 and 1
        ("post_hoc_norms", 2.0),
        ("post_hoc_rotation", 1.0),
        ("post_hoc_projection", -1.0),
    ],
)
def test_numbers_are_those_after_the_last_epoch(tmp_path, name, expected):
    assert value(name, write_tail_run(tmp_path, "CAL")) == pytest.approx(expected)


def test_a_gap_that_balanced_images_have_too_is_not_of_imbalance(tmp_path):
    """Tail beyond head by 0.3 in rows and −0.2 in alignment, with 100:1 and with 1:1."""
    for seed in range(5):
        for imbalance in (1.0, 100.0):
            write_tail_run(tmp_path, seed=seed, imbalance=imbalance)
    found = {
        j.claim.id: j for j in judge(load_ledger(CONF / "paper" / "long_tail" / "claims.yaml"), load_runs([tmp_path]))
    }
    for name in ("tail_rows_meet", "tail_is_misaligned"):
        assert (found[name].verdict, found[name].estimate.mean) == ("fails", 0)


def test_a_run_without_centres_has_no_centre_cosine(tmp_path):
    folder = write_tail_run(tmp_path)
    with pytest.raises(AnalysisError, match="no train centre_cosine of network"):
        value("centre_cosine", folder)


def test_the_accuracy_figure_has_a_row_a_method(all_methods):
    figure, table = DRAWINGS["long_tail"].draw(all_methods)
    row = table[(table.method == "CAL") & (table.metric == "tail_accuracy")].iloc[0]
    assert (row["median"], row.low, row.high, row.n) == (
        pytest.approx(49.0),
        pytest.approx(48.0),
        pytest.approx(50.0),
        3,
    )
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(methods(all_methods))
    text = figure.get_suptitle()
    assert "Fashion-MNIST-LT 100:1, 3,000 train images, MLP of depth 4 and width 256, 10 epochs" in text
    assert "median and range of 3 seeds" in text


def test_the_class_figure_has_a_curve_a_method_and_balanced_training(all_methods, tmp_path):
    for seed in range(3):
        write_tail_run(tmp_path / "even", "cross-entropy", seed, imbalance=1.0, shift=0.05)
    runs = all_methods + load_runs([tmp_path / "even"])
    figure, table = DRAWINGS["long_tail_classes"].draw(runs)
    names = list(dict.fromkeys(table.method))
    assert names[:2] == ["cross-entropy, balanced", "cross-entropy"]
    assert {"reg", "slerp", "proj", "equal norms alone"} < set(names)
    assert "CAL" not in names
    row = table[(table.method == "cross-entropy") & (table.metric == "class_accuracy") & (table["class"] == 5)].iloc[0]
    assert (row["median"], row.low, row.high) == pytest.approx((0.39, 0.38, 0.4))
    assert list(figure.axes[0].get_xticks()) == [5, 4, 3, 2, 1, 0]
    assert "LT 100:1" in figure.get_suptitle()


def test_the_minority_figure_goes_along_the_imbalance(tmp_path):
    for imbalance in (1.0, 10.0, 100.0):
        for seed in range(2):
            write_tail_run(tmp_path, "cross-entropy", seed, imbalance, shift=-imbalance / 1000)
            write_tail_run(tmp_path, "CAL", seed, imbalance)  # is left out
    figure, table = DRAWINGS["long_tail_minority"].draw(load_runs([tmp_path]))
    assert sorted(set(table.imbalance)) == [1, 10, 100]
    assert set(table.n) == {2}
    tail = table[(table.group == "tail") & (table.metric == "accuracy")].set_index("imbalance")["median"]
    assert tail.loc[1] - tail.loc[100] == pytest.approx(0.099)
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert axes.lines[2].get_ydata()[0] == pytest.approx(-1 / 5)
    assert "Fashion-MNIST, 3,000" in figure.get_suptitle()


def test_tables_have_medians_and_ranges(all_methods):
    table, caption = DRAWINGS["long_tail_table"].draw(all_methods)
    assert caption is None
    row = table[table.method == "CAL"].iloc[0]
    assert row.dataset == "Fashion-MNIST-LT 100:1"
    assert (row.balanced_accuracy, row.centre_cosine, row.nc1_balanced) == (
        "69.00 [68.00, 70.00]", "0.970 [0.970, 0.970]", "0.300 [0.300, 0.300]",
    )  # fmt: skip
    assert table[table.method == "slerp"].iloc[0].centre_cosine == ""
    turned, _ = DRAWINGS["long_tail_post_hoc"].draw([run for run in all_methods if method(run) == "cross-entropy"])
    assert list(turned["rows"]) == [
        "as trained", "equal norms alone", "slerp", "slerp, equal norms", "proj", "proj, equal norms",
    ]  # fmt: skip
    assert list(turned.balanced_accuracy)[:2] == ["64.00 [63.00, 65.00]", "66.00 [65.00, 67.00]"]


def test_the_table_of_free_features_has_a_row_an_allocation(tmp_path):
    for name in ("AL", "CAL"):
        write_tail_run(tmp_path, name, name="unconstrained")
    table, _ = DRAWINGS["long_tail_free"].draw(load_runs([tmp_path]))
    assert list(table.method) == ["AL", "CAL"]
    assert list(table.centre_cosine) == ["0.970000 [0.970000, 0.970000]"] * 2


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu_hour", "paper"])
def test_every_run_of_a_profile_builds_its_network_with_room_for_its_centres(profile):
    shapes = {"digits": (1, 8, 8), "cifar10": (3, 32, 32)}
    parts = Plan(CONF, "long_tail").resolve([], profile, seeds=[0])
    assert parts
    built = set()
    for part in parts:
        for config in part.configs:
            model, shape = config.model, shapes.get(config.dataset.name, (1, 28, 28))
            network_of = (repr(model), repr(config.etf), repr(config.loss), shape)
            if config.dataset.name == "free_features" or network_of in built:
                continue
            built.add(network_of)
            with torch.device("meta"):
                network = MODELS[model.name].build(model, shape, 10)
            POLICIES[config.etf.name].build(config.etf).check(network)
            if config.loss.name == "multi_center":
                assert network.get_submodule(network.classifier).in_features >= 10 * config.loss.centres
