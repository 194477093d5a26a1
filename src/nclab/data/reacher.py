"""Reacher-v5 of gymnasium, imitated: 10 observations of a two-joint arm -> the 2 torques of a scripted expert.

`nclab-data fetch reacher` plays the episodes on this machine (extra `control`: gymnasium, mujoco, imageio) and
keeps them in <root>/reacher/episodes.npy, (2000, 12) float32, whose md5 is checked at every load. Numbers are rounded
to five decimals, so that machines that differ in the last bits of a float give the same file; gymnasium 1.1.1 with
mujoco 3.3.0 and 1.4.0 with 4.0.0 do.

1,000 train and 1,000 test samples: 20 episodes of 50 steps each. The expert's pickles of arXiv 2409.04180 are not
public; this one reaches its goal by inverse kinematics and a PD law. Observations and actions stay as they are, as in
the paper; `dataset.standardize` and `.standardize_targets` change that.
"""

import importlib.util
import io
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from nclab.data.checksum import ChecksumError, check_md5
from nclab.data.dataset import DATASETS, Dataset, MissingDataError
from nclab.data.fetching import SOURCES, FetchError, Source
from nclab.data.fetching.place import place
from nclab.data.regression import RegressionSettings, regression
from nclab.system.words import install_hint

FILE = "reacher/episodes.npy"
MD5 = "ede620ad32b9b3deeea1791c337b2d88"
EPISODES, STEPS = 40, 50
LINKS = (0.1, 0.11)  # m: from the shoulder to the elbow, from there to the finger tip
PACKAGES = ("gymnasium", "mujoco", "imageio")
VERSIONS = {"gymnasium": "1.4.0", "mujoco": "4.0.0"}  # that gave the md5
DECIMALS = 5


@dataclass
class ReacherSettings(RegressionSettings):
    name: str = "reacher"


def expert(observation: np.ndarray) -> np.ndarray:
    """Torques (2,) in [-1, 1] for an observation (10,): cosines and sines of both joints, the target's position, the
    joints' speeds, the finger tip minus the target.

    a = clip(0.25 [wrap(q1* - q1), 0.6 wrap(q2* - q2)] - 0.05 [w1, 0.6 w2], +-1), where q* puts the finger tip on the
    target with the elbow on the side where it is.
    """
    cos1, cos2, sin1, sin2, x, y, w1, w2 = observation[:8]
    q1, q2 = np.arctan2(sin1, cos1), np.arctan2(sin2, cos2)
    upper, lower = LINKS
    cosine = np.clip((x * x + y * y - upper**2 - lower**2) / (2 * upper * lower), -1.0, 1.0)
    goal2 = np.copysign(np.arccos(cosine), q2)
    goal1 = np.arctan2(y, x) - np.arctan2(lower * np.sin(goal2), upper + lower * np.cos(goal2))
    errors = np.array([_wrap(goal1 - q1), 0.6 * _wrap(goal2 - q2)])
    return np.clip(0.25 * errors - 0.05 * np.array([w1, 0.6 * w2]), -1.0, 1.0)


def played(episodes: int = EPISODES) -> tuple[np.ndarray, np.ndarray]:
    """What the expert saw and did, (episodes * STEPS, 12) float32, rounded, and the return of every episode.

    Episode e starts from gymnasium's seed e. Raises FetchError where a package is not installed.
    """
    if absent := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        needed = f"{', '.join(PACKAGES)} play it on this machine, and {absent[0]} is not installed"
        raise FetchError(f"{needed}; {install_hint('control')}")
    import gymnasium  # here, because only a fetch needs it

    rows, returns = [], []
    environment = gymnasium.make("Reacher-v5")
    for episode in range(episodes):
        observation, _ = environment.reset(seed=episode)
        returns.append(0.0)
        for _ in range(STEPS):
            action = expert(observation)
            rows.append(np.concatenate([observation, action]))
            observation, reward, *_ = environment.step(action)
            returns[-1] += float(reward)
    environment.close()
    return np.round(np.stack(rows), DECIMALS).astype(np.float32), np.array(returns)


@DATASETS.add("reacher", ReacherSettings)
def build(settings: ReacherSettings, root: Path) -> Dataset:
    """Reacher-v5 of gymnasium, imitated: 10 observations of a two-joint arm and the 2 torques of a scripted expert."""
    path = root / FILE
    if not path.exists():
        raise MissingDataError.of("reacher", root, FILE)
    data = path.read_bytes()
    check_md5(data, MD5, path)
    rows = torch.from_numpy(np.load(io.BytesIO(data), allow_pickle=False))  # noqa: TID251 - no pickles
    train, test = rows.split(len(rows) // 2)
    return regression(settings, {"train": (train[:, :10], train[:, 10:]), "test": (test[:, :10], test[:, 10:])})


def _wrap(angle: float) -> float:
    """The same angle in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _play(name: str, root: Path, staging: Path) -> None:
    rows, _ = played()
    file = staging / Path(FILE).name
    np.save(file, rows, allow_pickle=False)
    try:
        place(file, root / FILE, MD5)
    except ChecksumError as error:
        here = ", ".join(f"{package} {version(package)}" for package in VERSIONS)
        known = ", ".join(f"{package} {number}" for package, number in VERSIONS.items())
        raise FetchError(f"{error}; expected what {known} give, played by {here}") from None


SOURCES["reacher"] = Source(None, None, made=_play)
