"""Several seeds as one batched model: each is the run that it would have been alone."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from run_folders import ADAPTIVE, Killed, events, folder_of, rows

from nclab.bench.by_hand import feed, learner
from nclab.cluster.workers import run_all
from nclab.config.schema import RunConfig
from nclab.data import load_dataset
from nclab.models.mlp import MLP
from nclab.models.vit import ViT
from nclab.run.execute import train, train_seeds
from nclab.runfolder import checkpoint
from nclab.runfolder.folder import RunFolder, RunLocked
from nclab.training import fit
from nclab.training import seeds as training_seeds
from nclab.training.fit import Diverged
from nclab.training.optim import AdamWSettings, SGDSettings, adamw, sgd
from nclab.training.progress import Part, Progress
from nclab.training.seeds import _groups, _structure
from nclab.training.stack import stacked_losses, train_epoch_stacked
from nclab.training.step import train_epoch

# Three seeds that switch in different epochs, and two of them end with the same maps fixed.
APART = (*ADAPTIVE[:-1], "etf.threshold=0.7", "etf.relative=false", "epochs=8")
COUNTED = {"accuracy", "ncc_accuracy", "nc4_mismatch"}  # shares of samples: rounding may move one across a border


@pytest.fixture(autouse=True)
def always_batched():
    """Also so few and such large models that a CPU trains them faster in turns."""
    with pytest.MonkeyPatch.context() as patch:  # of its own: tests undo theirs halfway
        patch.setattr(training_seeds, "MOST_FLOPS_ON_CPU", float("inf"))
        patch.setattr(training_seeds, "LEAST_SEEDS_ON_CPU", 2)
        yield


def of_seeds(config: RunConfig, seeds=(0, 1, 2)) -> list[RunConfig]:
    return [config.of_seed(seed) for seed in seeds]


def assert_close_run(a, b, rel=1e-3):
    """The same keys in the same order, numbers equal up to rounding, switches and recipes the same."""
    one, two = rows(a), rows(b)
    assert [r[:4] for r in one] == [r[:4] for r in two]
    for (*key, x), (*_, y) in zip(one, two, strict=True):
        close = abs(x - y) < 0.011 if key[3] in COUNTED else x == pytest.approx(y, rel=rel, abs=1e-5, nan_ok=True)
        assert close, (key, x, y)
    assert [s["epoch"] for s in events(a, "epoch")] == [s["epoch"] for s in events(b, "epoch")]
    keys = ("site", "epoch", "layer", "frame", "kind", "seed", "parameters_freed")
    assert [[s[k] for k in keys] for s in events(a, "switch")] == [[s[k] for k in keys] for s in events(b, "switch")]
    states = [checkpoint.load(folder) for folder in (a, b)]
    assert states[0]["fixed"].keys() == states[1]["fixed"].keys()
    for part in ("generators", "torch_rng"):
        assert str(states[0][part]) == str(states[1][part])
    for name, tensor in states[0]["model"].items():
        if name.endswith("kv.bias"):  # that of the keys changes nothing: its gradient is rounding alone
            continue
        torch.testing.assert_close(tensor, states[1]["model"][name], rtol=1e-2, atol=1e-4)
        assert tensor.untyped_storage().nbytes() == tensor.nbytes  # not a view of the stack


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        (
            "etf=last_k",
            "etf.k=2",
            "optimizer=adamw",
            "optimizer.lr=0.01",
            "dataset.augment=crop_flip",
            "model.norm=none",
        ),
        ("optimizer.momentum=0", "model.norm=none", "schedule=cosine", "metrics.every=4", "batch_size=199"),
        ("model=vit", "etf=transformer_ffn", "etf.blocks=last1", "optimizer=adamw", "optimizer.lr=0.003"),
        ("model=vit", "model.pool=mean", "optimizer.nesterov=true", "dataset.pixels=standardize"),
        ("model=cnn", "dataset.augment=crop_flip", "optimizer.lr=0.01", "epochs=3"),
        APART,
    ],
)
def test_every_seed_is_its_own_run(tiny, tmp_path, overrides):
    config = tiny(*overrides, root=tmp_path / "together")
    assert list(train_seeds(of_seeds(config)).values()) == [None] * 3
    for one in of_seeds(config):
        alone = train(tiny(*overrides, f"seed={one.seed}", root=tmp_path / "alone"))
        assert alone.name == one.folder.name
        assert_close_run(one.folder, alone)
        stored = (one.folder / "config.yaml").read_text().replace(str(tmp_path / "together"), str(tmp_path / "alone"))
        assert stored == (alone / "config.yaml").read_text()
        assert {p.name for p in one.folder.iterdir()} == {p.name for p in alone.iterdir()}
        assert [e["event"] for e in events(one.folder)] == [e["event"] for e in events(alone)]
        assert 0 < events(one.folder, "done")[0]["seconds"] < 60


def test_seeds_part_where_their_switches_do_and_meet_again(tiny):
    configs = of_seeds(tiny(*APART))
    train_seeds(configs)
    switches = [[(s["site"], s["epoch"]) for s in events(c.folder, "switch")] for c in configs]
    assert len({str(s) for s in switches}) == 3
    sizes = [[e.get("seeds", 1) for e in events(c.folder, "epoch")] for c in configs]
    assert [s[0] for s in sizes] == [3, 3, 3]
    assert 1 in sizes[1]
    assert sizes[1][-1] == sizes[2][-1] == 2


def models(build, optimizer, dataset, dtype=torch.float64, seeds=3):
    """Fits as far as an epoch of training needs them."""
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = build().to(dtype)
        one = learner(model, optimizer(model.parameters()), run=lambda x, model=model: model(x.double()))
        yield SimpleNamespace(
            learner=one, model=model, feed=feed(dataset, 128, (seed, seed)), progress=Progress(part=Part()), check=go_on
        )


def go_on():
    """Nobody asks to stop."""


def in_double(model, objective, parameters, buffers, batch):
    return stacked_losses(model, objective, parameters, buffers, replace(batch, inputs=batch.inputs.double()))


@pytest.mark.parametrize(
    ("build", "optimizer"),
    [
        (lambda: MLP(64, 10, 4, 24), lambda p: sgd(SGDSettings(lr=0.05), p)),
        (lambda: ViT((1, 8, 8), 10, width=24, heads=2), lambda p: adamw(AdamWSettings(), p)),
    ],
)
def test_an_epoch_in_double_precision_is_that_of_single_models(tiny, build, optimizer):
    data = load_dataset(tiny("dataset.augment=crop_flip").dataset, ".")
    stacked, single = (list(models(build, optimizer, data)) for _ in range(2))
    for _ in range(2):  # the second goes on with the state of the first
        losses = train_epoch_stacked(stacked, in_double)
        for one, other, loss in zip(single, stacked, losses, strict=True):
            other.progress.part = Part()
            alone = train_epoch(one.learner, one.feed)
            assert loss == pytest.approx(alone, rel=1e-10)
            torch.testing.assert_close(other.model.state_dict(), one.model.state_dict(), rtol=1e-9, atol=1e-9)
            states = [f.learner.optimizer.state_dict()["state"] for f in (other, one)]
            torch.testing.assert_close(*states, rtol=1e-8, atol=1e-10)
            assert all(t.is_contiguous() for state in states[0].values() for t in state.values())


@pytest.mark.fast
def test_only_what_is_alike_is_stacked(tiny):
    data = load_dataset(tiny().dataset, ".")
    plain = lambda p: sgd(SGDSettings(), p)  # noqa: E731
    alike = list(models(lambda: MLP(64, 10, 3, 16), plain, data))
    members = [SimpleNamespace(fit=one) for one in alike]
    assert _groups(members) == [members]
    changes = {
        "wider": next(models(lambda: MLP(64, 10, 3, 17), plain, data)),
        "activation": next(models(lambda: MLP(64, 10, 3, 16, activation="tanh"), plain, data)),
        "dtype": next(models(lambda: MLP(64, 10, 3, 16), plain, data, torch.float32)),
        "rate": next(models(lambda: MLP(64, 10, 3, 16), lambda p: sgd(SGDSettings(lr=0.5), p), data)),
        "adamw": next(models(lambda: MLP(64, 10, 3, 16), lambda p: adamw(AdamWSettings(), p), data)),
        "later": next(models(lambda: MLP(64, 10, 3, 16), plain, data)),
        "partly": next(models(lambda: MLP(64, 10, 3, 16), lambda p: sgd(SGDSettings(), list(p)[1:]), data)),
    }
    changes["later"].progress.part.batches = 1
    for name, change in changes.items():
        assert _structure(change) != _structure(alike[0]), name
    first = next(iter(alike[0].learner.optimizer.param_groups[0]["params"]))
    alike[0].learner.optimizer.state[first]["factors"] = torch.zeros(3)  # not a number for every weight
    assert _groups(members) == [members[:1], members[1:]]


def kill_at(monkeypatch, epoch, seed):
    """The process ends right after the checkpoint of one seed."""
    save = fit.Fit.save

    def then_stop(self):
        save(self)
        if self.progress.epoch == epoch and f"-s{seed}-" in folder_of(self).name:
            raise Killed

    monkeypatch.setattr(fit.Fit, "save", then_stop)


@pytest.mark.parametrize(
    "overrides", [APART, ("model=vit", "optimizer=adamw", "optimizer.lr=0.003", "dataset.augment=crop_flip")]
)
def test_killed_together_resumed_singly_and_together(tiny, tmp_path, monkeypatch, overrides):
    """Killed between two checkpoints of one epoch, so that the seeds are an epoch apart; then one goes on alone, is
    killed too, and the rest of all is trained together."""
    configs = of_seeds(tiny(*overrides, root=tmp_path / "cut"))
    kill_at(monkeypatch, epoch=3, seed=1)
    with pytest.raises(Killed):
        train_seeds(configs)
    assert [checkpoint.load(c.folder)["progress"]["epoch"] for c in configs] == [3, 3, 2]
    monkeypatch.undo()
    kill_at(monkeypatch, epoch=5, seed=0)
    with pytest.raises(Killed):
        train(configs[0])
    monkeypatch.undo()
    assert set(train_seeds(configs).values()) == {None}
    for config in configs:
        assert events(config.folder, "resume")
        whole = train(tiny(*overrides, f"seed={config.seed}", root=tmp_path / "whole"))
        assert_close_run(config.folder, whole)
        if overrides is not APART:  # those that were behind have caught up
            assert events(config.folder, "epoch")[-1]["seeds"] == 3


def test_killed_together_is_resumed_by_single_runs(tiny, tmp_path, monkeypatch):
    configs = of_seeds(tiny(root=tmp_path / "cut"))
    kill_at(monkeypatch, epoch=3, seed=2)
    with pytest.raises(Killed):
        train_seeds(configs)
    monkeypatch.undo()
    for config in configs:
        assert events(train(config), "resume")
        assert_close_run(config.folder, train(tiny(f"seed={config.seed}", root=tmp_path / "whole")))


def test_finished_seeds_are_skipped_and_others_join(tiny, capsys):
    configs = of_seeds(tiny())
    first = train(configs[0])
    stamp = (first / "summary.json").stat().st_mtime_ns
    train_seeds(configs)
    assert f"already finished: {first}" in capsys.readouterr().out
    assert (first / "summary.json").stat().st_mtime_ns == stamp
    assert all((c.folder / "DONE").exists() for c in configs)
    assert {e["seeds"] for e in events(configs[1].folder, "epoch")} == {2}
    train_seeds(of_seeds(tiny("overwrite=true")))
    assert (first / "summary.json").stat().st_mtime_ns > stamp


def test_a_seed_begun_with_other_threads_goes_on_with_them_and_alone(tiny, monkeypatch):
    kill_at(monkeypatch, epoch=2, seed=0)
    with pytest.raises(Killed):
        train(tiny("threads=2").of_seed(0))
    monkeypatch.undo()
    configs = of_seeds(tiny())
    train_seeds(configs)
    torch.set_num_threads(1)
    assert not [e for e in events(configs[0].folder, "epoch") if "seeds" in e]
    assert {e["seeds"] for e in events(configs[1].folder, "epoch")} == {2}


def test_a_seed_that_fails_costs_no_other(tiny, tmp_path, monkeypatch, capsys):
    set_lr, rows_of = fit.Fit._set_lr, RunFolder.rows

    def explode(self, epoch):
        set_lr(self, epoch)
        if epoch == 2 and "-s1-" in folder_of(self).name:
            self.learner.optimizer.param_groups[0]["lr"] = 1e38

    def full(self, some):
        if some[0][0] == 4 and "-s2-" in self.path.name:
            raise OSError(28, "No space left on device", str(self.path))
        rows_of(self, some)

    configs = of_seeds(tiny(), seeds=range(5))
    with RunFolder(configs[4].folder), monkeypatch.context() as patched:
        patched.setattr(fit.Fit, "_set_lr", explode)
        patched.setattr(RunFolder, "rows", full)
        ended = train_seeds(configs)
    kinds = [type(ended[c.folder]) for c in configs]
    assert kinds == [type(None), Diverged, OSError, type(None), RunLocked]
    assert "seed 1 failed: training diverged in epoch 3 at learning rate 1e+38" in capsys.readouterr().out
    assert checkpoint.load(configs[1].folder)["progress"]["epoch"] == 2
    for config in (configs[0], configs[3]):
        assert_close_run(config.folder, train(tiny(f"seed={config.seed}", root=tmp_path / "alone")))
    assert set(train_seeds(configs).values()) == {None}  # the same command again, nothing in its way


def test_debug_raises_the_first_failure(tiny):
    configs = of_seeds(tiny("debug=true", "optimizer.lr=1e38", "model.norm=none"))
    with pytest.raises(Diverged):
        train_seeds(configs)


def test_a_mirror_for_every_seed(tiny):
    """The real library, offline: several runs of one process at once."""
    configs = of_seeds(tiny("tracker=wandb", "tracker.mode=offline", "epochs=2"), seeds=(0, 1))
    train_seeds(configs)
    for config in configs:
        assert len(list((config.folder / "wandb").glob("offline-run-*/*.wandb"))) == 1
        assert not events(config.folder, "warning")


def test_a_sweep_trains_runs_that_differ_in_their_seed_at_once(tiny, capfd):
    configs = [tiny(f"model.depth={depth}", "epochs=3").of_seed(s) for s in range(5) for depth in (3, 4)]
    outcomes = run_all(configs, jobs=1, stack=4)
    assert [o.folder for o in outcomes] == [c.folder for c in configs]
    assert {o.error for o in outcomes} == {None}
    sizes = {(c.seed, c.model.depth): {e.get("seeds", 1) for e in events(c.folder, "epoch")} for c in configs}
    assert sizes == {(s, depth): {1 if s == 4 else 4} for s in range(5) for depth in (3, 4)}
    assert "[10/10] main/digits-mlp4x24-none-e3-s4" in capfd.readouterr().out


@pytest.mark.parametrize("keys", [("model=vit",), ("etf=last_k", "etf.k=2", "etf.bias=false")])
def test_bf16_trains_in_turns_to_the_bit(tiny, tmp_path, keys):
    keys = (*keys, "precision=bf16", "epochs=2")
    configs = of_seeds(tiny(*keys, root=tmp_path / "together"))
    assert set(train_seeds(configs).values()) == {None}
    for config in configs:
        alone = train(tiny(*keys, f"seed={config.seed}", root=tmp_path / "alone"))
        assert (config.folder / "metrics.csv").read_bytes() == (alone / "metrics.csv").read_bytes()


def test_all_save_when_one_does(tiny, monkeypatch):
    """A switch saves at once; were the other seeds left behind, they would catch up alone after a kill."""
    configs = of_seeds(tiny(*APART))
    for config in configs:
        config.checkpoint_seconds = 1e9
    saved: dict[str, list[int]] = {}
    save = fit.Fit.save

    def note(self) -> None:
        saved.setdefault(folder_of(self).name, []).append(self.progress.epoch)
        save(self)

    monkeypatch.setattr(fit.Fit, "save", note)
    train_seeds(configs)
    switched = {s["epoch"] for c in configs for s in events(c.folder, "switch")}
    assert len(switched) > 1
    assert set(map(tuple, saved.values())) == {tuple(sorted(switched | {8}))}


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.parametrize("keys", [("model.depth=2", "model.width=10"), ("model=cnn", "model.channels=[4]")])
def test_compiled_steps_give_the_same_training(tiny, tmp_path, keys):
    keys = (*keys, "epochs=2")
    configs = of_seeds(tiny(*keys, "compile=true", root=tmp_path / "compiled"), seeds=(0, 1))
    train_seeds(configs)
    for config in configs:
        assert_close_run(config.folder, train(tiny(*keys, f"seed={config.seed}", root=tmp_path / "plain")))


def test_seeds_that_keep_a_cpu_busy_train_in_turns(tiny, monkeypatch):
    """Then every one is its own run to the bit."""
    overrides = ("epochs=2", "model.depth=3", "model.width=16", "batch_size=64")
    flops = 2 * 64 * (64 * 16 + 16 * 16 + 16 * 10)  # of a forward pass
    for most, least, seeds in ((flops, 3, 3), (flops, 4, None), (flops - 1, 3, None)):
        monkeypatch.setattr(training_seeds, "MOST_FLOPS_ON_CPU", most)
        monkeypatch.setattr(training_seeds, "LEAST_SEEDS_ON_CPU", least)
        configs = of_seeds(tiny(*overrides, "overwrite=true"))
        train_seeds(configs)
        assert {e.get("seeds") for c in configs for e in events(c.folder, "epoch")} == {seeds}
    files = [(c.folder / "metrics.csv").read_bytes() for c in configs]
    for config, file in zip(configs, files, strict=True):
        config.overwrite = True
        assert (train(config) / "metrics.csv").read_bytes() == file
