"""A longer training: it goes on from a run in a new folder, and is the run that it would have been without a stop."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import yaml
from run_folders import ADAPTIVE, Killed, assert_same_run, events, rows

from nclab.analysis.runs import AnalysisError, load_runs, refuse_mixture
from nclab.config.schema import ConfigError, load_named
from nclab.run.execute import train
from nclab.run.started import as_started, requested
from nclab.run.trained import load_trained
from nclab.runfolder import checkpoint
from nclab.runs.state import inspect
from nclab.training import fit
from nclab.training.optim import learning_rate


@pytest.fixture
def longer(tiny):
    """longer(folder, epochs, ...) -> the configuration that `resume=folder epochs=...` asks for."""

    def configuration(folder: Path, epochs: int, *words: str):
        words = (f"resume={folder}", f"epochs={epochs}", *words)
        (config,) = requested(tiny(*words), words)
        return config

    return configuration


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.mark.parametrize(
    ("overrides", "split"),
    [
        ((), 4),
        (("metrics.every=3",), 4),  # the shorter run measured its last epoch, the longer one does not
        (("metrics.every=0",), 4),
        (("optimizer=adamw", "dataset.augment=crop_flip", "batch_size=30"), 5),
        (ADAPTIVE, 3),  # the policy fixes a layer after the epoch in which the shorter run ended
        (ADAPTIVE, 5),
        ((*ADAPTIVE, "metrics.every=2"), 3),
        (("sampler=class_balanced", "schedule=multistep", "schedule.milestones=[3,6]"), 4),
    ],
)
def test_it_is_the_uninterrupted_run_bit_for_bit(tiny, longer, tmp_path, overrides, split):
    whole = train(tiny(*overrides, "epochs=8", root=tmp_path / "whole"))
    parent = train(tiny(*overrides, f"epochs={split}"))
    before = files(parent)
    child = train(longer(parent, 8))
    assert child.parent == parent.parent
    assert child != parent
    assert_same_run(whole, child)
    assert files(parent) == before
    if overrides == ADAPTIVE and split == 3:
        assert 3 in {event["epoch"] for event in events(child, "switch")}
        assert 3 not in {event["epoch"] for event in events(parent, "switch")}
    assert not events(child, "warning")


def test_it_names_its_parent_and_is_an_ordinary_run(tiny, longer):
    parent = train(tiny("epochs=3"))
    config = longer(parent, 5)
    child = train(config)
    stored = yaml.safe_load((child / "config.yaml").read_text())
    assert (stored["parent"], stored["parent_epochs"], stored["epochs"]) == (parent.name, 3, 5)
    summary = json.loads((child / "summary.json").read_text())
    assert summary["parent"] == {"run": parent.name, "epoch": 3}
    assert (summary["run"], summary["epochs"]) == (child.name, 5)
    (split,) = events(child, "longer")
    assert (split["parent"], split["epoch"], split["epochs"]) == (parent.name, 3, 5)
    assert events(child)[0]["event"] == "start"
    assert sorted({epoch for epoch, *_ in rows(child)}) == [0, 1, 2, 3, 4, 5]
    assert load_trained(child)[2].run_name == child.name
    assert inspect(child).state == "done"
    assert "parent" not in json.loads((parent / "summary.json").read_text())


def test_its_name_is_not_that_of_a_run_from_scratch(tiny, longer):
    parent = train(tiny("epochs=3"))
    child = as_started(longer(parent, 5))
    assert child.run_name != tiny("epochs=5").run_name
    assert child.stem == tiny("epochs=5").stem
    assert child.run_name != as_started(longer(parent, 6)).run_name


def test_the_same_command_skips_resumes_and_begins_again(tiny, longer, tmp_path, monkeypatch, capsys):
    parent = train(tiny(*ADAPTIVE, "epochs=3"))
    whole = train(tiny(*ADAPTIVE, "epochs=8", root=tmp_path / "whole"))
    save = fit.Fit.save

    def then_stop(self):
        save(self)
        if self.progress.epoch == 5:
            raise Killed

    monkeypatch.setattr(fit.Fit, "save", then_stop)
    with pytest.raises(Killed):
        train(longer(parent, 8))
    monkeypatch.setattr(fit.Fit, "save", save)
    child = train(longer(parent, 8))
    assert_same_run(whole, child)
    capsys.readouterr()
    assert train(longer(parent, 8)) == child
    assert "already finished" in capsys.readouterr().out
    first = (child / "metrics.csv").read_bytes()
    for again in (longer(parent, 8, "overwrite=true"), tiny_resume(tiny, child, "overwrite=true")):
        train(again)
        assert (child / "metrics.csv").read_bytes() == first
        assert_same_run(whole, child)


def tiny_resume(tiny, folder, *words):
    words = (f"resume={folder}", *words)
    return requested(tiny(*words), words)[0]


def _train_in_child(config):
    train(config)


def test_kill_9_of_it_resumes_bit_for_bit(tiny, longer, tmp_path):
    whole = train(tiny(*ADAPTIVE, "epochs=40", root=tmp_path / "whole"))
    parent = train(tiny(*ADAPTIVE, "epochs=3"))
    config = longer(parent, 40)
    folder = as_started(config).folder
    process = multiprocessing.get_context("spawn").Process(target=_train_in_child, args=(config,))
    process.start()
    log, deadline = folder / "events.jsonl", time.monotonic() + 120
    while not (log.exists() and '"epoch": 15' in log.read_text()):
        assert process.is_alive(), "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (folder / "DONE").exists()
    assert train(longer(parent, 40)) == folder
    assert_same_run(whole, folder)


def test_cut_while_its_folder_is_made_it_is_made_again(tiny, longer, tmp_path, monkeypatch):
    whole = train(tiny("epochs=5", root=tmp_path / "whole"))
    parent = train(tiny("epochs=3"))
    save = checkpoint.save

    def cut(*_):
        raise Killed

    monkeypatch.setattr(checkpoint, "save", cut)
    with pytest.raises(Killed):
        train(longer(parent, 5))
    monkeypatch.setattr(checkpoint, "save", save)
    child = as_started(longer(parent, 5)).folder
    assert train(tiny_resume(tiny, child)) == child
    assert_same_run(whole, child)


def test_an_unfinished_run_is_trained_longer_too_and_a_longer_one_once_more(tiny, longer, tmp_path, monkeypatch):
    whole = train(tiny("epochs=8", root=tmp_path / "whole"))
    save = fit.Fit.save

    def then_stop(self):
        save(self)
        if self.progress.epoch == 2:
            raise Killed

    monkeypatch.setattr(fit.Fit, "save", then_stop)
    with pytest.raises(Killed):
        train(tiny("epochs=4"))
    monkeypatch.setattr(fit.Fit, "save", save)
    child = train(longer(tiny("epochs=4").folder, 6))
    assert events(child, "longer")[0]["epoch"] == 2
    grandchild = train(longer(child, 8))
    assert_same_run(whole, grandchild)
    assert [event["epoch"] for event in events(grandchild, "longer")] == [2, 6]
    assert json.loads((grandchild / "summary.json").read_text())["parent"] == {"run": child.name, "epoch": 6}


def test_a_schedule_that_depends_on_the_length_says_so(tiny, longer, capsys):
    parent = train(tiny("schedule=cosine", "epochs=4"))
    child = train(longer(parent, 8))
    (warning,) = events(child, "warning")
    assert warning["text"].startswith("schedule=cosine depends on the number of epochs: up to epoch 4 it was that of 4")
    assert capsys.readouterr().err.count("schedule=cosine depends on the number of epochs") == 1
    rates = {epoch: value for epoch, _, _, metric, value in rows(child) if metric == "learning_rate"}
    whole = tiny("schedule=cosine", "epochs=8")
    expected = learning_rate(whole.optimizer, whole.schedule, 8)
    assert [rates[epoch] for epoch in (5, 6, 7, 8)] == [expected(epoch - 1) for epoch in (5, 6, 7, 8)]


@pytest.mark.parametrize("epochs", [1, 3])
def test_no_more_epochs_than_before_are_refused(tiny, longer, epochs):
    parent = train(tiny("epochs=3"))
    with pytest.raises(ConfigError, match=rf"epochs must be above the 3 of {parent}, .*got {epochs}$"):
        train(longer(parent, epochs))


def test_a_run_without_a_checkpoint_or_a_folder_is_refused_and_nothing_is_left(tiny, longer, tmp_path):
    parent = train(tiny("epochs=3"))
    there = set(parent.parent.iterdir())
    for file in parent.glob("checkpoint*"):
        file.unlink()
    with pytest.raises(ConfigError, match=f"{parent} has no checkpoint"):
        train(longer(parent, 5))
    assert set(parent.parent.iterdir()) == there
    with pytest.raises(ConfigError, match="resume must name a run folder"):
        train(longer(tmp_path / "nowhere", 5))


def test_a_folder_that_was_moved_keeps_its_longer_run_beside_it(tiny, longer, tmp_path):
    parent = train(tiny("epochs=2"))
    moved = tmp_path / "elsewhere" / "archive" / parent.name
    moved.parent.mkdir(parents=True)
    parent.rename(moved)
    assert train(longer(moved, 3)).parent == moved.parent


def test_figures_average_longer_runs_and_never_mix_them_with_others(tiny, longer):
    children = [train(longer(train(tiny(f"seed={seed}", "epochs=2")), 3)) for seed in (0, 1)]
    runs = load_runs(children)
    refuse_mixture(runs)
    other = train(tiny("seed=2", "epochs=3"))
    with pytest.raises(AnalysisError, match="parent_epochs"):
        refuse_mixture(load_runs([*children, other]))


@pytest.mark.parametrize(
    "words", [["+parent=x"], ["+parent=x", "+parent_epochs=60"], ["+parent=../x", "+parent_epochs=2"]]
)
def test_a_parent_that_no_command_wrote_is_refused(tiny, words):
    with pytest.raises(ConfigError, match="parent"):
        tiny(*words)


def test_phases_that_share_the_epochs_say_so(tiny, longer, own_registries, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "extensions")
    load_named(["two_tasks"])
    parent = train(tiny("plugins=[two_tasks]", "phases=two_tasks", "epochs=2"))
    child = train(longer(parent, 6))
    assert events(child, "warning")[0]["text"].startswith(
        "phases=two_tasks depends on the number of epochs: up to epoch 2"
    )
