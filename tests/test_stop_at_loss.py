"""stop_at_loss: training ends when the mean training loss of an epoch has come down to a value."""

import json
from pathlib import Path

import pytest
from conftest import TINY, TINY_MODELS, composed
from run_folders import assert_same_run, events, killed_after, rows

from nclab.analysis.last_layer import at_end, before_end
from nclab.analysis.runs import load_runs
from nclab.config.checks import ConfigError
from nclab.config.schema import load_named
from nclab.run.execute import check, train, train_seeds
from nclab.run.started import as_started, requested
from nclab.runs.state import inspect
from nclab.runs.table import experiment_table, run_table

EPOCHS = ("epochs=8", "batch_size=50")


def losses(folder):
    return {r[0]: r[4] for r in rows(folder) if r[1:4] == ("train", "network", "running_loss")}


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of all its epochs, and a loss that it reaches in the middle: first in epoch 4."""
    root = tmp_path_factory.mktemp("whole")
    folder = train(composed(*TINY, *TINY_MODELS["model=mlp"], *EPOCHS, f"output_root={root}"))
    own = losses(folder)
    assert all(own[e] > own[4] for e in (1, 2, 3))
    return folder, (own[3] + own[4]) / 2


@pytest.mark.fast
@pytest.mark.parametrize("every", [1, 3, 0])
def test_it_ends_with_the_first_epoch_whose_loss_is_low_enough(tiny, whole, every):
    """Up to there it is the run without, bit for bit; the last epoch is measured, and all is as after the last epoch of
    a run that is through."""
    folder = train(tiny(*EPOCHS, f"stop_at_loss={whole[1]}", f"metrics.every={every}"))
    assert (folder / "DONE").exists()
    said = summary(folder)
    assert said["epochs"] == 4
    assert said["ended_by"] == "stop_at_loss"
    assert events(folder, "done")[0]["epoch"] == 4
    if every:
        assert max(r[0] for r in rows(folder)) == 4
        own, plain = rows(folder), rows(whole[0])
        timed = [r for r in plain if r[0] <= 4 and (r[0] % every == 0 or r[0] == 4)]
        assert list(map(repr, own)) == list(map(repr, timed))
        assert said["final"]["test"]["accuracy"] == next(
            r[4] for r in own if r[:4] == (4, "test", "network", "accuracy")
        )
    state = inspect(folder)
    assert (state.state, state.epoch, state.epochs) == ("done", 4, 8)
    assert train(tiny(*EPOCHS, f"stop_at_loss={whole[1]}", f"metrics.every={every}")) == folder  # finished already


@pytest.mark.fast
def test_the_value_itself_is_low_enough_and_a_lower_one_is_never_reached(tiny, whole):
    folder = train(tiny(*EPOCHS, f"stop_at_loss={losses(whole[0])[4]!r}"))
    assert summary(folder)["epochs"] == 4
    folder = train(tiny(*EPOCHS, "stop_at_loss=0"))
    said = summary(folder)
    assert (said["epochs"], said["ended_by"]) == (8, "epochs")
    assert "ended_by" not in summary(whole[0])
    assert_same_run(folder, whole[0])


def evaluated(folder):
    return {r[0]: r[4] for r in rows(folder) if r[1:4] == ("train", "network", "loss")}


@pytest.mark.fast
@pytest.mark.parametrize("every", [1, 5])
def test_the_loss_after_the_epoch_can_end_it_instead(tiny, whole, every):
    """Where the mean over the batches is low enough an epoch before the network itself is, as batch norm lags behind;
    up to there nothing changes."""
    own = evaluated(whole[0])
    stop = (own[2] + own[3]) / 2
    assert losses(whole[0])[2] <= stop < min(own[1], own[2])
    folder = train(tiny(*EPOCHS, f"stop_at_loss={stop}", "stop_loss=evaluated", f"metrics.every={every}"))
    said = summary(folder)
    assert (said["epochs"], said["ended_by"]) == (3, "stop_at_loss")
    assert said["final"]["train"]["loss"] == own[3] <= stop
    plain = [r for r in rows(whole[0]) if r[0] in ({0, 1, 2, 3} if every == 1 else {0, 3})]
    assert list(map(repr, rows(folder))) == list(map(repr, plain))


@pytest.mark.parametrize("epoch", [2, 4])
def test_a_killed_run_ends_where_it_would_have_ended(tiny, whole, tmp_path, epoch):
    """Also one that was killed after its last epoch was saved, before it was closed."""
    keys = (*EPOCHS, f"stop_at_loss={whole[1]}")
    straight = train(tiny(*keys, root=tmp_path / "straight"))
    again = tiny(*keys, root=tmp_path / "again")
    folder = killed_after(epoch, again)
    assert not (folder / "DONE").exists()
    assert_same_run(straight, train(again))
    for key in ("epochs", "ended_by", "final", "headline"):
        assert summary(folder)[key] == summary(straight)[key]


@pytest.mark.parametrize("stacked", [True, False])
def test_several_seeds_end_each_in_its_own_epoch(tiny, whole, tmp_path, monkeypatch, stacked):
    monkeypatch.setattr("nclab.training.seeds.least_to_pay", lambda fit: 2 if stacked else float("inf"))
    keys = (*EPOCHS, f"stop_at_loss={whole[1]}")
    alone = [summary(train(tiny(*keys, f"seed={seed}", root=tmp_path / "alone"))) for seed in range(3)]
    assert len({said["epochs"] for said in alone}) > 1
    configs = [tiny(*keys, f"seed={seed}", root=tmp_path / "together") for seed in range(3)]
    assert not any(train_seeds(configs).values())
    for said, config in zip(alone, configs, strict=True):
        own = summary(config.folder)
        assert (own["epochs"], own["ended_by"]) == (said["epochs"], "stop_at_loss")
        assert own["final"]["train"]["loss"] == pytest.approx(said["final"]["train"]["loss"], rel=1e-3)


def test_no_policy_acts_after_the_end(tiny, whole):
    folder = train(tiny(*EPOCHS, f"stop_at_loss={whole[1]}", "etf=clock", "etf.k=1", "etf.start=4"))
    assert summary(folder)["epochs"] == 4
    assert not events(folder, "switch")


def test_more_epochs_of_a_run_that_ended_are_none(tiny, whole):
    """As N epochs at once would have ended there."""
    folder = train(tiny(*EPOCHS, f"stop_at_loss={whole[1]}"))
    words = [f"resume={folder}", "epochs=20"]
    (config,) = requested(composed(*words), words)
    longer = train(as_started(config))
    assert summary(longer)["epochs"] == 4
    assert repr(losses(longer)) == repr(losses(folder))


def test_more_epochs_of_a_run_that_ended_in_its_last_are_none(tiny, whole):
    """Its end is measured, though 4 is no multiple of 3, and nothing acts after it."""
    words = [f"stop_at_loss={whole[1]}", "metrics.every=3"]
    whole_run = train(tiny(*EPOCHS, *words))
    folder = train(tiny(*EPOCHS, "epochs=4", *words))
    asked = [f"resume={folder}", "epochs=8"]
    (config,) = requested(composed(*asked), asked)
    longer = train(as_started(config))
    assert repr(rows(longer)) == repr(rows(whole_run))
    assert {row[0] for row in rows(longer)} == {0, 3, 4}


def test_an_ended_run_is_whole_in_the_table(tiny, whole):
    folder = train(tiny(*EPOCHS, f"stop_at_loss={whole[1]}"))
    for table in (run_table, experiment_table):
        assert table([inspect(folder)]).splitlines()[1].split().count("100") == 1


def test_analysis_knows_the_last_epoch(tiny, whole):
    folder = train(tiny(*EPOCHS, f"stop_at_loss={whole[1]}"))
    (run,) = load_runs([folder])
    assert run.end == 4
    assert at_end(run)["act3", "nc1"] == next(r[4] for r in rows(folder) if r[:4] == (4, "train", "act3", "nc1"))
    assert before_end(run) == 3
    (plain,) = load_runs([whole[0]])
    assert plain.end == 8


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("stop_at_loss=-1",), "stop_at_loss must be at least 0 and finite, got -1"),
        (("stop_at_loss=nan",), "stop_at_loss"),
        (("stop_loss=mean", "stop_at_loss=1"), "unknown stop_loss 'mean'; valid: running, evaluated"),
        (("stop_loss=evaluated",), "stop_loss=evaluated needs stop_at_loss, .* got stop_at_loss=null"),
    ],
)
def test_what_cannot_be_is_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        check([composed(*keys)])


def test_several_phases_are_refused(own_registries, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "extensions")
    load_named(["two_tasks"])
    with pytest.raises(ConfigError, match=r"stop_at_loss ends the whole training: .* got phases=two_tasks with 2"):
        check([composed("plugins=[two_tasks]", "phases=two_tasks", "stop_at_loss=0.1")])


def test_names_of_runs_without_it_stay():
    assert "stop_at_loss" not in composed().identity()
    assert composed("stop_at_loss=0.1").identity()["stop_at_loss"] == 0.1
    assert composed().run_name != composed("stop_at_loss=0.1").run_name
    assert "stop_loss" not in composed("stop_at_loss=0.1").identity()
    assert composed("stop_at_loss=0.1", "stop_loss=evaluated").identity()["stop_loss"] == "evaluated"
