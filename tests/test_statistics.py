"""The numbers that claims are about, each against a value known from the files of the run."""

import json
import math

import numpy as np
import pytest
from fake_depth_runs import T11, write_depth_run
from fake_runs import FFN, edit, last, set_ncc, vit, write_run

from nclab.analysis.runs import load_runs
from nclab.analysis.statistics import STATISTICS, images, layers_before_etf


def value(name, folder, treated=None):
    run = load_runs([folder])[0]
    return STATISTICS[name].value(run, load_runs([treated])[0] if treated else run)


def test_accuracies_and_shares_are_percent(tmp_path):
    folder = edit(write_run(tmp_path), test=0.881, train=0.99, parameters_learnable=798410, parameters_total=802410)
    assert value("test_accuracy", folder) == pytest.approx(88.1)
    assert value("train_accuracy", folder) == pytest.approx(99.0)
    assert value("saved_share", folder) == pytest.approx(0.4985, abs=1e-4)


@pytest.mark.parametrize(
    ("ncc", "drop", "rise"),
    [
        ((0.7, 0.8, 0.95, 0.96, 0.99), 0.0, 29.0),
        ((0.7, 0.8, 0.95, 0.95, 0.9), 5.0, 20.0),
        ((0.7, 0.95, 0.9, 0.94, 0.8), 15.0, 10.0),  # from the best stage before, not from the neighbour
        ((0.97, 1, 1, 1, 1), 0.0, 3.0),
        ((0.9, 0.9999, 1.0, 0.9999, 0.9998), 0.02, 9.98),
        ((1, 1, 1, 1, 1), 0.0, math.nan),
        ((0.995, 1, 1, 1, 0.9), 10.0, math.nan),  # no room to rise
        ((0.9, 0.8, 0.7, 0.6, 0.5), 40.0, -40.0),
    ],
)
def test_fall_and_rise_over_the_maps_of_an_mlp(tmp_path, ncc, drop, rise):
    folder = write_run(tmp_path)
    at_end = dict(zip(("fc1", "fc2", "fc3", "fc4", "fc5"), ncc, strict=True)) | {"act4": 0.1}  # no stage
    set_ncc(folder, {19: dict.fromkeys(at_end, 0.5), 20: at_end})
    assert value("ncc_drop", folder) == pytest.approx(drop)
    assert value("ncc_rise", folder) == pytest.approx(rise, nan_ok=True)


def test_fall_and_rise_over_the_blocks_of_a_transformer(tmp_path):
    folder = write_run(tmp_path, model=vit(3))
    at_end = {"block1": 0.7, "block1.ffn_out": 0.99, "block2": 0.9, "block3": 0.88, "norm": 0.2, "head": 0.1}
    set_ncc(folder, {20: at_end})  # neither what is inside a block counts nor the head
    assert value("ncc_drop", folder) == pytest.approx(2.0)
    assert value("ncc_rise", folder) == pytest.approx(18.0)


def test_fall_and_rise_need_the_last_epoch(tmp_path):
    folder = set_ncc(write_run(tmp_path), {19: {f"fc{i}": 0.1 * i for i in range(1, 6)}})
    assert math.isnan(value("ncc_drop", folder))
    assert math.isnan(value("ncc_rise", folder))
    assert math.isnan(value("ncc_drop", write_run(tmp_path, every=0)))


def test_layers_beyond_the_effective_depth(tmp_path):
    mlp, transformer = write_run(tmp_path), write_run(tmp_path, model=vit(3))
    assert value("layers_beyond_effective_depth", edit(mlp, effective_depth=4)) == 1
    assert value("layers_beyond_effective_depth", edit(mlp, effective_depth=5)) == 0
    assert value("layers_beyond_effective_depth", edit(mlp, effective_depth=None)) == 0
    assert value("layers_beyond_effective_depth", edit(transformer, effective_depth=2)) == 2  # of block1..3, head
    unmeasured = edit(write_run(tmp_path, every=0), effective_depth=None)
    assert math.isnan(value("layers_beyond_effective_depth", unmeasured))


def test_layers_before_the_etfs(tmp_path):
    first = [layers_before_etf(load_runs([write_run(tmp_path, last(k))])[0]) for k in (1, 3, 5)]
    assert first == [["fc1", "fc2", "fc3", "fc4"], ["fc1", "fc2"], []]
    blocks = write_run(tmp_path, FFN | {"blocks": "last1"}, model=vit(3))
    assert layers_before_etf(load_runs([blocks])[0]) == ["block1", "block2"]
    assert layers_before_etf(load_runs([write_run(tmp_path)])[0]) == []


def test_ncc_before_the_etfs_is_that_of_the_treated_runs_layers(tmp_path):
    treated, baseline = write_run(tmp_path, last(3)), write_run(tmp_path)
    for folder, shift in ((treated, 0.0), (baseline, 0.1)):
        curve = {e: {"fc1": 0.01 * e + shift, "fc2": 0.02 * e + shift, "fc3": 0.9} for e in range(21)}
        set_ncc(folder, curve)
    assert value("ncc_before_etf", treated) == pytest.approx(40.0)  # fc2 at epoch 20
    assert value("ncc_before_etf", baseline, treated) == pytest.approx(50.0)
    assert value("early_ncc", treated) == pytest.approx(100 * 0.015 * 3)  # epochs 1 to 5, fc1 and fc2
    assert value("early_ncc", baseline, treated) == pytest.approx(100 * (0.015 * 3 + 0.1))
    everything = write_run(tmp_path, last(5))
    assert math.isnan(value("early_ncc", everything))
    assert math.isnan(value("ncc_before_etf", everything))
    assert math.isnan(value("early_ncc", set_ncc(treated, {0: {"fc1": 0.1, "fc2": 0.1}, 20: {"fc1": 1, "fc2": 1}})))


