"""From runs to curves: means over seeds, and when layers were fixed."""

import numpy as np
import pytest
from fake_runs import ADAPTIVE, FFN, last, vit, write_experiment, write_run, write_transformers

from nclab.analysis import AnalysisError, brief, curves, fixed_since, load_runs, switches, text_table


@pytest.fixture
def experiment(tmp_path):
    return write_experiment(tmp_path)


def values_by_hand(runs, split, layer, metric, epoch):
    lines = [line.split(",") for run in runs for line in (run.path / "metrics.csv").read_text().splitlines()]
    return np.array([float(v) for e, *key, v in lines if e == str(epoch) and key == [split, layer, metric]])


@pytest.mark.fast
def test_curves_are_mean_and_sample_deviation_over_seeds(experiment):
    runs = load_runs([experiment])
    table = curves(runs)
    assert list(table) == ["policy", "split", "layer", "epoch", "mean", "std", "n"]
    assert list(table.layer.unique()) == ["fc1", "fc2", "fc3", "fc4", "fc5", "network"]
    assert len(table) == 5 * 2 * 6 * 21
    assert (table.n == 3).all()
    for policy, split, layer, metric, epoch in (
        ("baseline", "train", "fc2", "ncc_accuracy", 0),
        ("last 3 ETF", "test", "fc5", "ncc_accuracy", 20),
        ("Adaptive-ETF", "test", "network", "accuracy", 13),
    ):
        by_hand = values_by_hand([run for run in runs if run.policy == policy], split, layer, metric, epoch)
        row = table.query("policy == @policy and split == @split and layer == @layer and epoch == @epoch")
        assert len(by_hand) == 3
        np.testing.assert_allclose(row[["mean", "std"]].values[0], [by_hand.mean(), by_hand.std(ddof=1)])


def test_curves_of_one_seed_have_no_deviation_and_of_activations_the_same_layers(tmp_path):
    write_run(tmp_path, ADAPTIVE, probe="activation", fix=[(5, "fc4")])
    runs = load_runs([tmp_path])
    table = curves(runs)
    assert list(table.layer.unique()) == ["act1", "act2", "act3", "act4", "fc5", "network"]
    assert table["std"].isna().all()
    assert switches(runs).to_dict("records") == [
        {"policy": "Adaptive-ETF", "seed": 0, "site": "fc4", "layer": "act4", "stage": "act4", "epoch": 5}
    ]
    assert "±" not in text_table(brief(table))


def test_curves_run_forward_in_time_whatever_epochs_were_measured(tmp_path):
    write_run(tmp_path, every=3, epochs=30)
    write_run(tmp_path, last(1), every=3, epochs=30)
    for _, curve in curves(load_runs([tmp_path])).groupby(["policy", "split", "layer"]):
        assert list(curve.epoch) == list(range(0, 31, 3))


def test_undefined_measurements_do_not_count(tmp_path):
    write_run(tmp_path)
    file = write_run(tmp_path, seed=1) / "metrics.csv"
    kept = [line for line in file.read_text().splitlines() if not line.startswith("3,test,fc1,ncc")]
    file.write_text("\n".join([*kept, "3,test,fc1,ncc_accuracy,nan"]) + "\n")
    row = curves(load_runs([tmp_path])).query("split == 'test' and layer == 'fc1' and epoch == 3")
    assert row.n.item() == 1


def test_a_layer_counts_as_fixed_once_every_seed_has_fixed_it(experiment):
    runs = load_runs([experiment])
    switched, fixed = switches(runs), fixed_since(runs)
    assert sorted(switched.query("policy == 'Adaptive-ETF' and layer == 'fc4'").epoch) == [9, 10, 11]
    assert fixed["Adaptive-ETF", "fc4"] == 11
    assert ("Adaptive-ETF", "fc3") not in fixed  # two of three seeds
    assert fixed["last 2 ETF", "fc4"] == 0
    assert ("last 2 ETF", "fc3") not in fixed


