"""Depth profiles and switch times: the numbers behind "the bar decides when", against values known by hand."""

import json
import math

import numpy as np
import pytest
from fake_runs import ADAPTIVE, BASELINE, judged, last, write_run

from nclab.analysis.found import load_registered
from nclab.analysis.ledger import load_ledger
from nclab.analysis.runs import AnalysisError, load_runs
from nclab.analysis.statistics import STATISTICS
from nclab.analysis.tables import readable, save_table
from nclab.analysis.verdict import FAILS, HOLDS
from nclab.interfaces.effective_depth import effective_depth
from nclab.papers.simplex_etf import depth_profile
from nclab.papers.simplex_etf.switch_times import switch_table
from nclab.papers.wings import find_wing

load_registered()


def value(name, folder):
    (run,) = load_runs([folder])
    return STATISTICS[name].value(run, run)


def with_ncc(folder, *ncc):
    """A run of five stages with these train NCC accuracies after the last epoch; other numbers before, and of test."""
    names = [f"fc{i}" for i in range(1, 6)]
    rows = [f"19,train,{name},ncc_accuracy,0.1" for name in names]
    rows += [f"20,test,{name},ncc_accuracy,0.2" for name in names]
    rows += [f"20,train,{name},ncc_accuracy,{v}" for name, v in zip(names, ncc, strict=True)]
    (folder / "metrics.csv").write_text("\n".join(["epoch,split,layer,metric,value", *rows]) + "\n")
    return folder


@pytest.mark.parametrize(
    ("ncc", "tolerance"),
    [
        ((0.7, 0.8, 0.91, 0.99, 1.0), 1.0),
        ((0.7, 0.999, 0.999, 0.999, 1.0), 0.1),
        ((0.7, 0.999, 0.93, 0.999, 0.989), 1.1),  # a stage that is worse again counts from there on
        ((0.7, 0.8, 0.9, 0.9, 0.89), 11.0),
    ],
)
def test_from_its_tolerance_on_a_stage_lies_beyond_the_effective_depth(tmp_path, ncc, tolerance):
    found = value("tolerance_for_one_layer", with_ncc(write_run(tmp_path), *ncc))
    assert found == pytest.approx(tolerance)
    for eps in np.geomspace(1e-4, 0.5, 50):
        assert (effective_depth(list(ncc), eps) < 5) == (100 * eps > found)


def test_a_run_that_was_not_measured_has_no_profile(tmp_path):
    assert math.isnan(value("tolerance_for_one_layer", write_run(tmp_path, every=0)))


@pytest.mark.parametrize(
    ("error", "verdicts"),
    [
        (0.004, (HOLDS, HOLDS, HOLDS)),
        (
            0.0115,
            (HOLDS, HOLDS, FAILS),
        ),  # at eps 0.010 no layer is beyond, at 0.012 one
        (0.03, (FAILS, HOLDS, FAILS)),
        (0.12, (FAILS, FAILS, FAILS)),
    ],
)
def test_the_claims_on_the_effective_depth_are_of_half_its_range_and_of_its_ends(tmp_path, error, verdicts):
    ledger = {one.id: one for one in load_ledger(find_wing("simplex_etf").ledger)}
    names = ("effective_depth", "effective_depth_loose", "effective_depth_strict")
    for seed in range(3):
        with_ncc(write_run(tmp_path, seed=seed), 0.7, 0.8, 0.9, 1 - error, 1.0)
    assert tuple(judged(tmp_path, ledger[name])[0].verdict for name in names) == verdicts
    at = np.geomspace(depth_profile.STRICT, depth_profile.LOOSE, 2001)  # half of the range, counted
    beyond = np.mean([effective_depth([0.7, 0.8, 0.9, 1 - error, 1.0], eps) < 5 for eps in at])
    assert (beyond >= 0.5) == (verdicts[0] == HOLDS)


# ---- when layers become fixed

CLOCK = ADAPTIVE | {"start": 6, "patience": 5, "pause": 1, "order": "deepest_first", "maps": "all"}


