"""Episodes of Reacher: what is made, kept and checked, and the scripted expert."""

import importlib.util
from hashlib import md5

import numpy as np
import pytest
import torch

from nclab.data import DatasetSettings, MissingDataError, load_dataset, reacher
from nclab.data.checksum import ChecksumError
from nclab.data.command import run
from nclab.data.fetching import FetchError, fetch
from nclab.interfaces.shapes import ArrayShape
from nclab.interfaces.targets import Values

control = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in reacher.PACKAGES), reason="needs the extra control"
)


def arm(q1, q2, goal1, goal2, w=(0.0, 0.0)):
    """An observation of an arm whose target is where the joints goal1, goal2 put the finger tip."""
    upper, lower = reacher.LINKS
    x, y = (upper * f(goal1) + lower * f(goal1 + goal2) for f in (np.cos, np.sin))
    return np.array([np.cos(q1), np.cos(q2), np.sin(q1), np.sin(q2), x, y, *w, 0.0, 0.0])


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ((0.3, 0.5, 0.3, 0.5), (0.0, 0.0)),  # there already
        ((0.3, 0.5, 0.7, 0.5), (0.1, 0.0)),
        ((0.3, 0.5, 0.3, 0.9), (0.0, 0.06)),
        ((0.3, -0.5, 0.3, -0.9), (0.0, -0.06)),  # the elbow on the other side
        ((3.0, 0.5, -3.0, 0.5), (0.25 * (2 * np.pi - 6), 0.0)),  # the short way round
        ((0.3, 0.5, 0.3, 0.5, (2.0, 1.0)), (-0.1, -0.03)),  # braked
        ((0.3, 0.5, 0.3, 0.5, (200.0, -900.0)), (-1.0, 1.0)),  # clipped
    ],
)
def test_the_expert_goes_where_the_target_is(state, expected):
    np.testing.assert_allclose(reacher.expert(arm(*state)), expected, atol=1e-9)


@pytest.fixture
def played(monkeypatch):
    """Four short episodes in place of a simulation, under their own checksum."""
    rows = np.random.default_rng(0).normal(size=(200, 12)).astype(np.float32)

    def kept(path):
        np.save(path, rows)
        return md5(path.read_bytes(), usedforsecurity=False).hexdigest()

    monkeypatch.setattr(reacher, "played", lambda: (rows, np.zeros(4)))
    return rows, kept


@pytest.mark.fast
def test_fetched_once_and_checked_at_every_load(played, tmp_path, monkeypatch, capsys):
    rows, kept = played
    monkeypatch.setattr(reacher, "MD5", kept(tmp_path / "own.npy"))
    root = tmp_path / "data"
    with pytest.raises(MissingDataError, match=r"reacher is not under .*data .*nclab-data fetch reacher --root"):
        load_dataset(DatasetSettings("reacher"), root)
    assert run(["fetch", "reacher", "--root", str(root)]) == 0
    assert "100 train and 100 test arrays under" in capsys.readouterr().out
    assert "already" in fetch("reacher", root)
    data = load_dataset(DatasetSettings("reacher"), root)
    assert (data.shape, data.targets) == (ArrayShape(10), Values(2))
    assert torch.equal(data.train.samples, torch.from_numpy(rows[:100, :10]))
    assert torch.equal(data.splits["test"].targets, torch.from_numpy(rows[100:, 10:]))
    (root / reacher.FILE).write_bytes((root / reacher.FILE).read_bytes()[:-1] + b"x")
    with pytest.raises(ChecksumError, match="expected md5"):
        load_dataset(DatasetSettings("reacher"), root)
    assert "made" not in fetch("reacher", root)  # a damaged one is made again
    assert len(load_dataset(DatasetSettings("reacher"), root).train) == 100


def test_other_numbers_name_the_versions_that_gave_the_checksum(played, tmp_path, monkeypatch):
    monkeypatch.setattr(reacher, "version", lambda package: "9.9")
    with pytest.raises(FetchError, match=r"expected md5 .*; expected what gymnasium 1\.4\.0, mujoco 4\.0\.0 give, "
                       r"played by gymnasium 9\.9, mujoco 9\.9"):  # fmt: skip
        fetch("reacher", tmp_path)
    assert not (tmp_path / reacher.FILE).exists()


def test_without_the_extra_it_is_named(tmp_path, monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "mujoco" else real(name))
    monkeypatch.setattr(reacher, "PACKAGES", ("mujoco", "gymnasium", "imageio"))
    assert run(["fetch", "reacher", "--root", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "mujoco is not installed; install the extra control: pip install 'nclab[control]', in a checkout " in said


def test_there_is_no_other_source(tmp_path):
    with pytest.raises(FetchError, match="it is made on this machine: expected --source auto, got packages"):
        fetch("reacher", tmp_path, "packages")


@control
@pytest.mark.filterwarnings("ignore")
def test_the_episodes_are_those_of_the_checksum(tmp_path):
    """Returns near those of known experts (-3.9 to -4.2), and no action that was clipped."""
    fetch("reacher", tmp_path)
    rows, returns = reacher.played(4)
    kept = np.load(tmp_path / reacher.FILE, allow_pickle=False)
    np.testing.assert_array_equal(kept[:200], rows)
    assert abs(kept[:, 10:]).max() < 1
    assert -7 < returns.mean() < -2
