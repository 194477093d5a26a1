"""Complexity, collapse and transfer: settings of a sweep, rank correlations, the figures, the table, the runs."""

import math

import numpy as np
import pytest
import torch
from fake_transfer_runs import write_transfer_run
from scipy.stats import spearmanr

from nclab.analysis import AnalysisError, load_runs
from nclab.analysis.claims import judge
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.ledger import load_ledger
from nclab.analysis.statistics import STATISTICS
from nclab.config.place import CONF
from nclab.config.plan import Plan
from nclab.models import MODELS
from nclab.papers.transfer.correlation import clusters, interval, over_splits
from nclab.papers.transfer.settings import name_of, of_knob, settings_of

L2 = {1e-4: 10.0, 1e-3: 8.0, 3e-3: 6.0, 1e-2: 4.0}  # -> complexity
LR = {0.0125: 12.0, 0.1: 9.0, 0.2: 7.0}
PENALTY = {1e-3: 9.5, 1e-2: 5.0, 1e-1: 1.0}


@pytest.fixture
def swept(tmp_path):
    """Three sweeps, two splits of two seeds. Source CDNV follows complexity; few-shot accuracy the opposite way in
    split 0, the same way in split 1."""
    settings = [{"l2": v, "complexity": c} for v, c in L2.items()] + [{"lr": v, "complexity": c} for v, c in LR.items()]
    settings += [{"penalty": v, "complexity": c} for v, c in PENALTY.items()]
    for split in (0, 1):
        for seed in (0, 1):
            for own in settings:
                sign = -1 if split == 0 else 1
                few = 0.6 + sign * 0.01 * own["complexity"] + 0.002 * seed
                write_transfer_run(tmp_path, split, seed, source=own["complexity"] / 100, few=few, **own)
    return tmp_path


def test_settings_are_told_apart_by_the_knob_that_is_turned(swept):
    groups = settings_of(load_runs([swept]))
    assert [name_of(at) for at in groups] == [
        "base",
        *("L2 λ 0.001", "L2 λ 0.003", "L2 λ 0.01"),
        *("learning rate 0.0125", "learning rate 0.1", "learning rate 0.2"),
        *("GC penalty 0.001", "GC penalty 0.01", "GC penalty 0.1"),
    ]
    assert {len(runs) for runs in groups.values()} == {4}
    assert [name_of(at) for at in of_knob(groups, "optimizer.lr")] == [
        *("learning rate 0.0125", "base", "learning rate 0.1", "learning rate 0.2")
    ]
    alone = [run for run in load_runs([swept]) if run.config["optimizer"]["lr"] != 0.05]
    assert list(settings_of(alone)) == [("optimizer.lr", v) for v in LR]  # nothing says which is the base


def test_what_is_no_sweep_is_refused(swept):
    write_transfer_run(swept, l2=1e-3, lr=0.1)
    with pytest.raises(AnalysisError, match=r"expected one of loss.l2, .* off its base, got loss.l2, optimizer.lr"):
        settings_of(load_runs([swept]))


def test_runs_of_other_lengths_and_twins_are_refused(swept):
    write_transfer_run(swept / "again", end=20)
    with pytest.raises(AnalysisError, match="is there twice"):
        settings_of(load_runs([swept, swept / "again"]))
    write_transfer_run(swept, stop=None)
    with pytest.raises(AnalysisError, match=r"class_split and seed alone; they differ in epochs = 300, 30"):
        settings_of(load_runs([swept]))


def test_a_run_that_did_not_come_down_to_its_loss_has_no_number(tmp_path):
    DRAWINGS.names()
    reached, short, free = (
        write_transfer_run(tmp_path, seed=i, **keys) for i, keys in enumerate(({}, {"reached": False}, {"stop": None}))
    )
    names = ("source_complexity", "source_geometric_collapse", "source_cdnv", "target_cdnv", "few_shot_5")
    for folder, there in ((reached, True), (short, False), (free, True)):
        (run,) = load_runs([folder])
        values = [STATISTICS[name].value(run, run) for name in names]
        assert values == ([10.0, 0.1, 0.1, 1.0, 60.0] if there else pytest.approx([math.nan] * 5, nan_ok=True))
        assert STATISTICS["last_running_loss"].value(run, run) == pytest.approx(0.04)


@pytest.mark.parametrize(("loss", "there"), [(0.0249, False), (0.025, True), (0.1, True), (0.1001, False)])
def test_a_run_whose_network_is_at_another_loss_has_no_number(tmp_path, loss, there):
    """The loss to stop at is 0.05, and the batches of the last epoch came down to 0.04."""
    DRAWINGS.names()
    (run,) = load_runs([write_transfer_run(tmp_path, loss=loss)])
    assert STATISTICS["last_train_loss"].value(run, run) == loss
    assert np.isfinite(STATISTICS["source_complexity"].value(run, run)) == there


