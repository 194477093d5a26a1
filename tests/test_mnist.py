"""MNIST's layout: made-up files read as torchvision reads them, checked, missed."""

import gzip
import pickle

import numpy as np
import pytest
import torch
from data_files import digest, idx, write_mnist
from torchvision.datasets.mnist import read_image_file, read_label_file

from nclab.data import DatasetSettings, MissingDataError, load_dataset, mnist
from nclab.data.checksum import ChecksumError


@pytest.fixture
def mnist_files(tmp_path, monkeypatch):
    """Made-up MNIST of 20 and 10 images under tmp_path/MNIST/raw, the checksum table following."""
    return write_mnist(tmp_path, monkeypatch)


def test_mnist_reads_what_torchvision_reads(mnist_files, tmp_path):
    dataset = load_dataset(DatasetSettings("mnist"), tmp_path)
    for split, (images, labels) in mnist.FILES.items():
        ours = dataset.splits[split]
        assert torch.equal(ours.samples[:, 0], read_image_file(mnist_files / images))
        assert torch.equal(ours.targets, read_label_file(mnist_files / labels))


def test_mnist_reads_gz_files_alone(mnist_files, tmp_path):
    plain = load_dataset(DatasetSettings("mnist"), tmp_path)
    for path in list(mnist_files.iterdir()):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    packed = load_dataset(DatasetSettings("mnist"), tmp_path)
    assert torch.equal(plain.train.samples, packed.train.samples)
    damaged = mnist_files / "t10k-images-idx3-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte\.gz: expected a gzip file"):
        load_dataset(DatasetSettings("mnist"), tmp_path)


def test_mnist_with_a_changed_byte_names_file_expected_and_found(mnist_files, tmp_path):
    path = mnist_files / "train-labels-idx1-ubyte"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    expected, found = mnist.MD5["mnist"][path.name], digest(data)
    with pytest.raises(ChecksumError, match=f"{path}: expected md5 {expected}, found {found}"):
        load_dataset(DatasetSettings("mnist"), tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected an IDX file of bytes"),
        (b"\0\0\x0d\1" + bytes(8), "got 00 00 0d 01"),
        (b"\0\0\x08\3\0\0", "expected an IDX header of 16 bytes, got 6"),
        (idx(np.zeros((2, 3), np.uint8))[:-1], r"expected 6 bytes for \(2, 3\), got 5"),
    ],
)
def test_read_idx_refuses_other_files(data, message):
    with pytest.raises(ValueError, match=f"some file: .*{message}"):
        mnist.read_idx(data, "some file")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_missing_data_says_which_command_fetches_it(name, tmp_path, monkeypatch):
    with pytest.raises(MissingDataError, match=rf"nclab-data fetch {name} --root {tmp_path}$") as missing:
        load_dataset(DatasetSettings(name), tmp_path)
    assert str(pickle.loads(pickle.dumps(missing.value))) == str(missing.value)
    monkeypatch.setenv("NCLAB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"nclab-data fetch {name}$"):
        load_dataset(DatasetSettings(name), tmp_path)