@pytest.mark.parametrize(
    ("keys", "every", "fix", "delay", "kept"),
    [
        ({}, 1, [(6, "fc5"), (7, "fc4"), (8, "fc3"), (9, "fc2")], 0, 0),  # the clock alone
        ({}, 1, [(6, "fc5"), (7, "fc4")], 0, 2),  # when by the clock, how many by the bar
        ({}, 1, [(6, "fc5"), (9, "fc4")], 2, 2),
        ({}, 1, [(9, "fc5")], 3, 3),
        ({}, 1, [], 14, 4),
        ({"start": 1}, 1, [(5, "fc5")], 0, 3),  # patience allows none before
        ({}, 2, [(6, "fc5"), (8, "fc4"), (10, "fc3")], 0, 1),  # measured every second epoch
        ({"pause": 3}, 2, [(6, "fc5"), (10, "fc4")], 0, 2),
        ({"order": "at_once"}, 1, [(6, "fc4"), (6, "fc5")], 0, 2),
        ({"order": "at_once"}, 1, [(6, "fc5"), (12, "fc4")], 6, 2),
        ({"maps": "hidden"}, 1, [(6, "fc4")], 0, 2),
        ({"start": 18}, 1, [(18, "fc5"), (19, "fc4")], 0, 0),  # no epoch is left for more
    ],
)
def test_delay_behind_the_clock_and_layers_kept(tmp_path, keys, every, fix, delay, kept):
    folder = write_run(tmp_path, CLOCK | keys, every=every, fix=fix)
    assert value("switch_delay", folder) == delay
    assert value("layers_kept_learnable", folder) == kept


def test_other_policies_have_no_delay(tmp_path):
    folder = write_run(tmp_path, BASELINE)
    assert math.isnan(value("switch_delay", folder))
    assert math.isnan(value("layers_kept_learnable", folder))
    unmeasured = write_run(tmp_path, CLOCK, every=0)
    assert math.isnan(value("switch_delay", unmeasured))


def test_the_shipped_claim_tells_the_clock_from_the_bar(tmp_path):
    ledger = {one.id: one for one in load_ledger(find_wing("simplex_etf").ledger)}
    decides = ledger["bar_decides_when"]
    for seed in range(3):
        write_run(tmp_path, CLOCK | {"threshold": 0.9}, seed, fix=[(6, "fc5"), (7, "fc4")])
        write_run(tmp_path, CLOCK | {"threshold": 0.99}, seed, fix=[(8 + seed, "fc5")])
        write_run(tmp_path, CLOCK | {"threshold": 0.98}, seed, fix=[(6 + seed, "fc5")])
    found = {j.run.settings["etf.threshold"]: (j.verdict, j.estimate.values) for j in judged(tmp_path, decides)}
    assert {key: verdict for key, (verdict, _) in found.items()} == {0.9: FAILS, 0.99: HOLDS, 0.98: FAILS}
    assert sorted(found[0.98][1]) == [0, 1, 2]


def test_the_ledger_knows_them_all(tmp_path):
    names = ("tolerance_for_one_layer", "switch_delay", "layers_kept_learnable")
    file = tmp_path / "claims.yaml"
    for name in names:
        entry = {"id": "c", "claim": "c", "source": "s", "runs": {"etf.name": "adaptive"}, "statistic": name}
        entry |= {"kind": "every_seed_at_least", "threshold": f"1 {STATISTICS[name].unit}", "commands": ["x"]}
        file.write_text(json.dumps([entry]))
        assert load_ledger(file).claims[0].statistic.description


# ---- drawings


