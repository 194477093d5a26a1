"""Arrays of a user's own .npz file: `dataset=npz dataset.path=FILE.npz`.

The file holds `x_train` and `y_train`, and pairs x_NAME and y_NAME for every other split (test, valid, ...). Without
x_test, dataset.test_size samples of train become the test split; without either there is none.

Samples: uint8 images (N, H, W), (N, H, W, C) with one or three channels, or (N, C, H, W); a last axis of 1 or 3 is
taken for channels. Floats (N, ...) become arrays in the precision of the run. Targets: integers (N,) or (N, 1) are
classes, floats (N,) or (N, n) are values. Object arrays are refused: loading them runs code.

`dataset.path` is part of what a run is, as it is written: the same file at another path makes another run.
"""

import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from nclab.data.arrays import ArraySettings
from nclab.data.augment import AUGMENTATIONS
from nclab.data.dataset import DATASETS, Dataset
from nclab.data.own import divided, found_at, kind_of, require_path
from nclab.data.split import Split
from nclab.interfaces.shapes import ArrayShape, ImageShape
from nclab.interfaces.valid import no_choice

CHANNELS = (1, 3)  # what makes a last axis one of channels
RGBA = 4  # channels last of pictures with transparency, which no model here reads


@dataclass
class NpzSettings(ArraySettings):
    """The keys of conf/dataset/npz.yaml; a value out of its choices raises ValueError."""

    path: str = field(kw_only=True)  # of the file, ~ included; part of the name of a run, as it is written
    augment: str = "none"  # of images: none | crop_flip: shift by up to 4 pixels and mirror, training batches only

    def __post_init__(self) -> None:
        super().__post_init__()
        require_path(self.path, "an .npz file")
        if self.augment not in AUGMENTATIONS:
            raise no_choice("dataset.augment", self.augment, AUGMENTATIONS)

    @property
    def augmentation(self) -> str:
        return self.augment


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of the file; ValueError, naming it, for a damaged one, another kind, or one that holds objects."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:  # noqa: TID251 - no pickles
            return {name: stored[name] for name in stored.files}
    except (OSError, EOFError, ValueError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: expected an .npz file of plain arrays, got another ({error})") from None


def samples_of(array: np.ndarray) -> torch.Tensor:
    """Images (N, ch, h, w) uint8 or arrays (N, ...) float32 or float64, see the module. ValueError for other arrays."""
    if array.dtype == np.uint8 and array.ndim == 3:
        array = array[:, None]
    elif array.dtype == np.uint8 and array.ndim == 4:
        if array.shape[3] == RGBA < array.shape[1]:
            raise ValueError(f"expected (N, H, W, C) of 1 or 3 channels, or (N, C, H, W); got shape {array.shape}")
        array = array.transpose(0, 3, 1, 2) if array.shape[3] in CHANNELS else array
    elif array.dtype.kind == "f" and array.ndim >= 1:
        array = (array[:, None] if array.ndim == 1 else array).astype(_floats(array))
    else:
        expected = "uint8 images (N, H, W), (N, H, W, C) or (N, C, H, W), or floats (N, ...)"
        raise ValueError(f"expected {expected}; got {array.dtype} of shape {array.shape}")
    if 0 in array.shape[1:]:
        raise ValueError(f"expected samples of at least one number, got shape {array.shape}")
    return torch.from_numpy(np.ascontiguousarray(array))


def targets_of(array: np.ndarray) -> torch.Tensor:
    """Classes (N,) int64 of integers, values (N, n) float32 or float64 of floats. ValueError for other arrays."""
    if array.dtype.kind in "iu" and array.ndim in (1, 2) and array.size == len(array):
        return torch.from_numpy(array.reshape(-1).astype(np.int64))
    if array.dtype.kind == "f" and array.ndim in (1, 2):
        return torch.from_numpy(array.reshape(len(array), -1).astype(_floats(array)))
    expected = "integers (N,) for classes or floats (N,) or (N, n) for values"
    raise ValueError(f"expected {expected}; got {array.dtype} of shape {array.shape}")


def _floats(array: np.ndarray) -> type:
    """The precision that holds what an array of floats holds: float64 for those and wider ones, else float32."""
    return np.float64 if array.dtype.itemsize >= 8 else np.float32


def splits_of(arrays: dict[str, np.ndarray]) -> dict[str, Split]:
    """Splits by name. ValueError for an array that belongs to none, or half of one."""
    names = {name.partition("_")[2] for name in arrays}
    wanted = {f"{axis}_{name}" for name in names | {"train"} for axis in "xy"}
    if set(arrays) != wanted:
        came = ", ".join(sorted(arrays)) or "none"
        raise ValueError(f"expected arrays x_train and y_train, and x_NAME with y_NAME for further splits; got {came}")
    splits = {}
    for name in sorted(names, key=("train", "test", "valid", *sorted(names)).index):
        tensors = []
        for key, convert in ((f"x_{name}", samples_of), (f"y_{name}", targets_of)):
            try:
                tensors.append(convert(arrays[key]))
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
        try:
            splits[name] = Split(*tensors)
        except ValueError as error:
            raise ValueError(f"x_{name}, y_{name}: {error}") from None
    return splits


@DATASETS.add("npz", NpzSettings)
def build(settings: NpzSettings, root: Path) -> Dataset:
    path = found_at(settings.path, "an .npz file", "is_file")
    arrays = read_npz(path)
    try:
        splits = divided(splits_of(arrays), settings.test_size)
        train = splits["train"]
        if len(train) == 0:
            raise ValueError("x_train: expected at least one sample, got none")
        shape = (ImageShape if train.samples.dtype == torch.uint8 else ArrayShape)(*train.samples.shape[1:])
        return Dataset(splits, kind_of(train.targets), shape)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
