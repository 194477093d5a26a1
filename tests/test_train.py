"""Whole runs on a few digits: what they write and how often."""

import json
import math
import shutil

import pytest
import torch
from run_folders import ADAPTIVE, FROZEN, assert_same_run, events, flat, rows

from nclab.data import load_dataset
from nclab.models.mlp import MLP
from nclab.run.execute import train
from nclab.run.trained import load_trained
from nclab.training.evaluate import refreshed
from nclab.training.passes import Pass


@pytest.mark.fast
def test_a_run_folder_holds_what_it_promises(tiny):
    folder = train(tiny("metrics.every=2"))
    checkpoints = {"checkpoint.pt", "checkpoint.previous.pt"}
    files = {"config.yaml", "metrics.csv", "events.jsonl", "summary.json", *checkpoints, "DONE", ".lock"}
    assert {p.name for p in folder.iterdir()} == files
    logged = rows(folder)
    assert sorted({r[0] for r in logged}) == [0, 2, 4, 6]
    for split in ("train", "test"):
        assert list(dict.fromkeys(r[2] for r in logged if r[1] == split)) == [
            "fc1",
            "fc2",
            "fc3",
            "act3",
            "fc4",
            "network",
        ]
    per_layer = {r[3] for r in logged if r[2] == "act3"}
    assert {
        "nc1",
        "cdnv",
        "nc2_gram",
        "nc2_weight_gram",
        "nc3",
        "nc3_gram",
        "nc4_mismatch",
        "ncc_accuracy",
        "rank",
    } < per_layer
    assert {r[3] for r in logged if r[2] == "network" and r[1] == "train"} == {
        *("loss", "accuracy", "running_loss", "learning_rate", "learnable_parameters", "optimizer_bytes"),
        *("effective_depth", "effective_depth_first"),
    }
    aligned = {r[2] for r in logged if r[3] == "subspace_alignment"}
    assert aligned == {"fc1", "fc2", "fc3"}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["run"] == folder.name
    final = {(s, m): v for e, s, layer, m, v in logged if e == 6 and layer == "network"}
    assert summary["final"]["test"]["accuracy"] == final["test", "accuracy"]
    assert summary["parameters_learnable"] == summary["parameters_total"] == final["train", "learnable_parameters"]
    assert summary["memory"]["optimizer_bytes"] == 4 * summary["parameters_learnable"]
    assert {"commit", "versions", "hardware", "seed", "wall_seconds"} < set(summary)
    assert [e["event"] for e in events(folder)] == ["start", *["epoch"] * 6, "done"]


def test_logged_numbers_are_those_of_the_saved_network(tiny):
    """An independent look: rebuild the network from the checkpoint and recount accuracy and NCC with plain numpy."""
    config = tiny("etf=last_k", "etf.k=2")
    folder = train(config)
    model, data, loaded = load_trained(folder)
    assert loaded.identity() == config.identity()
    with torch.no_grad():
        (train_logits, train_features), (logits, features) = (
            model(data.inputs(s.samples)) for s in data.splits.values()
        )
    final = {(s, layer, m): v for e, s, layer, m, v in rows(folder) if e == 6}
    assert (
        final["test", "network", "accuracy"] == (logits.argmax(1) == data.splits["test"].targets).double().mean().item()
    )
    h, y = train_features["fc2"].double(), data.train.targets
    means = torch.stack([h[y == c].mean(0) for c in range(10)])
    for split, x, labels in (("train", h, y), ("test", features["fc2"].double(), data.splits["test"].targets)):
        ncc = (torch.cdist(x, means).argmin(1) == labels).double().mean().item()
        assert final[split, "fc2", "ncc_accuracy"] == ncc
    loss = torch.nn.functional.cross_entropy(train_logits.double(), y).item()
    assert final["train", "network", "loss"] == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize(
    "policy", [(), ("etf=last_k", "etf.k=2"), ("etf=last_k", "etf.kind=frozen", "etf.k=2"), ADAPTIVE]
)
def test_two_feature_passes_give_the_numbers_of_one(tiny, tmp_path, policy):
    kept = train(tiny(*policy, "metrics.batch_size=64", root=tmp_path / "kept"))
    again = train(tiny(*policy, "metrics.batch_size=64", "metrics.memory_gib=0", root=tmp_path / "again"))
    assert_same_run(kept, again)


def test_probe_activation_measures_behind_the_activation(tiny):
    folder = train(tiny("metrics.probe=activation"))
    assert list(dict.fromkeys(r[2] for r in rows(folder))) == ["act1", "act2", "act3", "fc4", "network"]
    assert {r[2] for r in rows(folder) if r[3] == "subspace_alignment"} == {"act1", "act2", "act3"}


