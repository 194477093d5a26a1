"""debug=fast and debug=overfit: runs that show whether the real one would work, and are no evidence."""

import json
from pathlib import Path

import pytest
import torch
from conftest import composed
from run_folders import assert_same_run, events, killed_after, rows

from nclab.analysis.runs import AnalysisError, load_runs
from nclab.config.checks import ConfigError
from nclab.config.schema import load_named
from nclab.data import Dataset, Split
from nclab.data.few import few
from nclab.interfaces.batch import Batch, Output
from nclab.interfaces.shapes import ArrayShape
from nclab.interfaces.targets import Classes
from nclab.run.execute import check, train, train_seeds
from nclab.run.started import as_started, requested
from nclab.runs.diff import one_run
from nclab.training.ending import is_fitted, loss_of_mean
from nclab.training.objective import LOSSES
from nclab.training.progress import Part


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def counted_batches(monkeypatch):
    count, sizes = Part.count, []

    def counted(part, loss, samples):
        sizes.append(samples)
        count(part, loss, samples)

    monkeypatch.setattr(Part, "count", counted)
    return sizes


@pytest.mark.fast
def test_fast_is_one_epoch_of_two_batches_and_little_to_measure(tiny, monkeypatch):
    sizes = counted_batches(monkeypatch)
    folder = train(tiny("debug=fast", "batch_size=40", "epochs=60"))
    assert sizes == [40, 40]
    assert {row[0] for row in rows(folder)} == {0, 1}
    said = summary(folder)
    assert (said["epochs"], said["debug"]) == (1, {"mode": "fast"})
    assert "debug_fast" in folder.name


@pytest.mark.parametrize(
    "words",
    [
        ("etf=clock", "etf.k=1", "etf.start=40"),
        ("schedule=multistep", "optimizer=adamw"),
        ("etf=adaptive", "metrics.every=3"),
        ("batch_size=null", "optimizer=lbfgs"),
        ("metrics.every=0",),
        ("dataset.label_noise=0.2",),
        ("dataset.train_size=120", "dataset.valid_size=50", "dataset.imbalance=20", "batch_size=30"),
        ("dataset=diabetes", "dataset.test_size=null", "loss=mse", "metrics.suite=[regression_collapse]"),
    ],
)
def test_fast_trains_what_the_real_run_would(tiny, words):
    folder = train(tiny("debug=fast", "batch_size=50", "epochs=60", *words))
    assert summary(folder)["epochs"] == 1


def test_fast_trains_an_epoch_of_every_phase(tiny, own_registries, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "extensions")
    load_named(["two_tasks"])
    folder = train(tiny("plugins=[two_tasks]", "phases=two_tasks", "debug=fast", "batch_size=40", "epochs=20"))
    assert summary(folder)["epochs"] == 2


@pytest.mark.fast
def test_overfit_trains_on_a_few_batches_until_they_are_fitted(tiny, monkeypatch, capsys):
    sizes = counted_batches(monkeypatch)
    folder = train(tiny("debug=overfit", "batch_size=20", "dataset.augment=crop_flip"))
    said = summary(folder)
    assert said["debug"] == {"mode": "overfit", "fitted": True}
    assert said["ended_by"] == "fitted"
    assert said["final"]["train"]["accuracy"] == 1.0
    assert set(sizes) == {20}
    assert len(sizes) == 2 * said["epochs"] < 400
    before = [r[4] for r in rows(folder) if r[1:4] == ("train", "network", "accuracy")][:-1]
    assert max(before) < 1
    assert f"fitted in epoch {said['epochs']}: all of these samples are right" in " ".join(
        capsys.readouterr().out.split()
    )
    assert [e["epoch"] for e in events(folder, "done")] == [said["epochs"]]


def test_nothing_else_ends_overfit(tiny):
    ends = ("stop_at_loss=1.5", "dataset.valid_size=20", "best=valid/loss", "best_mode=min", "stop_patience_epochs=1")
    said = summary(train(tiny("debug=overfit", "batch_size=20", *ends)))
    assert (said["debug"], said["ended_by"]) == ({"mode": "overfit", "fitted": True}, "fitted")
    assert "best" not in said


def test_overfit_says_that_they_were_not_fitted(tiny, capsys, monkeypatch):
    monkeypatch.setattr("nclab.run.trial.LEAST_EPOCHS", 9)
    folder = train(tiny("debug=overfit", "batch_size=20", "optimizer.lr=1e-6", "metrics.every=0"))
    said = summary(folder)
    assert (said["epochs"], said["debug"], said["ended_by"]) == (9, {"mode": "overfit", "fitted": False}, "epochs")
    out = " ".join(capsys.readouterr().out.split())
    assert "not fitted after 9 epochs: train accuracy" in out


def test_overfit_of_values_asks_for_a_hundredth_of_the_loss_of_their_mean(tiny):
    """R^2 of 0.99 on the train samples, by a hand-made mean."""
    words = ("dataset=diabetes", "dataset.test_size=null", "loss=mse", "metrics.suite=[regression_collapse]")
    how = ("debug=overfit", "batch_size=8", "optimizer=adamw", "optimizer.lr=0.01", "epochs=500")
    folder = train(tiny(*words, *how))
    said = summary(folder)
    assert said["debug"]["fitted"]
    r2 = [r[4] for r in rows(folder) if r[1:4] == ("train", "network", "r2")]
    assert r2[-1] >= 0.99 > max(r2[:-1])


