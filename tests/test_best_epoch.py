"""best keeps the checkpoint of the best epoch; stop_patience_epochs ends a training where that epoch is long ago."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import TINY, TINY_MODELS, composed
from run_folders import Killed, assert_same_run, events, flat, killed_after, rows

from nclab.analysis.runs import load_runs
from nclab.config.checks import ConfigError
from nclab.config.schema import load_named
from nclab.run.execute import check, train, train_seeds
from nclab.run.started import as_started, requested
from nclab.run.trained import load_trained
from nclab.runfolder import checkpoint
from nclab.runfolder.folder import RecordError
from nclab.runfolder.recorder import Recorder
from nclab.training.ending import Best
from nclab.training.evaluate import Evaluation, scores
from nclab.training.fit import Fit, FitSettings
from nclab.training.observer import Observer
from nclab.training.progress import BestEpoch, Progress

EPOCHS = ("epochs=6", "batch_size=50", "dataset.valid_size=60", "optimizer.lr=0.3")
LOSS = ("best=valid/loss", "best_mode=min")


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def numbers(folder, split="valid", metric="loss"):
    """epoch -> number of the network, without the untrained one."""
    return {r[0]: r[4] for r in rows(folder) if r[1:4] == (split, "network", metric) and r[0]}


def measured(folder, split):
    model, dataset, _ = load_trained(folder, best=True)
    return scores(model, dataset, dataset.splits[split], 1000)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of all its epochs whose valid loss is the least in the middle."""
    root = tmp_path_factory.mktemp("whole")
    folder = train(composed(*TINY, *TINY_MODELS["model=mlp"], *EPOCHS, f"output_root={root}"))
    own = numbers(folder)
    assert min(own, key=own.get) == 3, own
    return folder


def best_of(folder):
    own = numbers(folder)
    return min(own, key=own.get)


@pytest.mark.fast
def test_the_best_epoch_is_kept_and_changes_nothing_else(tiny, whole):
    folder = train(tiny(*EPOCHS, *LOSS))
    assert_same_run(folder, whole)
    best = best_of(folder)
    value = numbers(folder)[best]
    assert summary(folder)["best"] == {
        "split": "valid", "metric": "loss", "mode": "min", "epoch": best, "value": value,
        "checkpoint": "checkpoint.best.pt",
    }  # fmt: skip
    assert measured(folder, "valid")["loss"] == pytest.approx(value, rel=1e-6)
    assert "best" not in summary(whole)
    assert not (whole / "checkpoint.best.pt").exists()


@pytest.mark.fast
def test_its_weights_are_those_that_were_measured_before_a_layer_was_fixed(tiny):
    """The largest loss is that of the first epoch, after which the head is fixed."""
    folder = train(tiny(*EPOCHS, "best=valid/loss", "best_mode=max", "epochs=3", "etf=clock", "etf.k=1", "etf.start=1"))
    kept = summary(folder)["best"]
    assert [event["epoch"] for event in events(folder, "switch")] == [kept["epoch"]] == [1]
    assert measured(folder, "valid")["loss"] == pytest.approx(kept["value"], rel=1e-6)


def test_the_largest_is_the_best_of_max(tiny, whole):
    folder = train(tiny(*EPOCHS, "best=valid/accuracy", "best_mode=max"))
    own = numbers(whole, metric="accuracy")
    assert summary(folder)["best"]["epoch"] == max(own, key=own.get)


@pytest.mark.fast
def test_training_ends_where_the_best_epoch_is_long_ago(tiny, whole, capsys):
    folder = train(tiny(*EPOCHS, *LOSS, "stop_patience_epochs=2"))
    own, said = numbers(whole), summary(folder)
    end = next(e for e in own if e - min(range(1, e + 1), key=own.get) >= 2)
    assert end == 5
    assert (said["epochs"], said["ended_by"]) == (end, "stop_patience_epochs")
    assert said["best"]["epoch"] == end - 2
    assert (events(folder, "done")[0]["epoch"], events(folder, "done")[0]["ended_by"]) == (end, "stop_patience_epochs")
    plain = [row for row in rows(whole) if row[0] <= end]
    assert list(map(repr, rows(folder))) == list(map(repr, plain))
    out = " ".join(capsys.readouterr().out.split())
    assert f"best valid loss {own[end - 2]:.4f} in epoch {end - 2}; ended after epoch {end}" in out
    (run,) = load_runs([folder])
    assert run.end == end
    patient = train(tiny(*EPOCHS, *LOSS, "stop_patience_epochs=8"))
    assert summary(patient)["ended_by"] == "epochs"