def test_without_measuring_only_the_end_is_evaluated(tiny):
    folder = train(tiny("metrics.every=0"))
    assert {(r[0], r[2]) for r in rows(folder)} == {(6, "network")}
    assert json.loads((folder / "summary.json").read_text())["final"]["effective_depth"] is None


def test_adaptive_run_records_its_switches(tiny):
    folder = train(tiny(*ADAPTIVE, "epochs=8"))
    switches = events(folder, "switch")
    assert [s["site"] for s in switches] == ["fc4", "fc3", "fc2"]
    assert [s["epoch"] for s in switches] == [2, 3, 4]
    for s, settled in zip(switches, events(folder, "switch_settled"), strict=True):
        assert (settled["site"], settled["epoch"]) == (s["site"], s["epoch"] + 1)
        assert s["frame"] == "nearest"
        logged = {r[0]: r[4] for r in rows(folder) if r[1:4] == ("train", "network", "accuracy")}
        assert s["train_accuracy_before"] == logged[s["epoch"]]
        assert 0 <= s["train_accuracy_after"] <= 1
        assert settled["train_accuracy"] == logged[s["epoch"] + 1]
        assert {f"test_accuracy_{when}" for when in ("before", "after", "before_refreshed", "after_refreshed")} < set(s)
    learnable = {r[0]: r[4] for r in rows(folder) if r[3] == "learnable_parameters"}
    assert learnable[8] == learnable[2] - sum(s["parameters_freed"] for s in switches)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["parameters_learnable"] == learnable[8]
    assert summary["parameters_total"] == learnable[0]
    aligned = {r[2]: r[4] for r in rows(folder) if r[3] == "subspace_alignment" and r[0] == 8}
    assert list(aligned) == ["fc1", "fc2", "fc3"]
    assert [layer for layer, value in aligned.items() if not math.isnan(value)] == ["fc1"]


def test_freezing_the_current_weights_changes_no_accuracy(tiny):
    switches = events(train(tiny(*FROZEN)), "switch")
    assert switches
    for s in switches:
        for split in ("train", "test"):
            assert s[f"{split}_accuracy_after"] == s[f"{split}_accuracy_before"]
            assert s[f"{split}_accuracy_after_refreshed"] == s[f"{split}_accuracy_before_refreshed"]


