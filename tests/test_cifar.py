"""CIFAR's layouts: made-up files of the binary and the Python version, read and checked."""

import numpy as np
import pytest
import torch
import torchvision
from data_files import cifar_batch, cifar_content, digest

from nclab.data import DatasetSettings, MissingDataError, cifar, load_dataset
from nclab.data.checksum import ChecksumError


@pytest.fixture
def cifar10_bin(tmp_path, monkeypatch):
    folder = tmp_path / cifar.BIN_FOLDER
    folder.mkdir()
    batches = {}
    for seed, file in enumerate(list(cifar.BIN_MD5)):
        pixels, labels = batches[file] = cifar_batch(10, seed)
        data = b"".join(bytes([label]) + row.tobytes() for label, row in zip(labels, pixels, strict=True))
        (folder / file).write_bytes(data)
        monkeypatch.setitem(cifar.BIN_MD5, file, digest(data))
    return batches


def test_cifar10_binary_layout(cifar10_bin, tmp_path):
    dataset = load_dataset(DatasetSettings("cifar10"), tmp_path)
    assert (len(dataset.train), len(dataset.splits["test"])) == (50, 10)
    pixels, labels = cifar10_bin["data_batch_2.bin"]
    assert torch.equal(dataset.train.samples[10:20].flatten(1), torch.from_numpy(pixels))
    assert dataset.train.targets[10:20].tolist() == labels
    assert torch.equal(dataset.splits["test"].samples.flatten(1), torch.from_numpy(cifar10_bin["test_batch.bin"][0]))


def test_cifar10_binary_layout_is_checked(cifar10_bin, tmp_path):
    with pytest.raises(ValueError, match="some file: expected rows of 3073 bytes, got 3074 bytes"):
        cifar.read_bin(bytes(3074), "some file")
    path = tmp_path / cifar.BIN_FOLDER / "data_batch_3.bin"
    path.write_bytes(bytes(30730))
    with pytest.raises(ChecksumError, match=r"data_batch_3\.bin: expected md5 .*, found"):
        load_dataset(DatasetSettings("cifar10"), tmp_path)
    path.unlink()
    with pytest.raises(MissingDataError, match="cifar-10-batches-bin/ or cifar-10-batches-py/"):
        load_dataset(DatasetSettings("cifar10"), tmp_path)


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar_python(request, tmp_path, monkeypatch):
    """Made-up files of torchvision's layout, its checksum tables following: name, and the arrays by file."""
    name = request.param
    folder = tmp_path / getattr(torchvision.datasets, cifar.TORCHVISION[name]).base_folder
    folder.mkdir()
    content, arrays = cifar_content(name, monkeypatch)
    for file, data in content.items():
        (folder / file).write_bytes(data)
    return name, folder, arrays


def test_cifar_python_layout(cifar_python, tmp_path):
    name, _, arrays = cifar_python
    dataset = load_dataset(DatasetSettings(name), tmp_path)
    *train, test = arrays.values()
    assert torch.equal(dataset.train.samples.flatten(1), torch.from_numpy(np.vstack([pixels for pixels, _ in train])))
    assert dataset.train.targets.tolist() == [label for _, labels in train for label in labels]
    assert torch.equal(dataset.splits["test"].samples.flatten(1), torch.from_numpy(test[0]))
    assert dataset.targets.count == cifar.NUM_CLASSES[name]
    assert dataset.train.samples.is_contiguous()


def test_cifar_python_layout_is_checked(cifar_python, tmp_path):
    name, folder, arrays = cifar_python
    file = list(arrays)[-1]
    (folder / file).write_bytes(b"not that")
    with pytest.raises(ChecksumError, match=f"{file}: expected md5 .*, found {digest(b'not that')}"):
        load_dataset(DatasetSettings(name), tmp_path)
    (folder / file).unlink()
    with pytest.raises(MissingDataError, match=f"looked for {folder.name}/{file}"):
        load_dataset(DatasetSettings(name), tmp_path)