def test_epochs_between_measurements_are_not_judged_nor_is_the_last_out_of_turn(tiny, whole):
    folder = train(tiny(*EPOCHS, *LOSS, "metrics.every=3"))
    own = numbers(whole)
    assert summary(folder)["best"]["epoch"] == min((3, 6), key=own.get)


@pytest.mark.parametrize("seconds", [0, 1000])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_run_that_is_killed_right_after_the_best_was_saved_resumes_to_the_same_bits(
    tiny, tmp_path, at, seconds, monkeypatch
):
    """The best checkpoint is of a later epoch then than the last one."""
    words = (*EPOCHS, *LOSS, "stop_patience_epochs=2", f"checkpoint_seconds={seconds}")
    straight = train(tiny(*words, root=tmp_path / "straight"))
    again = tiny(*words, root=tmp_path / "again")
    saved, count = Recorder.saved_best, []

    def then_killed(self, state):
        saved(self, state)
        count.append(state["progress"]["epoch"])
        if len(count) == at:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "saved_best", then_killed)
        with pytest.raises(Killed):
            train(again)
    assert not (again.folder / "DONE").exists()
    assert checkpoint.load_best(again.folder)["progress"]["epoch"] == count[-1]
    train(again)
    assert_same_best(straight, again.folder)


def test_a_run_that_is_killed_while_the_best_is_written_resumes_to_the_same_bits(tiny, tmp_path, monkeypatch):
    words = (*EPOCHS, *LOSS)
    straight = train(tiny(*words, root=tmp_path / "straight"))
    again = tiny(*words, root=tmp_path / "again")

    def half(folder, state, marks):
        (folder / "checkpoint.best.pt.part").write_bytes(b"half")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_best", half)
        with pytest.raises(Killed):
            train(again)
    train(again)
    assert_same_best(straight, again.folder)
    assert not list(again.folder.glob("*.part"))


def test_a_finished_training_that_was_not_closed_keeps_its_best(tiny, tmp_path):
    words = (*EPOCHS, *LOSS, "stop_patience_epochs=2")
    straight = train(tiny(*words, root=tmp_path / "straight"))
    again = tiny(*words, root=tmp_path / "again")
    killed_after(summary(straight)["epochs"], again)
    train(again)
    assert_same_best(straight, again.folder)


def assert_same_best(one, two):
    assert_same_run(one, two)
    first, second = checkpoint.load_best(one), checkpoint.load_best(two)
    for part in ("model", "fixed", "policy", "optimizer", "generators"):
        assert flat(first[part]) == flat(second[part]), part
    for key in ("best", "epochs"):
        assert summary(one)[key] == summary(two)[key]
    assert summary(one).get("ended_by") == summary(two).get("ended_by")


@pytest.mark.parametrize("stacked", [True, False])
def test_several_seeds_keep_their_best_and_end_as_each_alone(tiny, monkeypatch, tmp_path, stacked):
    monkeypatch.setattr("nclab.training.seeds.least_to_pay", lambda fit: 2 if stacked else math.inf)
    words = (*EPOCHS, *LOSS, "stop_patience_epochs=1")
    alone = [summary(train(tiny(*words, f"seed={seed}", root=tmp_path / "alone"))) for seed in range(2)]
    configs = [tiny(*words, f"seed={seed}", root=tmp_path / "together") for seed in range(2)]
    assert not any(train_seeds(configs).values())
    for said, config in zip(alone, configs, strict=True):
        own = summary(config.folder)
        assert (own["epochs"], own["ended_by"]) == (said["epochs"], said["ended_by"])
        assert own["best"]["epoch"] == said["best"]["epoch"]
        assert measured(config.folder, "valid")["loss"] == pytest.approx(own["best"]["value"], rel=1e-5)


@pytest.mark.fast
@pytest.mark.parametrize("first", [True, False])
def test_of_several_processes_the_first_decides_and_saves(first):
    """Hosts may differ in the last digit of a loss: here 0.5 is none better than 0.5, and the first says that it is."""
    fit = Fit.__new__(Fit)
    fit.settings = FitSettings(9, best=Best("valid", "loss", largest=False, patience=1))
    fit.progress, fit.observer, fit._state = Progress(epoch=4, best=BestEpoch(3, 0.5)), Noting(), dict
    fit.world = SimpleNamespace(first=first, broadcast_call=lambda call: (True, 0.49))
    fit._judge(Evaluation({"valid": {"network": {"loss": 0.5}}}))
    assert (fit.progress.best, fit.progress.ended_by) == (BestEpoch(4, 0.49), None)
    assert fit.observer.saved == first
    fit.world.broadcast_call = lambda call: call()
    fit.progress.epoch = 5
    fit._judge(Evaluation({"valid": {"network": {"loss": 0.49}}}))
    assert fit.progress.ended_by == "stop_patience_epochs"