def test_refreshed_norms_are_those_of_the_train_split(tiny):
    data = load_dataset(tiny().dataset, ".")
    torch.manual_seed(0)
    model = MLP(64, 10, 3, 16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fresh = refreshed(model, data, batch_size=199)
    assert flat(model.state_dict()) == flat(before)
    h = model.fc1(data.inputs(data.train.samples[:199]).flatten(1))
    torch.testing.assert_close(fresh.norm1.running_mean, h.mean(0))
    torch.testing.assert_close(fresh.norm1.running_var, h.var(0))
    assert fresh.training == model.training


@pytest.mark.fast
def test_finished_runs_are_skipped_and_overwrite_starts_again(tiny, capsys):
    folder = train(tiny())
    stamp = (folder / "summary.json").stat().st_mtime_ns
    train(tiny())
    assert "already finished" in capsys.readouterr().out
    assert (folder / "summary.json").stat().st_mtime_ns == stamp
    first = (folder / "metrics.csv").read_bytes()
    (folder / "checkpoint.pt.part").touch()
    train(tiny("overwrite=true"))
    assert (folder / "summary.json").stat().st_mtime_ns > stamp
    assert (folder / "metrics.csv").read_bytes() == first
    assert not (folder / "checkpoint.pt.part").exists()


def test_single_leftover_sample_is_skipped(tiny):
    train(tiny("batch_size=199"))  # 200 = 199 + 1: batch norm has no variance over one sample


VIT = ("model=vit", "optimizer=adamw", "optimizer.lr=0.003")


def test_a_vit_run_logs_every_feed_forward_map(tiny):
    folder = train(tiny(*VIT, "etf=transformer_ffn", "etf.blocks=last1"))
    blocks = [f"block{b}{part}" for b in (1, 2) for part in (".attn", ".ffn_in", ".ffn_out", "")]
    layers = [*blocks, "norm", "head", "network"]
    assert list(dict.fromkeys(r[2] for r in rows(folder))) == layers
    assert {r[2] for r in rows(folder) if r[3] == "ncc_accuracy"} == {*layers} - {"network"}
    (start,) = events(folder, "start")
    assert [layer["layer"] for layer in start["layers"]] == layers[:-1]
    assert [layer["layer"] for layer in start["layers"] if layer["stage"] is not None] == ["block1", "block2", "head"]
    assert [(s["site"], s["layer"], s["epoch"]) for s in events(folder, "switch")] == [
        ("block2.ffn_in", "block2.ffn_in", 0),
        ("block2.ffn_out", "block2.ffn_out", 0),
    ]
    aligned = {r[2]: r[4] for r in rows(folder) if r[3] == "subspace_alignment" and r[0] == 6}
    assert [layer for layer, value in aligned.items() if not math.isnan(value)] == ["block1.ffn_in", "block1.ffn_out"]
    assert all(0 <= r[4] <= 1 for r in rows(folder) if r[3] == "ncc_accuracy")


def test_a_vit_measured_behind_the_activation_and_adaptive(tiny):
    folder = train(tiny(*VIT, "etf=adaptive", *ADAPTIVE[1:-1], "etf.threshold=0.01", "metrics.probe=activation"))
    assert "block1.act" in {r[2] for r in rows(folder)}
    assert [(s["site"], s["layer"], s["epoch"]) for s in events(folder, "switch")] == [
        ("head", "head", 2),
        ("block2.ffn_in", "block2.act", 3),
        ("block2.ffn_out", "block2.ffn_out", 3),
    ]
    assert [s["site"] for s in events(folder, "switch_settled")] == ["head", "block2.ffn_in", "block2.ffn_out"]


def test_bf16_is_of_the_training_steps_alone(tiny):
    """The logged numbers are those of the float32 network with the trained weights, which themselves differ."""
    folder = train(tiny(*VIT, "precision=bf16"))
    model, data, _ = load_trained(folder)
    weights = [p.detach() for p in model.parameters()]
    assert all(w.dtype == torch.float32 for w in weights)
    with torch.no_grad():
        logits, _ = model(data.inputs(data.train.samples))
    loss = next(r[4] for r in rows(folder) if r[:4] == (6, "train", "network", "loss"))
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, data.train.targets).item(), rel=1e-6)
    plain = train(tiny(*VIT))
    assert plain.name != folder.name
    at = (6, "train", "network", "running_loss")
    losses = [next(r[4] for r in rows(f) if r[:4] == at) for f in (folder, plain)]
    assert 1e-6 < abs(losses[0] / losses[1] - 1) < 0.02


def test_autocast_and_tf32_never_reach_an_evaluation(tiny):
    """Whatever is set outside: features and logits of a pass are float32 and equal those of a plain pass."""
    config = tiny()
    data = load_dataset(config.dataset, ".")
    torch.manual_seed(0)
    model = MLP(64, 10, 3, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = [features for features, *_ in Pass(model, data, data.splits["test"], 50)]
    for a, (b, *_) in zip(inside, Pass(model, data, data.splits["test"], 50), strict=True):
        assert all(a[name].dtype == torch.float32 and torch.equal(a[name], b[name]) for name in b)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_training_steps_give_the_same_training(tiny, tmp_path):
    keys = ("model.depth=2", "model.width=10", "epochs=4", *ADAPTIVE)
    plain = train(tiny(*keys, root=tmp_path / "plain"))
    compiled = train(tiny(*keys, "compile=true", root=tmp_path / "compiled"))
    assert plain.name == compiled.name
    assert [s["site"] for s in events(compiled, "switch")] == [s["site"] for s in events(plain, "switch")] != []
    losses = [[r[4] for r in rows(f) if r[1:4] == ("train", "network", "running_loss")][1:] for f in (plain, compiled)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_valid_split_is_measured_and_may_be_the_headline(tiny):
    """Taken out of the train split: what is trained on has as many samples less."""
    folder = train(tiny("dataset.train_size=null", "dataset.valid_size=60", "metrics.headline=valid/accuracy"))
    measured = {(r[1], r[2], r[3]): r[4] for r in rows(folder) if r[0] == 6}
    assert {split for split, *_ in measured} == {"train", "test", "valid"}
    assert {layer for split, layer, _ in measured if split == "valid"} >= {"fc1", "fc4", "network"}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["headline"] == {
        "split": "valid",
        "metric": "accuracy",
        "value": measured["valid", "network", "accuracy"],
    }
    model, data, _ = load_trained(folder)
    assert (len(data.train), len(data.splits["valid"])) == (1437 - 60, 60)
    right = model(data.inputs(data.splits["valid"].samples)).prediction.argmax(1) == data.splits["valid"].targets
    assert summary["headline"]["value"] == right.double().mean().item()