def test_a_run_without_layers_says_so(tmp_path):
    file = write_run(tmp_path) / "metrics.csv"
    file.write_text("epoch,split,layer,metric,value\n20,train,network,accuracy,0.9\n20,test,network,accuracy,0.8\n")
    with pytest.raises(AnalysisError, match=r"metrics\.csv: no ncc_accuracy of fc1, .*; metrics\.every=0"):
        curves(load_runs([tmp_path]))
    assert list(curves(load_runs([tmp_path]), layers=[])["mean"]) == [0.9, 0.8]


def test_a_run_without_the_accuracy_of_a_split_says_so(tmp_path):
    file = write_run(tmp_path) / "metrics.csv"
    kept = [line for line in file.read_text().splitlines() if "test,network" not in line]
    file.write_text("\n".join(kept))
    with pytest.raises(AnalysisError, match=r"metrics\.csv: no test accuracy of the network"):
        curves(load_runs([tmp_path]))


def test_curves_of_a_transformer_are_its_stages_or_the_layers_asked_for(tmp_path):
    runs = load_runs([write_transformers(tmp_path, depths=(2,))])
    assert list(curves(runs).layer.unique()) == ["block1", "block2", "head", "network"]
    table = curves(runs, ["block2.ffn_out", "block1.attn"])
    assert list(table.layer.unique()) == ["block2.ffn_out", "block1.attn", "network"]
    run = [run for run in runs if run.policy == "FFN-ETF"]
    by_hand = values_by_hand(run, "test", "block2.ffn_out", "ncc_accuracy", 9)
    row = table.query("policy == 'FFN-ETF' and split == 'test' and layer == 'block2.ffn_out' and epoch == 9")
    np.testing.assert_allclose(row[["mean", "std"]].values[0], [by_hand.mean(), by_hand.std(ddof=1)])


def test_a_block_is_fixed_once_both_its_maps_are(tmp_path):
    fix = [(5, "head"), (7, "block2.ffn_out"), (9, "block2.ffn_in"), (9, "block1.ffn_out")]
    write_run(tmp_path, ADAPTIVE, model=vit(2), fix=fix)
    write_run(tmp_path, FFN | {"blocks": "last1"}, model=vit(2))
    write_run(tmp_path, model=vit(2, ratio=0.0))
    runs = load_runs([tmp_path])
    assert fixed_since(runs) == {
        ("Adaptive-ETF", "block1.ffn_out"): 9,
        ("Adaptive-ETF", "block2.ffn_in"): 9,
        ("Adaptive-ETF", "block2.ffn_out"): 7,
        ("Adaptive-ETF", "block2"): 9,
        ("Adaptive-ETF", "head"): 5,
        ("FFN-ETF last 1", "block2.ffn_in"): 0,
        ("FFN-ETF last 1", "block2.ffn_out"): 0,
        ("FFN-ETF last 1", "block2"): 0,
    }
    switched = switches(runs).query("policy == 'Adaptive-ETF'")
    assert list(switched.stage) == ["head", "block2", "block2", "block1"]
    assert list(switched.layer) == list(switched.site) == [site for _, site in fix]


def test_a_switch_without_its_layer_is_named(tmp_path):
    file = write_run(tmp_path, last(1)) / "events.jsonl"
    file.write_text(file.read_text().replace('"layer": "fc5", "parameters_freed"', '"parameters_freed"'))
    with pytest.raises(AnalysisError, match=r"events\.jsonl: a switch without layer$"):
        switches(load_runs([tmp_path]))


def test_brief_shows_the_last_epoch_as_rows_of_policies_or_of_layers(tmp_path):
    write_run(tmp_path)
    table = curves(load_runs([tmp_path]))
    wide, tall = brief(table), brief(table, across="split")
    assert list(wide) == ["policy", "split", "epoch", "fc1", "fc2", "fc3", "fc4", "fc5", "network"]
    assert list(tall) == ["policy", "layer", "epoch", "train", "test"]
    assert tall.train[0] == wide.fc1[0] == f"{table.query('epoch == 20')['mean'].iloc[0]:.3f}"
    assert list(brief(table.assign(blocks=2)))[:3] == ["blocks", "policy", "split"]
