"""Networks below learnt, fixed and nearest classifiers: the numbers of the claims, the table, the figure, the runs."""

import math

import pytest
import torch
from fake_network_runs import write_network_run

from nclab.analysis import AnalysisError, load_runs
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.statistics import STATISTICS
from nclab.config.place import CONF
from nclab.config.plan import Plan
from nclab.etf import POLICIES
from nclab.models import MODELS
from nclab.papers.etf_networks.arms import arm, arms


def value(name, folder):
    (run,) = load_runs([folder])
    DRAWINGS.names()  # the wing's statistics are found with its drawings
    return STATISTICS[name].value(run, run)


@pytest.fixture
def networks(tmp_path):
    """Learnt and fixed, d and K, three seeds each; the fixed ones are fitted a seed later than the learnt."""
    for i, classifier in enumerate(("learnt", "fixed")):
        for features in ("full", "classes"):
            for seed in range(3):
                write_network_run(tmp_path, classifier, features, seed, fitted=6 + i + seed, test=0.9 - 0.01 * seed)
    return tmp_path


@pytest.mark.parametrize(("fitted", "epochs"), [(6, 6.0), (12, 12.0), (99, 13.0)])
def test_epochs_to_99_percent_and_one_more_than_there_are_where_it_is_not_reached(tmp_path, fitted, epochs):
    assert value("epochs_to_train_99", write_network_run(tmp_path, fitted=fitted)) == epochs


def test_of_a_pair_of_which_neither_is_fitted_nothing_is_said(tmp_path):
    """Else two that never get there would be as fast as each other, and refute a claim."""
    never, fixed, nearest = (
        load_runs([write_network_run(tmp_path, classifier, fitted=fitted)])[0]
        for classifier, fitted in (("learnt", 99), ("fixed", 99), ("nearest", 6))
    )
    DRAWINGS.names()
    value = STATISTICS["epochs_to_train_99"].value
    assert math.isnan(value(never, fixed))
    assert (value(never, nearest), value(nearest, nearest), value(fixed, fixed)) == (13, 6, 13)


def test_parameters_and_memory_are_those_of_the_summary(tmp_path):
    folder = write_network_run(tmp_path, learnable=23418)
    assert value("learnable_parameters", folder) == 23418
    assert value("training_state", folder) == 3.0


def test_a_run_is_named_by_its_classifier_and_its_dimension(tmp_path):
    names = {
        ("learnt", "full"): "learnt, d",
        ("fixed", "classes"): "fixed ETF, K",
        ("nearest", "full"): "nearest ETF, d",
    }
    for (classifier, features), name in names.items():
        (run,) = load_runs([write_network_run(tmp_path, classifier, features)])
        assert arm(run) == name
    assert list(arms(load_runs([tmp_path]))) == ["learnt, d", "fixed ETF, K", "nearest ETF, d"]


def test_other_classifiers_and_lengths_of_features_are_refused(tmp_path):
    other = write_network_run(tmp_path / "other", "clock")
    with pytest.raises(AnalysisError, match="expected etf none, last_k or nearest with its gradient, got"):
        arms(load_runs([other]))
    write_network_run(tmp_path / "two")
    write_network_run(tmp_path / "two", "fixed", tau=5.0)
    with pytest.raises(AnalysisError, match=r"expected runs of one model.tau, got 5.0, None"):
        arms(load_runs([tmp_path / "two"]))
    write_network_run(tmp_path / "mixed")
    write_network_run(tmp_path / "mixed", seed=1, epochs=9)
    with pytest.raises(AnalysisError, match="must not differ in epochs"):
        arms(load_runs([tmp_path / "mixed"]))


def test_the_table_has_medians_and_ranges(networks):
    table, caption = DRAWINGS["etf_networks_table"].draw(load_runs([networks]))
    assert caption is None
    assert list(table.classifier) == ["learnt, d", "learnt, K", "fixed ETF, d", "fixed ETF, K"]
    row = table.iloc[2]
    assert (row.parameters, row.state_mib, row.activations_mib, row.seeds) == (24058, 3.0, 2.0, 3)
    assert (row.test_accuracy, row.epochs_to_99) == ("89.00 [88.00, 90.00]", "8 [7, 9]")
    assert row.seeds_there == 3


def test_the_figure_has_medians_and_ranges_over_seeds(networks):
    figure, table = DRAWINGS["etf_networks"].draw(load_runs([networks]))
    row = table[(table.arm == "fixed ETF, d") & (table.metric == "nc1") & (table.epoch == 4)].iloc[0]
    assert (row["median"], row.low, row.high, row.n) == (0.5, 0.25, 0.75, 3)
    error = figure.axes[4]
    assert error.get_yscale() == "log"
    assert min(error.lines[0].get_ydata()) == pytest.approx(0.005)
    assert max(figure.axes[0].get_xticks()) == figure.axes[0].get_xlim()[1] == 12
    text = figure.get_suptitle()
    assert "Fashion-MNIST, 2,000 train images, CNN of 3 stages and 64 channels, 12 epochs" in text
    assert "median and range of 3 seeds" in text
    labels = [entry.get_text() for entry in figure.legends[0].get_texts()]
    assert sorted(labels) == ["fixed ETF, d = K", "fixed ETF, own d", "learnt, d = K", "learnt, own d"]


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu_hour", "paper"])
def test_every_run_of_a_profile_builds_its_network(profile):
    """On the meta device: images are large enough, and the ETFs fit."""
    shapes = {"digits": (1, 8, 8), "cifar10": (3, 32, 32)}
    plan = Plan(CONF, "etf_networks")
    extra = [name for name, part in plan.parts.items() if part.get("extra")]
    built = set()
    for part in [*plan.resolve([], profile, seeds=[0]), *plan.resolve(extra, profile, seeds=[0])]:
        assert part.configs
        for config in part.configs:
            model, shape = config.model, shapes.get(config.dataset.name, (1, 28, 28))
            if (network_of := (repr(model), repr(config.etf), shape)) in built:
                continue
            built.add(network_of)
            with torch.device("meta"):
                network = MODELS[model.name].build(model, shape, 10)
            POLICIES[config.etf.name].build(config.etf).check(network)
