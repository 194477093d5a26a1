"""Made-up files of datasets, for the tests that load and fetch them."""

import io
import pickle
import struct
import tarfile
from hashlib import md5
from pathlib import Path

import numpy as np
import torch
import torchvision

from nclab.data import cifar, mnist


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, shape, generator=seeded(seed)).to(torch.uint8)


def digest(data: bytes) -> str:
    return md5(data).hexdigest()


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist_content(train: int = 20, test: int = 20) -> dict[str, bytes]:
    """File name -> content of a made-up MNIST of so many images."""
    content = {}
    for (images, labels), count in zip(mnist.FILES.values(), (train, test), strict=True):
        content[images] = idx(random_images(count, 28, 28, seed=count).numpy())
        content[labels] = idx(np.arange(count, dtype=np.uint8) % 10)
    return content


def write_mnist(root: Path, monkeypatch, train: int = 20, test: int = 10) -> Path:
    """The folder root/MNIST/raw with a made-up MNIST in it, the checksum table following."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    content = mnist_content(train, test)
    for name, data in content.items():
        (raw / name).write_bytes(data)
    monkeypatch.setitem(mnist.MD5, "mnist", {name: digest(data) for name, data in content.items()})
    return raw


def cifar_batch(count: int, seed: int, classes: int = 10) -> tuple[np.ndarray, list[int]]:
    return random_images(count, 3072, seed=seed).numpy(), [i % classes for i in range(count)]


def cifar_content(name: str, monkeypatch) -> tuple[dict[str, bytes], dict[str, tuple[np.ndarray, list[int]]]]:
    """File name -> content of a made-up CIFAR of torchvision's layout, checksum tables following; and the arrays."""
    kind = getattr(torchvision.datasets, cifar.TORCHVISION[name])
    classes, key = cifar.NUM_CLASSES[name], "labels" if name == "cifar10" else "fine_labels"
    arrays, content = {}, {}
    for lists in ("train_list", "test_list"):
        for file, _ in getattr(kind, lists):
            arrays[file] = pixels, labels = cifar_batch(classes, len(arrays), classes)
            content[file] = pickle.dumps({"data": pixels, key: labels}, protocol=2)
        monkeypatch.setattr(kind, lists, [[file, digest(content[file])] for file, _ in getattr(kind, lists)])
    names = content[kind.meta["filename"]] = pickle.dumps({kind.meta["key"]: [str(i) for i in range(classes)]})
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": digest(names)})
    return content, arrays


def tar_gz(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path
