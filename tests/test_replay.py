"""sampler=replay: what the buffer holds, what a batch is made of, and that a run goes on with the same buffer."""

import os
import signal

import pytest
import torch
from run_folders import assert_same_run, flat, killed_after, rows

from nclab.bench.by_hand import feed
from nclab.bench.chaos import PATIENCE, forks
from nclab.config.schema import ConfigError
from nclab.data import Dataset, Split
from nclab.interfaces.targets import Classes
from nclab.run.execute import train, train_seeds
from nclab.runfolder import checkpoint
from nclab.system.signals import Stopped, StopSignals
from nclab.training import seeds
from nclab.training.phases import Phase, Portion
from nclab.training.progress import Part
from nclab.training.sampler import SamplerSettings, Shuffled
from nclab.training.samplers.replay import Replay, ReplaySettings, per_class

SIZES = (20, 20, 20, 20, 7, 20, 20, 20)  # of the classes 0 to 7; class 4 is small
TASKS = ("phases=tasks", "sampler=replay", "epochs=10", "batch_size=16", "dataset.train_size=400", "metrics.every=2")


@pytest.fixture
def dataset():
    """Eight classes, in no order."""
    labels = torch.arange(8).repeat_interleave(torch.tensor(SIZES))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(3))]
    images = torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8)
    return Dataset({"train": Split(images, labels)}, Classes(8), (1, 1, 1))


