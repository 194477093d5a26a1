"""Whole runs on a few digits: what they write, skip, resume to the bit, refuse and survive."""

import contextlib
import csv
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import nclab.train
from nclab import checkpoint, fit, record
from nclab.data import load_dataset
from nclab.evaluate import refreshed
from nclab.models.mlp import MLP
from nclab.record import RecordError, RunFolder, RunLocked
from nclab.train import train
from nclab.trained import load_trained

ADAPTIVE = ("etf=adaptive", "etf.start=2", "etf.patience=1", "etf.threshold=0.5")


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return [(int(r["epoch"]), r["split"], r["layer"], r["metric"], float(r["value"])) for r in csv.DictReader(file)]


def events(folder, kind=None):
    all_events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [e for e in all_events if kind in (None, e["event"])]


def weights(folder):
    return checkpoint.load(folder)["model"]


def assert_same_run(a, b):
    """Bit for bit: every logged number, every weight, the optimizer and the fixed maps."""
    assert (a / "metrics.csv").read_bytes() == (b / "metrics.csv").read_bytes()
    one, two = checkpoint.load(a), checkpoint.load(b)
    for part in ("model", "optimizer", "fixed", "policy", "generators"):
        assert flat(one[part]) == flat(two[part]), part
    switches = [{k: v for k, v in e.items() if k != "time"} for e in events(a, "switch")]
    assert switches == [{k: v for k, v in e.items() if k != "time"} for e in events(b, "switch")]


