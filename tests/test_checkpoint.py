"""Two generations of checkpoints, each with its checksum: damage is found wherever it is, and costs some epochs."""

import os
import random
from pathlib import Path

import pytest
import torch
from run_folders import ADAPTIVE, Killed, assert_same_run, events, flat, killed_after, rows

from nclab.run.execute import train
from nclab.run.trained import load_trained
from nclab.runfolder import checkpoint
from nclab.runfolder.checkpoint import NAME, PREVIOUS
from nclab.runfolder.folder import RecordError


@pytest.fixture
def saved(tiny):
    """The folder of a run cut after epoch 4, whose checkpoints are of epochs 4 and 3."""
    return killed_after(4, tiny())


def epoch_of(folder, **how):
    return checkpoint.load(folder, **how)["progress"]["epoch"]


def silent(text):
    raise AssertionError(f"nothing was to be warned of: {text}")


def test_plain_torch_load_reads_a_checkpoint(saved):
    plain = torch.load(saved / NAME, weights_only=True)
    assert flat(plain) == flat(checkpoint.load(saved, warn=silent))


@pytest.mark.fast
def test_the_checkpoint_before_is_kept(saved):
    assert epoch_of(saved, warn=silent) == 4
    (saved / NAME).unlink()
    assert epoch_of(saved) == 3
    assert sorted(p.name for p in saved.glob("checkpoint*")) == [PREVIOUS]


def test_a_truncated_checkpoint_is_found_at_every_length(saved):
    whole = (saved / NAME).read_bytes()
    near_the_ends = [*range(12), *range(len(whole) - 80, len(whole))]
    for length in {*near_the_ends, *random.Random(0).sample(range(len(whole)), 40)}:
        (saved / NAME).write_bytes(whole[:length])
        warnings = []
        assert epoch_of(saved, warn=warnings.append) == 3, length
        assert f"{saved / NAME} cannot be read (" in warnings[0]
        assert f"in its place {PREVIOUS} is used, of epoch 3" in warnings[0]


def test_one_flipped_bit_is_found_wherever_it_is(saved):
    whole = (saved / NAME).read_bytes()
    draw = random.Random(1)
    for place in [*(draw.randrange(len(whole)) for _ in range(40)), *range(len(whole) - 50, len(whole))]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        (saved / NAME).write_bytes(flipped)
        warnings = []
        assert epoch_of(saved, warn=warnings.append) == 3, place
        assert "its checksum" in warnings[0]


@pytest.mark.parametrize("overrides", [("metrics.every=2",), ADAPTIVE])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_run_goes_on_from_the_checkpoint_before_bit_for_bit(tiny, tmp_path, capsys, damage, overrides):
    config = tiny(*overrides, root=tmp_path / "cut")
    folder = killed_after(4, config)
    whole = (folder / NAME).read_bytes()
    if damage == "missing":
        (folder / NAME).unlink()
    else:
        flipped = whole[:5000] + bytes([whole[5000] ^ 16]) + whole[5001:]
        (folder / NAME).write_bytes(whole[:5000] if damage == "truncated" else flipped)
    capsys.readouterr()
    train(config)
    (said,) = [line for line in capsys.readouterr().err.splitlines() if NAME in line]
    assert said.startswith(f"warning: {folder / NAME} {'is missing' if damage == 'missing' else 'cannot be read'}")
    (warned,) = [e for e in events(folder, "warning") if NAME in e["text"]]
    assert f"warning: {warned['text']}" == said
    assert_same_run(train(tiny(*overrides, root=tmp_path / "whole")), folder)
    assert len({r[:4] for r in rows(folder)}) == len(rows(folder))
    assert epoch_of(folder, warn=silent) == 6


def test_a_damaged_checkpoint_never_becomes_the_one_before(tiny):
    """Cut again right after the first save that follows: the good one must be there still."""
    folder = killed_after(4, tiny())
    (folder / NAME).write_bytes(b"damaged")
    killed_after(4, tiny())
    (folder / NAME).unlink()
    assert epoch_of(folder) == 3


def test_both_damaged_are_named_and_nothing_is_destroyed(tiny, tmp_path):
    folder = killed_after(4, tiny())
    logged = (folder / "metrics.csv").read_bytes()
    for name in (NAME, PREVIOUS):
        with (folder / name).open("r+b") as file:
            file.truncate(3000)
    both = rf"{NAME} cannot be read \(.+\), and .*{PREVIOUS} cannot be read \(.+\); overwrite=true"
    for use in (lambda: train(tiny()), lambda: load_trained(folder)):
        with pytest.raises(RecordError, match=both):
            use()
    (folder / PREVIOUS).unlink()
    with pytest.raises(RecordError, match=rf"{NAME} cannot be read \(.+\), and .*{PREVIOUS} is missing; overwrite"):
        train(tiny())
    assert (folder / "metrics.csv").read_bytes() == logged
    train(tiny("overwrite=true"))
    assert_same_run(train(tiny(root=tmp_path / "whole")), folder)