def test_a_killed_overfit_goes_on_to_the_same_end(tiny, tmp_path):
    words = ("debug=overfit", "batch_size=20")
    straight = train(tiny(*words, root=tmp_path / "straight"))
    again = tiny(*words, root=tmp_path / "again")
    killed_after(2, again)
    assert_same_run(straight, train(again))
    assert summary(again.folder)["debug"] == summary(straight)["debug"]


def test_stacked_seeds_are_each_fitted(tiny):
    configs = [tiny("debug=overfit", "batch_size=20", f"seed={seed}") for seed in range(4)]
    assert not any(train_seeds(configs).values())
    assert all(summary(config.folder)["debug"]["fitted"] for config in configs)


@pytest.mark.fast
def test_its_name_is_another_and_those_of_real_runs_stay():
    plain, trial = composed(), composed("debug=fast")
    assert plain.run_name == composed("debug=true").run_name != trial.run_name
    assert "debug" not in plain.identity()
    assert trial.identity()["debug"] == "fast"
    assert trial.run_name.startswith(f"{plain.stem}-debug_fast-s0-")
    assert composed("debug=overfit").run_name != trial.run_name


@pytest.mark.fast
def test_no_figure_claim_or_export_takes_it(tiny, tmp_path, capsys):
    trial = train(tiny("debug=fast", "batch_size=40"))
    with pytest.raises(AnalysisError, match="no finished run"):
        load_runs([tmp_path])
    assert f"left out 1 of debug=fast or debug=overfit: {trial}" in capsys.readouterr().err
    with pytest.raises(AnalysisError, match="no finished run"):
        load_runs([trial])
    real = train(tiny("epochs=1"))
    assert [run.path for run in load_runs([tmp_path])] == [real]
    assert one_run(trial).path == trial  # nclab-runs show


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("debug=quick", "unknown debug 'quick'; did you mean|unknown debug 'quick'; valid: false, true, fast, overfit"),
        ("debug=1", "debug: expected bool | str, got 1"),
        ("debug=null", "debug"),
    ],
)
def test_other_words_are_refused(word, message):
    with pytest.raises(ConfigError, match=message):
        composed(word)


def test_overfit_of_several_phases_is_refused(own_registries, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "extensions")
    load_named(["two_tasks"])
    with pytest.raises(ConfigError, match="debug=overfit: expected one phase, got phases=two_tasks with 2"):
        check([composed("plugins=[two_tasks]", "phases=two_tasks", "debug=overfit")])


def asked(*words):
    (config,) = requested(composed(*words), words)
    return as_started(config)


def test_resume_makes_no_other_run_of_it(tiny):
    trial, real = train(tiny("debug=fast", "batch_size=40")), train(tiny("epochs=1"))
    with pytest.raises(ConfigError, match="debug=fast makes another run: leave it out beside resume="):
        asked(f"resume={real}", "debug=fast")
    with pytest.raises(ConfigError, match="is a run of debug=fast: leave out debug=true"):
        asked(f"resume={trial}", "debug=true")
    with pytest.raises(ConfigError, match="is a run of debug=fast, which has no longer one"):
        asked(f"resume={trial}", "epochs=80")
    assert asked(f"resume={trial}").debug == "fast"
    assert asked(f"resume={real}", "debug=true").debug is True


@pytest.mark.fast
def test_few_samples_hold_two_of_each_class_and_the_rest_in_proportion():
    dataset = _dataset([500, 100, 5, 1])
    kept = few(dataset, 60).train.targets.bincount().tolist()
    assert sum(kept) == 60
    assert kept[2:] == [2, 1]
    assert kept[0] > 4 * kept[1] > 0
    assert few(dataset, 4).train.targets.bincount().tolist() == [2, 2, 2, 1]
    assert len(few(dataset, 10_000).train) == 606
    twin = Split(dataset.train.samples, 1 - dataset.train.targets.clamp(max=1))
    shared = few(type(dataset)({**dataset.splits, "train_clean": twin}, dataset.targets, dataset.shape), 60)
    assert shared.splits["train_clean"].samples is shared.train.samples


def _dataset(counts):
    targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return Dataset({"train": Split(torch.randn(len(targets), 3), targets)}, Classes(len(counts)), ArrayShape(3))


@pytest.mark.fast
def test_fitted_is_all_right_or_a_hundredth_of_the_loss_of_the_mean():
    objective = LOSSES["mse"].build(LOSSES["mse"].settings())
    split = Split(torch.zeros(4, 3), torch.tensor([[0.0], [0.0], [2.0], [2.0]]))
    whole = float(objective.mean(Output(torch.ones(4, 1), {}), Batch(split.samples, split.targets, torch.arange(4), 4)))
    assert loss_of_mean(objective, split) == pytest.approx(whole)
    assert whole > 0
    assert is_fitted({"loss": 0.0099 * whole}, objective, split)
    assert not is_fitted({"loss": 0.0101 * whole}, objective, split)
    assert is_fitted({"accuracy": 1.0, "loss": 9.0}, objective, split)
    assert not is_fitted({"accuracy": 0.999, "loss": 0.0}, objective, split)