def test_collapse_of_the_last_layer(tmp_path):
    end = {"nc1_trace_ratio": 0.2, "nc2_weight_gram": 0.1, "nc2_weight_orthogonal": 0.35, "nc3_cosine": 0.05}
    for model in (T11, T11 | {"norm": "pre"}):
        folder = write_depth_run(tmp_path, 3, end=end, model=model)
        assert value("nc1_trace_ratio_last", folder) == pytest.approx(0.2)
        assert value("nc2_weight_gram_last", folder) == pytest.approx(0.1)
        assert value("nc2_weight_orthogonal_last", folder) == pytest.approx(0.35)
        assert value("nc3_cosine_last", folder) == pytest.approx(0.05)
        assert value("nc2_weight_gram_minus_orthogonal", folder) == pytest.approx(-0.25)
    file = folder / "metrics.csv"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith("100,")))  # the last epoch was not measured
    assert math.isnan(value("nc1_trace_ratio_last", folder))
    assert math.isnan(
        value("nc2_weight_gram_minus_orthogonal", write_depth_run(tmp_path, 2, lacking=("nc2_weight_gram",)))
    )


def test_the_objective_is_loss_and_penalty_over_the_last_tenth(tmp_path):
    for seed, change in enumerate((0.04, -0.08)):
        folder = write_depth_run(tmp_path, 3, seed, change=change)
        assert value("objective_change", folder) == pytest.approx(100 * abs(change))
    lines = ["epoch,split,layer,metric,value"]
    for epoch, loss, penalty in ((0, 9, 9), (1, 3, 1), (90, 0.8, 0.4), (91, 7, 7), (100, 0.5, 0.5)):
        lines += [f"{epoch},train,network,loss,{loss}", f"{epoch},train,network,l2_penalty,{penalty}"]
        lines += [f"{epoch},test,network,loss,70", f"{epoch},train,block3,loss,70"]

    def measured(without=()):
        kept = [line for line in lines if not any(text in line for text in without)]
        (folder / "metrics.csv").write_text("\n".join(kept) + "\n")
        return value("objective_change", folder)

    assert measured() == pytest.approx(20)
    assert measured(["l2_penalty"]) == pytest.approx(60)  # a run without a penalty has none
    assert measured(["90,"]) == pytest.approx(300)  # since epoch 1, not since the start
    assert math.isnan(measured(["90,", "1,train"]))
    assert math.isnan(measured(["100,"]))
    assert math.isnan(measured([",loss,"]))
    assert math.isnan(measured(["train"]))


def test_the_two_targets_are_as_far_apart_as_is_said():
    gram, frame = (np.eye(10) - 0.1) / 3, np.eye(10) / math.sqrt(10)
    assert np.linalg.norm(gram) == pytest.approx(1)
    assert np.linalg.norm(gram - frame) == pytest.approx(math.sqrt(2 - 2 * math.sqrt(0.9)))
    assert "0.32 for 10 classes" in STATISTICS["nc2_weight_gram_minus_orthogonal"].value.__doc__
    assert round(float(np.linalg.norm(gram - frame)), 2) == 0.32


def test_every_statistic_says_what_it_is():
    for statistic in STATISTICS.values():
        assert statistic.description
        assert statistic.unit
        assert not statistic.by_errors or statistic.split, statistic.name  # its images say what they can tell
    by_errors = [one.name for one in STATISTICS.values() if one.by_errors]
    assert [name for name in by_errors if "_with_" not in name] == ["test_accuracy", "train_accuracy"]


# How many images a split has


def test_accuracies_say_how_many_images_there_are(tmp_path):
    one, two = (edit(write_run(tmp_path, seed=seed), test=count / 360) for seed, count in ((0, 331), (1, 340)))
    runs = load_runs([tmp_path])
    assert images(runs, "test") == 360
    edit(one, test=340 / 360)
    assert images(load_runs([tmp_path]), "test") == 18  # a divisor: the resolution is not overrated
    edit(one, test=1.0), edit(two, test=0.0)
    assert images(load_runs([tmp_path]), "test") is None
    edit(one, test=math.pi / 4)  # no count of images
    assert images(load_runs([tmp_path]), "test") is None
    (two / "summary.json").unlink()
    edit(one, test=9051 / 10000)
    assert images(load_runs([tmp_path]), "test") == 10000


def test_ncc_accuracies_and_the_configuration_count_as_well(tmp_path):
    folder = edit(write_run(tmp_path), test=1.0)
    summary = json.loads((folder / "summary.json").read_text())
    summary["final"]["test"]["ncc_accuracy"] = {"fc1": 300 / 359, "fc2": 1.0}
    (folder / "summary.json").write_text(json.dumps(summary))
    assert images(load_runs([folder]), "test") == 359
    cut = write_run(tmp_path, dataset={"name": "digits", "test_size": 100, "train_size": None})
    assert images(load_runs([cut]), "test") == 100