def test_a_network_is_loaded_from_the_checkpoint_before(saved, capsys):
    before = torch.load(saved / PREVIOUS, weights_only=True)["model"]
    (saved / NAME).write_bytes(b"")
    model, _, _ = load_trained(saved)
    assert flat(dict(model.state_dict())) == flat(dict(before))
    assert f"in its place {PREVIOUS} is used, of epoch 3" in capsys.readouterr().err
    assert (saved / NAME).read_bytes() == b""  # reading a run changes nothing in it


def unsealed(path):
    """A checkpoint as it was written before there were checksums."""
    state = torch.load(path, weights_only=True)
    torch.save({**state, "format": 1}, path)


def test_checkpoints_without_checksum_are_read(tiny, tmp_path):
    folder = killed_after(4, tiny())
    unsealed(folder / NAME)
    (folder / PREVIOUS).unlink()
    assert epoch_of(folder, warn=silent) == 4
    assert_same_run(train(tiny(root=tmp_path / "whole")), train(tiny()))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: ...")])
def test_memory_that_runs_out_is_no_damage(saved, monkeypatch, error):
    def no_room(*_, **__):
        raise error

    monkeypatch.setattr(torch, "load", no_room)
    with pytest.raises(type(error)):
        checkpoint.load(saved, warn=silent)


def no_hard_links(*_):
    raise OSError(95, "Operation not supported")


def cut_at(patch, stop, steps):
    """Patch the file operations so that a run ends in place of the `stop`-th that is made on a checkpoint. Returns what
    counts the checkpoints that were saved by then."""
    done = {"steps": 0, "saved": 0}

    def counted(name, real):
        def step(*args, **kwargs):
            if "checkpoint" in str(args[0]):
                done["steps"] += 1
                if done["steps"] == stop:
                    raise Killed
            made = real(*args, **kwargs)
            done["saved"] += name == "replace" and str(args[1]).endswith(NAME)
            return made

        return step

    for holder, name in steps:
        patch.setattr(holder, name, counted(name, getattr(holder, name)))
    return done


@pytest.mark.parametrize("hard_links", [True, False])
def test_a_kill_between_any_two_steps_of_saving_leaves_a_good_checkpoint(tiny, tmp_path, monkeypatch, hard_links):
    """Cut before every change of the folder that a save makes, look, resume, compare."""
    steps = [(Path, "replace"), (Path, "unlink"), *([(os, "link")] if hard_links else [])]
    if not hard_links:
        monkeypatch.setattr(os, "link", no_hard_links)
    whole = train(tiny("epochs=4", root=tmp_path / "whole"))
    with monkeypatch.context() as patch:
        total = cut_at(patch, None, steps)
        train(tiny("epochs=4", root=tmp_path / "count"))
    assert total == {"steps": 21 if hard_links else 15, "saved": 4}
    for stop in range(1, total["steps"] + 1):
        config = tiny("epochs=4", root=tmp_path / f"cut{stop}")
        with monkeypatch.context() as patch:
            done = cut_at(patch, stop, steps)
            with pytest.raises(Killed):
                train(config)
        state = checkpoint.load(config.folder, warn=lambda _: None)
        assert (state["progress"]["epoch"] if state else 0) == done["saved"]
        assert_same_run(whole, train(config))
        assert not list(config.folder.glob("*.part"))


def test_a_filesystem_without_hard_links_keeps_the_checkpoint_before_too(tiny, monkeypatch):
    monkeypatch.setattr(os, "link", no_hard_links)
    folder = killed_after(4, tiny())
    assert epoch_of(folder, warn=silent) == 4
    (folder / NAME).unlink()
    assert epoch_of(folder) == 3


@pytest.mark.parametrize(("state", "came"), [({"format": 99}, "99"), ({"model": {}}, "None"), ([1, 2], "list")])
def test_a_checkpoint_of_another_format_is_refused(tmp_path, state, came):
    torch.save(state, tmp_path / NAME)
    with pytest.raises(RecordError, match=f"has format {came}, expected 1 or 2"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("name", [NAME, PREVIOUS])
def test_a_checkpoint_cannot_run_code(tmp_path, name):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    torch.save({"format": 1, "model": Evil()}, tmp_path / name)
    with pytest.raises(RecordError, match="cannot be read"):
        checkpoint.load(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_a_checkpoint_takes_twice_its_size(saved):
    one = (saved / NAME).stat().st_size
    assert sum(p.stat().st_size for p in saved.glob("checkpoint*")) == pytest.approx(2 * one, rel=0.01)