def flat(value):
    """Nested dicts and lists of tensors as comparable plain values."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: flat(v) for key, v in value.items()}
    return [flat(v) for v in value] if isinstance(value, list | tuple) else value


def test_a_run_folder_holds_what_it_promises(tiny):
    folder = train(tiny("metrics.every=2"))
    files = {"config.yaml", "metrics.csv", "events.jsonl", "summary.json", "checkpoint.pt", "DONE", ".lock"}
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
    assert summary["optimizer_bytes"] == 4 * summary["parameters_learnable"]
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
            model(data.inputs(s.images)) for s in (data.train, data.test)
        )
    final = {(s, layer, m): v for e, s, layer, m, v in rows(folder) if e == 6}
    assert final["test", "network", "accuracy"] == (logits.argmax(1) == data.test.labels).double().mean().item()
    h, y = train_features["fc2"].double(), data.train.labels
    means = torch.stack([h[y == c].mean(0) for c in range(10)])
    for split, x, labels in (("train", h, y), ("test", features["fc2"].double(), data.test.labels)):
        ncc = (torch.cdist(x, means).argmin(1) == labels).double().mean().item()
        assert final[split, "fc2", "ncc_accuracy"] == ncc
    loss = torch.nn.functional.cross_entropy(train_logits.double(), y).item()
    assert final["train", "network", "loss"] == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("policy", [(), ("etf=last_k", "etf.k=2"), ("etf=frozen", "etf.k=2"), ADAPTIVE])
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
    h = model.fc1(data.inputs(data.train.images[:199]).flatten(1))
    torch.testing.assert_close(fresh.norm1.running_mean, h.mean(0))
    torch.testing.assert_close(fresh.norm1.running_var, h.var(0))
    assert fresh.training == model.training


def test_finished_runs_are_skipped_and_overwrite_starts_again(tiny, capsys):
    folder = train(tiny())
    stamp = (folder / "summary.json").stat().st_mtime_ns
    train(tiny())
    assert "already finished" in capsys.readouterr().out
    assert (folder / "summary.json").stat().st_mtime_ns == stamp
    first = (folder / "metrics.csv").read_bytes()
    (folder / "stray").mkdir()
    train(tiny("overwrite=true"))
    assert (folder / "summary.json").stat().st_mtime_ns > stamp
    assert (folder / "metrics.csv").read_bytes() == first
    assert not (folder / "stray").exists()


class Killed(BaseException):
    """Stands for a process that ends at this very point. Logs are unbuffered, so nothing is flushed on the way out."""


class Cutter:
    """Counts every write of a run, and ends the run in the middle of the chosen one: half of it is on disk."""

    def __init__(self, monkeypatch):
        self.count, self.stop = 0, math.inf
        append, atomic = RunFolder._append, record.write_atomic

        def half_append(folder, name, text):
            self._cut(lambda: append(folder, name, text[: len(text) // 2]))
            append(folder, name, text)

        def half_atomic(path, data):
            self._cut(lambda: path.with_name(path.name + ".part").write_bytes(b"half"))
            atomic(path, data)

        monkeypatch.setattr(RunFolder, "_append", half_append)
        for module in (record, checkpoint, nclab.train):
            monkeypatch.setattr(module, "write_atomic", half_atomic)

    def _cut(self, halve):
        self.count += 1
        if self.count == self.stop:
            halve()
            raise Killed

    def run(self, config, stop=math.inf):
        self.count, self.stop = 0, stop
        return train(config)


def save_every(monkeypatch, epochs):
    """Checkpoints after every so many epochs, as if time had passed so."""
    save = fit.Fit.save

    def sometimes(self):
        if self.progress.epoch % epochs == 0 or self.progress.epoch == self.epochs:
            save(self)

    monkeypatch.setattr(fit.Fit, "save", sometimes)
    return lambda: monkeypatch.setattr(fit.Fit, "save", save)


FROZEN = ("etf=frozen", "etf.weights=current", "etf.start=2", "etf.patience=1", "etf.threshold=0.5")


@pytest.mark.parametrize(
    ("overrides", "saved_every", "stride"),
    [
        (("metrics.every=1",), 1, 3),
        (("metrics.every=4",), 3, 1),  # rows without a checkpoint, then checkpoints without rows
        (("metrics.every=0",), 1, 2),
        (ADAPTIVE, 1, 4),
        (ADAPTIVE, 3, 4),
        ((*FROZEN, "schedule=cosine", "optimizer=adamw"), 2, 4),
    ],
)
def test_resume_is_exact_wherever_the_run_was_cut(tiny, tmp_path, monkeypatch, overrides, saved_every, stride):
    """Cut in the middle of every stride-th write, resume, cut again soon after, resume: bit for bit the same run."""
    overrides = (*overrides, "seed=3", "epochs=8")
    whole = train(tiny(*overrides, root=tmp_path / "whole"))
    cutter = Cutter(monkeypatch)
    rarely = save_every(monkeypatch, saved_every)
    cutter.run(tiny(*overrides, root=tmp_path / "count"))
    rarely()
    total = cutter.count
    assert total > 10
    for stop in range(1, total + 1, stride):
        config = tiny(*overrides, root=tmp_path / f"cut{stop}")
        often = save_every(monkeypatch, saved_every)
        with pytest.raises(Killed):
            cutter.run(config, stop)
        often()
        with contextlib.suppress(Killed):  # a run cut at its very end has fewer writes left
            cutter.run(config, stop=5)
        assert_same_run(whole, cutter.run(config))


def _train_in_child(config):
    train(config)


def test_kill_9_after_a_switch_resumes_bit_for_bit(tiny, tmp_path):
    """A real SIGKILL to a real process, twice, once the first switch is on disk."""
    overrides = (*ADAPTIVE, "epochs=40")
    whole = train(tiny(*overrides, root=tmp_path / "whole"))
    killed = tiny(*overrides, root=tmp_path / "killed")
    context = multiprocessing.get_context("spawn")
    for wanted in ('"switch"', '"epoch": 15'):
        process = context.Process(target=_train_in_child, args=(killed,))
        process.start()
        log, deadline = killed.folder / "events.jsonl", time.monotonic() + 120
        while not (log.exists() and wanted in log.read_text()):
            assert process.is_alive(), "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not (killed.folder / "DONE").exists()
    resumed = train(killed)
    assert events(resumed, "resume")
    assert_same_run(whole, resumed)


def test_a_resumed_run_keeps_the_machine_keys_it_started_with(tiny, monkeypatch):
    stop_after(monkeypatch, epoch=3)
    with pytest.raises(Killed):
        train(tiny())
    monkeypatch.undo()
    train(tiny("threads=2", "overwrite=false"))
    assert torch.get_num_threads() == 1


def stop_after(monkeypatch, epoch):
    save = fit.Fit.save

    def then_stop(self):
        save(self)
        if self.progress.epoch == epoch:
            raise Killed

    monkeypatch.setattr(fit.Fit, "save", then_stop)


def test_one_writer_a_run_folder(tiny, tmp_path):
    config = tiny()
    with RunFolder(config.folder), pytest.raises(RunLocked, match=f"being written by pid {os.getpid()} on"):
        train(config)
    train(config)  # the lock went with its holder


def test_divergence_keeps_the_last_good_checkpoint(tiny, monkeypatch):
    config = tiny("epochs=20")
    set_lr = fit.Fit._set_lr

    def explode(self, epoch):
        set_lr(self, epoch)
        if epoch == 4:
            self.optimizer.param_groups[0]["lr"] = 1e38

    monkeypatch.setattr(fit.Fit, "_set_lr", explode)
    with pytest.raises(fit.Diverged, match=r"diverged in epoch 5 at learning rate 1e\+38 .*last good checkpoint stays"):
        train(config)
    assert [e["epoch"] for e in events(config.folder, "diverged")] == [5]
    state = checkpoint.load(config.folder)
    assert state["progress"]["epoch"] == 4
    assert all(t.isfinite().all() for t in state["model"].values())
    assert max(r[0] for r in rows(config.folder)) == 4


def test_weights_that_diverge_in_the_last_step_are_not_recorded_as_a_result(tiny):
    config = tiny("batch_size=200", "model.norm=none", "optimizer.lr=1e38", "epochs=1")
    with pytest.raises(fit.Diverged) as caught:
        train(config)
    assert "checkpoint" not in str(caught.value)  # there is none yet
    assert not (config.folder / "DONE").exists()


def test_clearing_cut_anywhere_never_looks_finished_or_resumable(tiny, monkeypatch):
    folder = train(tiny())
    first = (folder / "metrics.csv").read_bytes()
    unlink, left = Path.unlink, {"n": 0}

    def cut(path, *args, **kwargs):
        if left["n"] == 0:
            raise Killed
        left["n"] -= 1
        unlink(path, *args, **kwargs)

    for n in range(1, 7):
        left["n"] = n
        monkeypatch.setattr(Path, "unlink", cut)
        with contextlib.suppress(Killed):
            train(tiny("overwrite=true"))
        monkeypatch.setattr(Path, "unlink", unlink)
        assert not (folder / "DONE").exists() or (folder / "checkpoint.pt").exists()
        train(tiny())
        assert [e["event"] for e in events(folder)].count("start") == 1
        assert (folder / "metrics.csv").read_bytes() == first


def test_resume_by_folder_keeps_its_configuration(tiny, tmp_path, monkeypatch):
    stop_after(monkeypatch, epoch=3)
    with pytest.raises(Killed):
        train(tiny("optimizer.lr=0.03"))
    monkeypatch.undo()
    folder = tiny("optimizer.lr=0.03").folder
    assert train(tiny(f"resume={folder}", "optimizer.lr=0.9", "epochs=50")) == folder
    assert_same_run(folder, train(tiny("optimizer.lr=0.03", root=tmp_path / "whole")))


def test_a_damaged_checkpoint_is_named_and_nothing_destroyed(tiny, monkeypatch):
    stop_after(monkeypatch, epoch=3)
    with pytest.raises(Killed):
        train(tiny())
    monkeypatch.undo()
    folder = tiny().folder
    logged = (folder / "metrics.csv").read_bytes()
    good = (folder / "checkpoint.pt").read_bytes()
    (folder / "checkpoint.pt").write_bytes(good[:1000])
    with pytest.raises(RecordError, match=r"checkpoint.pt cannot be read .*overwrite=true"):
        train(tiny())
    assert (folder / "metrics.csv").read_bytes() == logged
    (folder / "checkpoint.pt").write_bytes(good)
    (folder / "metrics.csv").write_bytes(logged[:100])
    with pytest.raises(RecordError, match="lines were lost"):
        train(tiny())


def test_a_checkpoint_of_another_format_is_refused(tmp_path):
    torch.save({"format": 99}, tmp_path / "checkpoint.pt")
    with pytest.raises(RecordError, match="has format 99, expected 1"):
        checkpoint.load(tmp_path)


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    torch.save({"format": 1, "model": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(RecordError, match="cannot be read"):
        checkpoint.load(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_loading_what_is_no_run_is_refused(tmp_path, tiny):
    with pytest.raises(RecordError, match="is no run folder"):
        load_trained(tmp_path)
    folder = train(tiny())
    (folder / "checkpoint.pt").unlink()
    with pytest.raises(RecordError, match=r"has no checkpoint\.pt yet"):
        load_trained(folder)


def test_fixed_weights_are_a_recipe_in_the_checkpoint(tiny):
    state = checkpoint.load(train(tiny("etf=last_k", "etf.k=3")))
    assert set(state["fixed"]) == {"fc2", "fc3", "fc4"}
    assert all("weight" not in packed for packed in state["fixed"].values())
    assert not [name for name in state["model"] if name in ("fc2.weight", "fc3.weight", "fc4.weight")]


def test_a_full_disk_is_named_with_its_file(tiny, monkeypatch):
    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    folder = RunFolder(tiny().folder)
    with folder:
        folder.open_logs(None)
        folder._files["metrics.csv"].close()
        folder._files["metrics.csv"] = Full()
        with pytest.raises(OSError, match=r"No space left on device: .*metrics.csv"):
            folder.rows([(1, "train", "fc1", "nc1", 0.5)])


def test_write_atomic_leaves_the_old_file_when_the_disk_is_full(tmp_path, monkeypatch):
    path = tmp_path / "file"
    record.write_atomic(path, "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*file"):
        record.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_single_leftover_sample_is_skipped(tiny):
    train(tiny("batch_size=199"))  # 200 = 199 + 1: batch norm has no variance over one sample


def run_command(*overrides, cwd):
    command = [sys.executable, "-m", "nclab.train", *overrides]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_the_command_line(tmp_path):
    """One process for what must be seen from outside: a sweep, its folders, and that it leaves no litter."""
    tiny = ("dataset.train_size=200", "dataset.test_size=100", "model.depth=3", "model.width=16", "epochs=2")
    done = run_command("--multirun", *tiny, "seed=0,1", "threads=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "outputs" / "main").glob("*/DONE"))) == 2
    assert {p.name for p in tmp_path.iterdir()} == {"outputs"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model.widht=3"],
            "Could not override 'model.widht'. Valid keys of 'mlp': name, depth, width, norm, activation",
        ),
        (["etf=last_k", "etf.k=9"], "etf.k must be between 1 and 5"),
        (["dataset=mnist"], "fetch it with: python scripts/fetch_data.py mnist"),
    ],
)
def test_wrong_commands_end_in_one_line_and_exit_code_2(tmp_path, overrides, message):
    done = run_command(*overrides, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_tries_every_run_and_names_every_failure(tmp_path):
    tiny = ("dataset.train_size=200", "dataset.test_size=100", "model.width=16", "model.norm=none", "epochs=3")
    done = run_command("-m", *tiny, "threads=1", "optimizer.lr=1e30,0.01,1e31", cwd=tmp_path)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2 == len(done.stderr.splitlines())
    assert "1e+30" in errors[0]
    assert "1e+31" in errors[1]
    assert len(list((tmp_path / "outputs" / "main").glob("*/DONE"))) == 1


def test_help_explains_every_group(tmp_path):
    done = run_command("--help", cwd=tmp_path)
    assert done.returncode == 0
    for group in ("dataset", "model", "etf", "optimizer", "schedule", "tracker", "experiment"):
        assert f"\n  {group} " in done.stdout, group
