"""A longer training: it goes on from a run in a new folder, and is the run that it would have been without a stop."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from run_folders import ADAPTIVE, Killed, assert_same_run, events, killed_after, rows

from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.runs import AnalysisError, load_runs, refuse_mixture
from nclab.cluster.launch import on_this_machine
from nclab.config.schema import ConfigError, load_named
from nclab.config.stored import stored_run
from nclab.run.execute import check, train
from nclab.run.started import as_started, requested
from nclab.run.trained import load_trained
from nclab.runfolder import checkpoint
from nclab.runs.state import inspect
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


def test_the_same_command_skips_resumes_and_begins_again(tiny, longer, tmp_path, capsys):
    parent = train(tiny(*ADAPTIVE, "epochs=3"))
    whole = train(tiny(*ADAPTIVE, "epochs=8", root=tmp_path / "whole"))
    killed_after(5, longer(parent, 8))
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


def test_an_unfinished_run_is_trained_longer_too_and_a_longer_one_once_more(tiny, longer, tmp_path):
    whole = train(tiny("epochs=8", root=tmp_path / "whole"))
    killed_after(2, tiny("epochs=4"))
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


@pytest.mark.parametrize("epochs", [1, 2])
def test_fewer_epochs_than_before_are_refused(tiny, longer, epochs):
    parent = train(tiny("epochs=3"))
    with pytest.raises(ConfigError, match=rf"epochs must be at least the 3 of {parent} .*got {epochs}$"):
        train(longer(parent, epochs))


def test_as_many_epochs_are_the_run_itself(tiny, longer, capsys):
    """Skipped, or resumed where it is not finished: so of a sweep over folders those that have so many already."""
    parent = train(tiny("epochs=3"))
    whole = files(parent)
    assert train(longer(parent, 3)) == parent
    assert "already finished" in capsys.readouterr().out
    (parent / "DONE").unlink()
    assert train(longer(parent, 3)) == parent
    assert (parent / "DONE").exists()
    assert files(parent)["metrics.csv"] == whole["metrics.csv"]
    assert list(parent.parent.iterdir()) == [parent]


def test_machine_keys_typed_beside_more_epochs_are_said(tiny, longer, capsys):
    parent = train(tiny("epochs=2"))
    file = parent / "config.yaml"
    file.write_text(file.read_text().replace("device: cpu", "device: cuda:1"))
    child = train(longer(parent, 3, "threads=2", "device=cpu"))
    torch.set_num_threads(1)
    (warning,) = events(child, "warning")
    assert "goes on with device=cpu in the place of cuda:1, threads=2 in the place of 1" in warning["text"]
    assert warning["text"] in capsys.readouterr().err
    assert stored_run(child / "config.yaml").threads == 2


def gone(parent):
    parent.rename(parent.parent.parent / "gone")


def damaged(parent):
    for file in parent.glob("checkpoint*"):
        file.write_bytes(b"no checkpoint")


def torn(parent):
    (parent / "metrics.csv").write_bytes(b"epoch")


@pytest.mark.parametrize("lose", [gone, damaged, torn])
def test_a_longer_run_is_not_cleared_where_it_cannot_begin_again(tiny, longer, lose):
    parent = train(tiny("epochs=2"))
    config = longer(parent, 3)
    child = train(config)
    lose(parent)
    before = files(child)
    again = tiny_resume(tiny, child, "overwrite=true")
    for command in (train, lambda run: check([as_started(run)]), lambda run: on_this_machine([as_started(run)], 1, 1)):
        with pytest.raises(ConfigError, match=f"{child} begins with what {parent} left, which cannot be had: "):
            command(again)
    assert files(child) == before
    assert train(tiny_resume(tiny, child)) == child  # finished: it needs no parent any more


@pytest.mark.parametrize("lose", [damaged, torn])
def test_a_longer_run_that_cannot_begin_leaves_no_folder(tiny, longer, lose):
    parent = train(tiny("epochs=2"))
    lose(parent)
    with pytest.raises(ConfigError, match="which cannot be had"):
        train(longer(parent, 3))
    assert list(parent.parent.iterdir()) == [parent]


def test_a_parent_and_its_longer_run_do_not_begin_again_side_by_side(tiny, longer):
    parent = train(tiny("epochs=2"))
    child = train(longer(parent, 3))
    before = files(parent), files(child)
    again = [as_started(tiny_resume(tiny, folder, "overwrite=true")) for folder in (parent, child)]
    with pytest.raises(ConfigError, match="would begin again beside it"):
        on_this_machine(again, 2, 1)
    assert (files(parent), files(child)) == before


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


def test_figures_average_longer_runs_and_never_mix_them_with_others(tiny, longer, capsys):
    children = [train(longer(train(tiny(f"seed={seed}", "epochs=2")), 3)) for seed in (0, 1)]
    runs = load_runs(children)
    refuse_mixture(runs)
    other = train(tiny("seed=2", "epochs=3"))
    with pytest.raises(AnalysisError, match="parent_epochs"):
        refuse_mixture(load_runs([*children, other]))
    for name in ("summary", "variants"):
        capsys.readouterr()
        assert len(DRAWINGS[name].make(runs)[0]) == 1
        assert capsys.readouterr().err == ""
        table, _ = DRAWINGS[name].make(load_runs([*children, other]))
        assert sorted(table["parent_epochs"]) == ["2", "None"]
        assert "some of these runs go on from shorter ones (parent_epochs)" in capsys.readouterr().err


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