class Noting(Observer):
    saved = 0

    def saved_best(self, state):
        self.saved += 1


@pytest.mark.parametrize("best", [1, 5])
def test_a_longer_run_begins_with_the_best_of_its_parent(tiny, tmp_path, best):
    """As N epochs at once."""
    words = (*EPOCHS, *LOSS)
    at_once = train(tiny(*words, root=tmp_path / "at_once"))
    short = train(tiny(*words, f"epochs={best}", root=tmp_path / "short"))
    asked = [f"resume={short}", "epochs=6"]
    (config,) = requested(composed(*asked), asked)
    longer = train(as_started(config))
    assert summary(longer)["best"] == summary(at_once)["best"]
    assert flat(checkpoint.load_best(longer)["model"]) == flat(checkpoint.load_best(at_once)["model"])


def test_a_best_that_is_gone_or_damaged_ends_a_resume_in_one_line(tiny):
    config = tiny(*EPOCHS, *LOSS)
    folder = killed_after(4, config)
    file = folder / "checkpoint.best.pt"
    kept = file.read_bytes()
    file.write_bytes(kept[:-9])
    with pytest.raises(RecordError, match=r"checkpoint.best.pt cannot be read .*; overwrite=true starts the run again"):
        train(config)
    file.unlink()
    with pytest.raises(RecordError, match=r"checkpoint.best.pt is missing, of epoch \d; overwrite=true"):
        train(config)
    file.write_bytes(kept)
    train(config)


def test_a_best_of_a_run_that_begins_anew_is_gone(tiny):
    """Not found by the new one, and not left by a run without the key."""
    config = tiny(*EPOCHS, *LOSS)
    train(config)
    config.overwrite = True
    killed_after(1, config)
    assert checkpoint.load_best(config.folder)["progress"]["best"]["epoch"] == 1
    with pytest.raises(RecordError, match=r"has no checkpoint.best.pt yet"):
        load_trained(train(tiny("epochs=1")), best=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("best=valid/acuracy", "best_mode=max"), "best: unknown|best.*valid/accuracy"),
        (("best=dev/accuracy", "best_mode=max"), "best"),
        (
            ("best=accuracy", "best_mode=max"),
            "best must name a split and a metric, such as valid/accuracy; got accuracy",
        ),
        (("best=valid/accuracy",), "best=valid/accuracy needs best_mode, max or min; got null"),
        (("best=valid/accuracy", "best_mode=largest"), "needs best_mode, max or min; got largest"),
        (("best_mode=max",), "best_mode needs best, such as best=valid/accuracy; got best_mode=max and best=null"),
        (("stop_patience_epochs=3",), "stop_patience_epochs needs best"),
        ((*LOSS, "stop_patience_epochs=0"), "stop_patience_epochs must be at least 1"),
        (
            (*LOSS, "metrics.every=0"),
            "best=valid/loss is judged at measured epochs: expected metrics.every of 1 or more",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tiny, tmp_path, words, message):
    with pytest.raises(ConfigError, match=message):
        train(tiny(*EPOCHS, *words))
    assert not list(tmp_path.iterdir())


def test_several_phases_are_refused(own_registries, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "extensions")
    load_named(["two_tasks"])
    with pytest.raises(ConfigError, match=r"best compares epochs of one phase: .* got phases=two_tasks with 2"):
        check([composed("plugins=[two_tasks]", "phases=two_tasks", "best=test/accuracy", "best_mode=max")])


@pytest.mark.fast
def test_names_of_runs_without_it_stay():
    assert not {"best", "best_mode", "stop_patience_epochs"} & composed().identity().keys()
    assert composed().run_name == "digits-mlp5x400-none-e60-s0-" + composed().run_name[-8:]
    assert composed(*LOSS).run_name != composed(*LOSS, "stop_patience_epochs=3").run_name != composed().run_name


@pytest.mark.fast
def test_a_number_that_is_none_is_never_the_best():
    best = Best("valid", "loss", largest=False, patience=2)
    assert best.is_better(1.0, None)
    assert not best.is_better(math.nan, None)
    assert not best.is_better(math.inf, 2.0)
    assert not best.is_better(1.0, 1.0)
    assert best.is_over(2, 0)
    assert not best.is_over(1, 0)
    assert not Best("valid", "loss", largest=False).is_over(100, 1)