def test_rank_correlations_are_scipys_and_their_interval_covers_the_splits(swept):
    table, caption = DRAWINGS["transfer_correlations"].draw(load_runs([swept]))
    assert caption is None
    rows = table[table.of == "source_complexity"].set_index(["sweep", "with"])
    assert set(table.sweep) == {"L2 λ", "learning rate", "GC penalty", "the three of the paper", "all"}
    cdnv = rows.loc["all", "source_cdnv"]
    assert (cdnv.rho, cdnv.bootstrap_low, cdnv.bootstrap_high) == (1, 1, 1)
    assert (cdnv.low, cdnv.high, cdnv.says) == (-1, 1, "undecided")  # two equal numbers may be chance
    assert (cdnv.settings, cdnv.splits, cdnv.seeds) == (10, 2, 2)
    assert rows.loc["the three of the paper", "source_cdnv"].settings == 7
    few = rows.loc["all", "few_shot_5"]
    assert (few.rho, few.least_split, few.greatest_split, few.says) == (0, -1, 1, "undecided")
    assert few.bootstrap_low < -0.9
    assert few.bootstrap_high > 0.9
    groups = settings_of(load_runs([swept]))
    found = clusters(groups, STATISTICS["source_complexity"].value, STATISTICS["few_shot_5"].value)
    for split, own in found.items():
        for seed, rho in own.items():
            runs = [
                r for g in groups.values() for r in g if (r.settings["dataset.class_split"], r.seed) == (split, seed)
            ]
            values = [[STATISTICS[n].value(r, r) for r in runs] for n in ("source_complexity", "few_shot_5")]
            assert rho == pytest.approx(spearmanr(*values).statistic)


def test_three_splits_are_judged_by_students_interval():
    low, high = over_splits([0.5, 0.6, 0.7])
    assert (low, high) == pytest.approx((0.6 - 0.24841, 0.6 + 0.24841), abs=1e-4)
    assert over_splits([0.9, 0.95, 1.0]) == (pytest.approx(0.8258, abs=1e-4), 1)
    assert over_splits([0.9]) == (-1, 1)


def test_a_cluster_without_all_its_settings_does_not_count(swept):
    write_transfer_run(swept, split=2, reached=True)
    found = clusters(
        settings_of(load_runs([swept])), STATISTICS["source_complexity"].value, STATISTICS["few_shot_5"].value
    )
    assert set(found) == {0, 1}


def test_the_interval_covers_the_true_mean_as_often_as_it_says_with_many_splits():
    """And is nan of one number."""
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(60):
        drawn = {s: {i: c + rng.normal(0, 0.1) for i in range(3)} for s, c in enumerate(rng.normal(0.3, 0.2, 12))}
        low, high = interval(drawn, 300)
        inside += low <= 0.3 <= high
    assert 50 <= inside <= 60
    assert all(math.isnan(bound) for bound in interval({0: {0: 0.5}}))


def test_the_figures_show_every_setting(swept):
    runs = load_runs([swept])
    figure, table = DRAWINGS["transfer_scatter"].draw(runs)
    assert len(table) == 40
    assert len(figure.axes) == 6
    assert "2 class splits of 2 seeds" in figure.get_suptitle()
    lr = [run for run in runs if run.config["loss"]["l2"] == 1e-4 and not run.config["loss"]["complexity"]]
    figure, table = DRAWINGS["transfer_curves"].draw(lr)
    last = table[table.end & (table.metric == "geometric_complexity")].set_index("setting")
    assert dict(last["median"]) == {f"learning rate {v:g}": c for v, c in sorted((LR | {0.05: 10.0}).items())}
    middle = table[(table.epoch == 10) & (table.metric == "geometric_complexity")].set_index("setting")["median"]
    assert middle["learning rate 0.1"] == pytest.approx(9 * (2 - 10 / 30))
    assert [axes.get_yscale() for axes in figure.axes] == ["log"] * 6
    assert "until the training loss is 0.05" in figure.get_suptitle()


def test_the_table_counts_runs_that_came_down_to_the_loss(swept):
    write_transfer_run(swept, batch=16, reached=False)
    write_transfer_run(swept, batch=16, seed=1, complexity=3.0)
    write_transfer_run(swept, batch=16, seed=2, complexity=5.0, loss=0.5)
    table, _ = DRAWINGS["transfer_table"].draw(load_runs([swept]))
    row = table.set_index("setting").loc["batch size 16"]
    assert (row.source_complexity, row.at_loss, row.seeds) == ("3.00 [3.00, 3.00]", 1, 3)
    assert (row.last_running_loss, row.last_train_loss) == ("0.040 [0.040, 0.040]", "0.040 [0.040, 0.500]")
    assert table.iloc[0].few_shot_5 == "60.1 [50.0, 70.2]"


def test_claims_are_judged_split_by_split(swept):
    for value, complexity in L2.items():  # three seeds are stated
        write_transfer_run(swept, 0, seed=2, l2=value, complexity=complexity * value**0.01, source=0.2)
    ledger = load_ledger(CONF / "paper" / "transfer" / "claims.yaml")
    found = {(j.claim.id, j.setting["dataset.class_split"]): j for j in judge(ledger, load_runs([swept]))}
    assert found["l2_complexity", 0].verdict == "holds"
    assert found["l2_complexity", 0].estimate.mean == pytest.approx(-0.2, abs=0.05)
    assert not found["l2_complexity", 0].provisional
    assert found["l2_complexity", 1].provisional == "2 of 3 seeds"
    assert found["complexity_complexity", 0].estimate.mean < -0.3
    assert found["lr_fixed_length", 2].verdict == "not enough runs"


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu_hour", "paper"])
def test_every_run_of_a_profile_builds_its_network(profile):
    shapes = {"digits": (1, 8, 8), "cifar10": (3, 32, 32)}
    plan = Plan(CONF, "transfer")
    parts = plan.resolve([], profile, seeds=[0])
    assert {part.name for part in parts} == set(plan.parts)
    built = set()
    for part in parts:
        assert part.configs
        for config in part.configs:
            if repr(config.model) not in built:
                built.add(repr(config.model))
                with torch.device("meta"):
                    MODELS[config.model.name].build(config.model, shapes.get(config.dataset.name, (1, 28, 28)), 6)
            assert config.dataset.source_classes == 6
            assert (config.stop_at_loss is None) == (part.name == "lr_fixed_length")
