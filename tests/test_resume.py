"""Runs that are cut, killed, locked out, damaged or diverged: what resumes, to the bit, and what is refused."""

import contextlib
import math
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from run_folders import ADAPTIVE, FROZEN, Killed, assert_same_run, events, killed_after, rows

import nclab.run.begun
from nclab.run.execute import train
from nclab.run.trained import load_trained
from nclab.runfolder import checkpoint
from nclab.runfolder import folder as record
from nclab.runfolder.folder import RecordError, RunFolder, RunLocked
from nclab.runfolder.logs import Log
from nclab.training import fit


class Cutter:
    """Counts every write of a run, and ends the run in the middle of the chosen one: half of it is on disk."""

    def __init__(self, monkeypatch):
        self.count, self.stop = 0, math.inf
        append, atomic = Log.append, record.write_atomic

        def half_append(log, data):
            self._cut(lambda: append(log, data[: len(data) // 2]))
            append(log, data)

        def half_atomic(path, data, **kept):
            self._cut(lambda: path.with_name(path.name + ".part").write_bytes(b"half"))
            atomic(path, data, **kept)

        monkeypatch.setattr(Log, "append", half_append)
        for module in (record, checkpoint, nclab.run.begun):
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


@pytest.mark.parametrize(
    ("overrides", "saved_every", "stride"),
    [
        (("metrics.every=1",), 1, 5),
        (("metrics.every=4",), 3, 1),  # rows without a checkpoint, then checkpoints without rows
        (("metrics.every=0",), 1, 2),
        (ADAPTIVE, 1, 4),
        (ADAPTIVE, 3, 7),
        ((*FROZEN, "schedule=cosine", "optimizer=adamw"), 2, 8),
        (("model=vit", "etf=transformer_ffn", "etf.blocks=last1", "optimizer=adamw"), 1, 11),
        (("model=vit", *ADAPTIVE, "etf.threshold=0.01", "precision=bf16"), 2, 11),
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


def test_a_resumed_run_keeps_the_machine_keys_it_started_with(tiny):
    killed_after(3, tiny())
    train(tiny("threads=2", "overwrite=false"))
    assert torch.get_num_threads() == 1


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
            self.learner.optimizer.param_groups[0]["lr"] = 1e38

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


@pytest.mark.fast
def test_resume_by_folder_keeps_its_configuration(tiny, tmp_path):
    folder = killed_after(3, tiny("optimizer.lr=0.03"))
    assert train(tiny(f"resume={folder}", "optimizer.lr=0.9", "epochs=50")) == folder
    assert_same_run(folder, train(tiny("optimizer.lr=0.03", root=tmp_path / "whole")))


def test_lost_lines_are_named_and_nothing_destroyed(tiny):
    killed_after(3, tiny())
    log = tiny().folder / "metrics.csv"
    cut = log.read_bytes()[:100]
    log.write_bytes(cut)
    with pytest.raises(RecordError, match=r"csv has 100 bytes, .* expects \d+: lines were lost.*overwrite=true"):
        train(tiny())
    assert log.read_bytes() == cut


def _second(change):
    return lambda lines: [lines[0], *change(lines[1]), *lines[2:]]


TAMPERED = {  # what becomes of a log -> what is said of metrics.csv and of events.jsonl
    "line ends": (lambda lines: [line[:-1] + b"\r\n" for line in lines], "line 1:", "line 1:"),
    "a doubled line": (_second(lambda line: [line, line]), "line 3:", "line 3:"),
    "a removed line": (_second(lambda line: []), "lines were lost", "lines were lost"),
    "garbage": (_second(lambda line: [b"\xff" * (len(line) - 1) + b"\n"]), "line 2:", "line 2:"),
    "zeros": (_second(lambda line: [b"\0" * len(line)]), "line 2:", "line 2:"),
    "another digit": (_second(lambda line: [line.replace(b"1", b"2")]), "one of its first", "one of its first"),
}


@pytest.mark.parametrize("name", ["metrics.csv", "events.jsonl"])
@pytest.mark.parametrize("how", TAMPERED)
def test_a_log_that_is_not_what_the_run_wrote_is_seen(tiny, tmp_path, name, how):
    """An editor, a copy that converts line ends, a power cut: where no checkpoint agrees, nothing is destroyed."""
    config = tiny("metrics.every=1")
    killed_after(3, config)
    log = config.folder / name
    change, *said = TAMPERED[how]
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(change(lines)))
    (config.folder / "checkpoint.previous.pt").unlink(missing_ok=True)
    before = {path.name: path.read_bytes() for path in config.folder.iterdir()}
    expected = rf"{name}.*{said[name == 'events.jsonl']}.*overwrite=true starts"
    with pytest.raises(RecordError, match=expected) as error:
        train(config)
    assert "\n" not in str(error.value)
    after = {path.name: path.read_bytes() for path in config.folder.iterdir()}
    assert {n: b for n, b in after.items() if n != ".lock"} == {n: b for n, b in before.items() if n != ".lock"}


def test_a_log_changed_since_the_previous_checkpoint_goes_back_to_it(tiny, tmp_path, capsys):
    config = tiny("metrics.every=1")
    killed_after(3, config)
    log = config.folder / "metrics.csv"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-1]) + lines[-1][:-2] + b"\0\n")
    train(config)
    assert f"metrics.csv, line {len(lines)}: not what the run wrote" in capsys.readouterr().err
    assert "checkpoint.previous.pt is used, of epoch 2" in events(config.folder, "warning")[0]["text"]
    assert_same_run(config.folder, train(tiny("metrics.every=1", root=tmp_path / "whole")))


def test_a_checkpoint_without_digests_resumes(tiny, tmp_path):
    """As those were that were saved before."""
    config = tiny()
    killed_after(3, config)
    state = checkpoint.load(config.folder)
    del state["digests"]
    checkpoint.save(config.folder, state, {})
    assert_same_run(train(config), train(tiny(root=tmp_path / "whole")))


@pytest.mark.parametrize("name", ["metrics.csv", "events.jsonl", "DONE.part", "config.yaml.part", "summary.json.part"])
@pytest.mark.parametrize("begun", [False, True])
def test_nothing_is_written_through_a_link(tiny, tmp_path, name, begun):
    config = tiny()
    precious = tmp_path / "precious"
    precious.write_text("precious")
    if begun:
        killed_after(3, config)
        (config.folder / name).unlink(missing_ok=True)
    config.folder.mkdir(parents=True, exist_ok=True)
    (config.folder / name).symlink_to(precious)
    if name.endswith(".part"):
        train(config)
    else:
        with pytest.raises((OSError, RecordError), match=rf"a symbolic link.*{name}|{name} is a symbolic link"):
            train(config)
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("name", ["metrics.csv", "events.jsonl"])
def test_a_log_that_is_no_file_is_refused(tiny, name):
    config = tiny()
    config.folder.mkdir(parents=True)
    os.mkfifo(config.folder / name)
    with pytest.raises(OSError, match=f"no regular file.*{name}|No such device or address.*{name}"):
        train(config)


def test_overwriting_leaves_what_no_run_wrote(tiny):
    folder = train(tiny())
    (folder / "notes.txt").write_text("mine")
    (folder / "figures").mkdir()
    (folder / "figures" / "a.png").write_text("mine too")
    for stale in ("wandb_id", "checkpoint.pt.part", "slurm.json"):
        (folder / stale).write_text("of the earlier run")
    (folder / "wandb").mkdir()
    train(tiny("overwrite=true"))
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "figures" / "a.png").read_text() == "mine too"
    assert not any((folder / gone).exists() for gone in ("wandb_id", "wandb", "checkpoint.pt.part", "slurm.json"))