def test_the_figure_shows_the_depth_over_the_tolerance(tmp_path):
    at_end = {0: (0.7, 0.8, 0.93, 0.989, 0.991), 1: (0.7, 0.8, 0.93, 0.97, 0.991)}
    for seed, ncc in at_end.items():
        with_ncc(write_run(tmp_path, seed=seed), *ncc)
        write_run(tmp_path, last(1), seed)
    figure, table = depth_profile.depth_profile(load_runs([tmp_path]))
    assert list(table.policy.unique()) == ["baseline", "last 1 ETF"]
    baseline = table[table.policy == "baseline"].set_index("eps")

    def near(eps):
        return baseline.loc[baseline.index[np.abs(np.log(baseline.index / eps)).argmin()]]

    # 0.002: none of both, stage 6 of 5; 0.02: stages 4 and 5; 0.05: both 4; 0.08: both 3; 0.4: both 1
    for eps, mean, std, none in (
        (0.002, 6, 0, 1),
        (0.02, 4.5, 0.5**0.5, 0),
        (0.05, 4, 0, 0),
        (0.08, 3, 0, 0),
        (0.4, 1, 0, 0),
    ):
        assert tuple(near(eps)[["mean", "std", "n", "share_without"]]) == pytest.approx((mean, std, 2, none))
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "2", "3", "4", "5", "none"]
    line = axes.lines[0]
    assert np.array_equal(line.get_ydata(), baseline["mean"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "baseline",
        "last 1 ETF",
        "range of the claims",
    ]
    shown = depth_profile.at_tolerances(table)
    assert shown.iloc[0]["eps 0.02"] == "4.5 ± 0.7"


def test_runs_that_make_no_profile_are_refused(tmp_path):
    write_run(tmp_path / "a", every=0)
    with pytest.raises(AnalysisError, match="no train ncc_accuracy at epoch 20"):
        depth_profile.depth_profile(load_runs([tmp_path / "a"]))
    for k in range(1, 5):
        for kind in ("etf", "frozen"):
            write_run(tmp_path / "b", last(k, kind=kind))
    runs = load_runs([tmp_path / "b"])
    policies = list(dict.fromkeys(run.policy for run in runs))
    with pytest.raises(AnalysisError, match="draws up to 7 policies, got 8; name some"):
        depth_profile.depth_profile(runs, policies)


def events(folder, *more):
    with (folder / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in more)


def test_the_table_of_switches_has_the_accuracies_around_them(tmp_path):
    for seed in range(2):
        folder = write_run(tmp_path, ADAPTIVE, seed)
        for layer, epoch in (("fc5", 6 + seed), ("fc4", 9)):
            scores = {"train_accuracy_before": 0.9, "train_accuracy_after": 0.5 + 0.2 * seed}
            scores |= {f"{name}_refreshed": value + 0.01 for name, value in scores.items()}
            test = {name.replace("train", "test"): value - 0.1 for name, value in scores.items()}
            events(folder, {"event": "switch", "epoch": epoch, "site": layer, "layer": layer} | scores | test)
            if layer == "fc5":
                events(folder, {"event": "switch_settled", "epoch": epoch + 1, "site": "fc5", "train_accuracy": 0.88})
    write_run(tmp_path, BASELINE)
    write_run(tmp_path, last(2))  # fixed before training: nothing switched
    table, about = switch_table(load_runs([tmp_path]))
    assert about is None
    assert table[["policy", "layer", "split"]].to_numpy().tolist() == [
        ["Adaptive-ETF", layer, split] for layer in ("fc5", "fc4") for split in ("train", "test")
    ]
    first = table.iloc[0]
    assert tuple(first[["seeds", "first_epoch", "last_epoch"]]) == (2, 6, 7)
    assert first[["before", "after", "before_refreshed", "after_refreshed", "epoch_later"]].tolist() == pytest.approx(
        [0.9, 0.6, 0.91, 0.61, 0.88]
    )
    assert first["after_std"] == pytest.approx(0.2 / 2**0.5)
    assert table.iloc[1]["after"] == pytest.approx(0.5)
    assert math.isnan(table.iloc[2]["epoch_later"])
    text = readable(table)
    assert text.iloc[0]["after %"] == "60.00 ± 14.14"
    assert text.iloc[2]["epoch later %"] == "-"
    assert list(text)[:6] == ["policy", "layer", "split", "seeds", "first_epoch", "last_epoch"]
    paths = save_table(table, tmp_path / "switches")
    assert [path.suffix for path in paths] == [".csv", ".md"]


def test_rows_of_switches_are_apart_where_the_runs_differ(tmp_path):
    for threshold in (0.99, 0.9):
        write_run(tmp_path, ADAPTIVE | {"threshold": threshold}, fix=[(6, "fc5")])
    table, _ = switch_table(load_runs([tmp_path]))
    assert table["etf.threshold"].tolist() == ["0.9", "0.9", "0.99", "0.99"]
    with pytest.raises(AnalysisError, match="in none of 1 runs a layer became fixed while training"):
        switch_table(load_runs([write_run(tmp_path / "c", last(1))]))