def in_pairs(dataset):
    """A phase for the classes 0 and 1, one for 2 and 3, ..."""
    return [Phase(f"p{i}", 2, (dataset.train.targets // 2 == i).nonzero().flatten()) for i in range(4)]


def begun(dataset, phase, batch_size=16, generator=None, **keys):
    """A sampler that is in this phase (0 to 3), the portion of it, and the generator."""
    generator = generator or torch.Generator().manual_seed(0)
    sampler = Replay(ReplaySettings(**{"share": None, **keys}))
    phases = in_pairs(dataset)
    sampler.setup(dataset, phases, batch_size)
    for each in phases[: phase + 1]:
        portion = Portion(dataset.train, each.rows)
        sampler.begin_phase(each, portion, generator)
    return sampler, portion, generator


def counts(dataset, rows):
    return dataset.train.targets[rows].bincount(minlength=8).tolist()


@pytest.mark.fast
def test_the_buffer_holds_as_many_of_every_class_seen(dataset):
    held = [counts(dataset, begun(dataset, phase, size=24)[0].memory()) for phase in range(4)]
    assert held[0] == [0] * 8
    assert held[1] == [12, 12, 0, 0, 0, 0, 0, 0]
    assert held[2] == [6, 6, 6, 6, 0, 0, 0, 0]
    assert held[3] == [4, 4, 4, 4, 4, 4, 0, 0]


@pytest.mark.fast
def test_of_a_class_it_gives_up_samples_and_takes_none_back(dataset):
    generator = torch.Generator().manual_seed(0)
    held = [set(begun(dataset, phase, size=24)[0].memory().tolist()) for phase in range(1, 4)]
    old = set((dataset.train.targets < 2).nonzero().flatten().tolist())
    assert held[2] & old < held[1] & old < held[0]
    assert len(held[2]) == 24
    assert (
        begun(dataset, 1, size=24)[0].memory().tolist()
        != begun(dataset, 1, size=24, generator=generator.manual_seed(1))[0].memory().tolist()
    )


@pytest.mark.fast
def test_what_a_small_class_cannot_give_the_others_do(dataset):
    assert counts(dataset, begun(dataset, 3, size=80)[0].memory()) == [14, 14, 14, 14, 7, 14, 0, 0]
    for n in range(200):  # by trying all
        best = max(p for p in range(200) if sum(min(p, size) for size in SIZES) <= n) if n < sum(SIZES) else max(SIZES)
        assert min(per_class(SIZES, n), max(SIZES)) == min(best, max(SIZES))


@pytest.mark.fast
@pytest.mark.parametrize(("share", "expected"), [(0.1, 1), (0.5, 9), (1.0, 20), (0.0, 0)])
def test_a_share_is_of_all_that_was_seen(dataset, share, expected):
    held = begun(dataset, 3, share=share)[0].memory()
    found = counts(dataset, held)
    assert found[:4] == [expected] * 4
    assert found[6:] == [0, 0]
    if share == 1.0:
        assert sorted(held.tolist()) == (dataset.train.targets < 6).nonzero().flatten().tolist()


@pytest.mark.fast
def test_a_batch_holds_one_part_new_samples_of_as_many_as_there_were_phases(dataset):
    for phase, new in enumerate((16, 8, 5, 4)):
        sampler, portion, generator = begun(dataset, phase, size=24)
        order = sampler.order(portion, 0, generator)
        assert len(order) == sampler.drawn(portion) == (40 if phase == 0 else 3 * 16)
        held = set(sampler.memory().tolist())
        for batch in order.split(16):
            fresh = dataset.train.targets[batch] // 2 == phase
            assert fresh.sum() == min(new, len(batch))
            assert set(batch[~fresh].tolist()) <= held
        past = order[dataset.train.targets[order] // 2 != phase]
        assert len(past) == 3 * (16 - new) if phase else len(past) == 0
        times = past.bincount(minlength=len(dataset.train))[sorted(held)] if held else torch.ones(1)
        assert times.max() - times.min() <= 1  # none twice before all once


@pytest.mark.fast
def test_the_first_phase_and_an_empty_buffer_draw_from_the_phase_alone(dataset):
    sampler, portion, generator = begun(dataset, 0, size=24)
    state = generator.get_state()
    shuffled = Shuffled(SamplerSettings()).order(portion, 0, generator)
    generator.set_state(state)
    assert torch.equal(sampler.order(portion, 0, generator), shuffled)
    sampler, portion, generator = begun(dataset, 2, size=0)  # 27 samples: 48 of them are nearly two passes
    order = sampler.order(portion, 0, generator)
    assert len(order) == 48
    times = order.bincount(minlength=len(dataset.train))[portion.rows]
    assert sorted(set(times.tolist())) == [1, 2]
    assert times.sum() == 48


@pytest.mark.fast
def test_a_last_batch_of_one_is_no_step(dataset):
    sampler, portion, generator = begun(dataset, 1, batch_size=13, size=24)  # 40 = 3 * 13 + 1
    assert len(sampler.order(portion, 0, generator)) == 3 * 13


@pytest.mark.fast
def test_a_feed_knows_how_many_rows_an_epoch_has(dataset):
    """By which seeds are stacked: also in a phase of fewer samples than the first."""
    data = feed(dataset, 16)
    data.sampler, data.phases = Replay(ReplaySettings(share=0.2)), in_pairs(dataset)
    data.sampler.setup(dataset, data.phases, 16)
    for epoch in range(6):  # two a phase
        part = Part()
        data.begin_epoch(epoch, part)
        assert data.samples(epoch) == len(data.order(epoch, part)) == (40 if epoch < 2 else 48)


@pytest.mark.fast
def test_a_sampler_that_takes_the_state_back_draws_the_same(dataset):
    sampler, portion, generator = begun(dataset, 2, size=24)
    state, at = sampler.state_dict(), generator.get_state()
    expected = sampler.order(portion, 5, generator)
    other = Replay(ReplaySettings(size=24, share=None))
    other.setup(dataset, in_pairs(dataset), 16)
    other.load_state_dict(state)
    assert torch.equal(other.memory(), sampler.memory())
    assert torch.equal(other.order(portion, 5, generator.set_state(at)), expected)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"size": 3, "share": 0.1}, "needs sampler.size or sampler.share and null for the other, got 3 and 0.1"),
        (
            {"size": None, "share": None},
            "needs sampler.size or sampler.share and null for the other, got null for both",
        ),
        ({"size": -1, "share": None}, "sampler.size must be at least 0"),
        ({"share": 1.5}, "sampler.share must be at most 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        ReplaySettings(**keys)


@pytest.mark.fast
def test_a_buffer_or_a_batch_that_is_too_small_is_refused(dataset):
    phases = in_pairs(dataset)
    for keys, size, message in (
        ({"size": 5}, 16, "a buffer of 5 samples has none of each of 6 classes"),
        ({"share": 0.01}, 16, "a buffer of 0 samples has none of each of 2 classes"),
        ({"size": 24}, 3, "batch_size must be at least 4, one new sample in a batch of the last phase; got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            Replay(ReplaySettings(**{"share": None, **keys})).setup(dataset, phases, size)
    with pytest.raises(ValueError, match="sampler=replay needs two or more phases, got 1"):
        Replay(ReplaySettings()).setup(dataset, phases[:1], 16)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("phases=single",), "sampler=replay needs two or more phases, got 1"),
        (("sampler.share=null", "sampler.size=4"), "a buffer of 4 samples has none of each of 6 classes"),
        (("batch_size=4",), "batch_size must be at least 5"),
    ],
)
def test_runs_that_do_not_fit_are_refused_before_anything_is_written(tiny, tmp_path, keys, message):
    given = {key.partition("=")[0]: key for key in (*TASKS, *keys)}
    with pytest.raises(ConfigError, match=message):
        train(tiny(*given.values()))
    assert not list(tmp_path.iterdir())


def test_replay_remembers_what_is_else_forgotten(tiny, tmp_path):
    def first_task(share):
        folder = train(tiny(*TASKS, f"sampler.share={share}", root=tmp_path / str(share)))
        assert checkpoint.load(folder)["progress"]["steps"] == 10 * 5  # steps of every task as of the first
        return next(r[4] for r in reversed(rows(folder)) if r[1:4] == ("task1", "network", "accuracy"))

    assert first_task(0.0) == 0
    assert first_task(0.5) > 0.7


def test_killed_in_the_third_task_it_goes_on_to_the_same_bits(tiny, tmp_path):
    keys = (*TASKS, "sampler.share=0.2", "optimizer.momentum=0.9")
    whole = train(tiny(*keys, root=tmp_path / "whole"))
    for epoch in (4, 5):  # after the second task, and in the middle of the third
        folder = killed_after(epoch, tiny(*keys, root=tmp_path / str(epoch)))
        assert checkpoint.load(folder)["progress"]["epoch"] == epoch
        resumed = train(tiny(*keys, root=tmp_path / str(epoch)))
        assert_same_run(resumed, whole)
        assert flat(checkpoint.load(resumed)["sampler"]) == flat(checkpoint.load(whole)["sampler"])


def train_until_killed(config, step):
    """In a process of its own: kill -9 comes within this step, counted from 1."""
    count, steps = Part.count, iter(range(1, step + 1))

    def then_kill(self, loss, samples):
        count(self, loss, samples)
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    Part.count = then_kill
    train(config)


def test_kill_9_in_the_middle_of_the_third_task_changes_no_bit(tiny, tmp_path):
    """A real process, in the second epoch of the task, five steps each; as often as it has left."""
    keys = (*TASKS, "sampler.share=0.2", "optimizer.momentum=0.9")
    whole, config = train(tiny(*keys, root=tmp_path / "whole")), tiny(*keys)
    for step in (27, 2):  # of each life; the second begins with the fifth epoch saved
        process = forks().Process(target=train_until_killed, args=(config, step), daemon=True)
        process.start()
        process.join(PATIENCE)
        assert process.exitcode == -signal.SIGKILL
        assert checkpoint.load(config.folder)["progress"]["epoch"] == 5
    resumed = train(config)
    assert_same_run(resumed, whole)
    assert flat(checkpoint.load(resumed)["sampler"]) == flat(checkpoint.load(whole)["sampler"])


@pytest.mark.parametrize("step", [22, 27])
def test_stopped_in_an_epoch_of_the_third_task_it_goes_on_there(tiny, tmp_path, monkeypatch, step):
    """Its first epoch and its second, five steps each."""
    keys = (*TASKS, "sampler.share=0.2")
    whole = train(tiny(*keys, root=tmp_path / "whole"))
    config, count = tiny(*keys), Part.count

    def then_stop(self, loss, samples):
        count(self, loss, samples)
        then_stop.steps += 1
        if then_stop.steps == step:
            StopSignals._active.number = signal.SIGTERM

    then_stop.steps = 0
    with monkeypatch.context() as patch:
        patch.setattr(Part, "count", then_stop)
        with pytest.raises(Stopped):
            train(config)
    progress = checkpoint.load(config.folder)["progress"]
    assert (progress["epoch"], progress["part"]["batches"]) == ((step - 1) // 5, step % 5)
    assert_same_run(train(config), whole)


def test_several_seeds_at_once_have_buffers_of_their_own(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(seeds, "LEAST_SEEDS_ON_CPU", 2)
    keys = (*TASKS, "sampler.share=0.2", "metrics.every=0")
    config = tiny(*keys)
    assert list(train_seeds([config.of_seed(s) for s in (0, 1)]).values()) == [None, None]
    alone = train(tiny(*keys, "seed=1", root=tmp_path / "alone"))
    found, expected = (checkpoint.load(f) for f in (tmp_path / "main" / alone.name, alone))
    assert flat(found["sampler"]) == flat(expected["sampler"])
    for name, weight in expected["model"].items():
        torch.testing.assert_close(found["model"][name], weight, rtol=1e-3, atol=1e-4)