def test_overwriting_follows_no_link(tiny, tmp_path):
    folder = train(tiny())
    elsewhere = folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(elsewhere)
    before = sorted(path.name for path in elsewhere.iterdir())
    with pytest.raises(RecordError, match=r"is a symbolic link to .*elsewhere: overwrite=true would clear that"):
        train(tiny("overwrite=true"))
    assert sorted(path.name for path in elsewhere.iterdir()) == before


@pytest.mark.fast
def test_loading_what_is_no_run_is_refused(tmp_path, tiny):
    with pytest.raises(RecordError, match="is no run folder"):
        load_trained(tmp_path)
    folder = train(tiny())
    for path in folder.glob("checkpoint*"):
        path.unlink()
    with pytest.raises(RecordError, match=r"has no checkpoint\.pt yet"):
        load_trained(folder)


def test_fixed_weights_are_a_recipe_in_the_checkpoint(tiny):
    state = checkpoint.load(train(tiny("etf=last_k", "etf.k=3")))
    assert set(state["fixed"]) == {"fc2", "fc3", "fc4"}
    assert all("weight" not in packed for packed in state["fixed"].values())
    assert not [name for name in state["model"] if name in ("fc2.weight", "fc3.weight", "fc4.weight")]


def test_a_full_disk_is_named_with_its_file(tiny):
    folder = RunFolder(tiny().folder)
    with folder:
        folder.open_logs(None)
        log = folder._logs["metrics.csv"]
        log._file.close()
        log._file = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115 (the folder closes it)
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
