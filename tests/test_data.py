"""Datasets: loading, checks, subsets, augmentation. Files are made here; nothing is downloaded."""

import gzip
import pickle
import struct
from dataclasses import replace
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from omegaconf import OmegaConf
from torchvision.datasets.mnist import read_image_file, read_label_file

from nclab.data import (
    DATASETS,
    Dataset,
    DatasetSettings,
    ImageSettings,
    MissingDataError,
    Split,
    cifar,
    data_root,
    load_dataset,
    mnist,
)
from nclab.data.augment import PADDING, crop_flip
from nclab.data.checksum import ChecksumError
from nclab.data.stratify import stratified_indices
from nclab.interfaces.targets import Classes

CONF = Path(__file__).parent.parent / "conf" / "dataset"
NAMES = ["cifar10", "cifar100", "digits", "fashion_mnist", "mnist", "mnist5k"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, shape, generator=seeded(seed)).to(torch.uint8)


def small(classes: int = 3, per_class: int = 4, shape: tuple[int, int, int] = (2, 5, 6), **more) -> Dataset:
    labels = torch.arange(classes).repeat(per_class)
    train = Split(random_images(len(labels), *shape), labels)
    test = Split(random_images(len(labels), *shape, seed=1), labels)
    return Dataset({"train": train, "test": test}, Classes(classes), shape, **more)


# ---- registration, settings, root


def test_every_dataset_has_a_yaml_file_of_its_name_that_fits_its_settings():
    assert [name for name in DATASETS.names() if name in NAMES] == NAMES
    for name in DATASETS.names():
        schema = OmegaConf.structured(DATASETS[name].settings)
        merged = OmegaConf.merge(schema, OmegaConf.load(CONF / f"{name}.yaml"))
        assert OmegaConf.to_object(merged) == DATASETS[name].settings(name)


@pytest.mark.parametrize("key", ["pixels", "augment"])
def test_settings_outside_the_choices_raise(key):
    with pytest.raises(ValueError, match=rf"dataset\.{key}: expected one of .*; got 'wild'"):
        ImageSettings("digits", **{key: "wild"})


def test_load_wants_settings_and_a_known_name(tmp_path):
    with pytest.raises(TypeError, match="expected DatasetSettings, got dict"):
        load_dataset({"name": "digits"}, tmp_path)
    with pytest.raises(KeyError, match=r"unknown dataset 'svhn'; valid: .*digits"):
        load_dataset(DatasetSettings("svhn"), tmp_path)


def test_data_root_is_the_configured_folder_then_the_environment_then_data(monkeypatch):
    monkeypatch.setenv("NCLAB_DATA", "/env")
    assert data_root("/given") == Path("/given")
    assert data_root(None) == Path("/env")
    monkeypatch.delenv("NCLAB_DATA")
    assert data_root(None) == Path("data")


# ---- the checks of Split and Dataset


def test_split_checks_dtype_dimensions_and_counts():
    images, labels = random_images(4, 1, 2, 2), torch.arange(4)
    for wrong, came in (
        (images.double(), "4 dimensions of torch.float64"),
        (images[:, 0], "3 dimensions of torch.uint8"),
    ):
        with pytest.raises(ValueError, match=rf"samples: expected one of images \(N, ch, h, w\) uint8, .*; got {came}"):
            Split(wrong, labels)
    for wrong, came in (
        (labels.int(), "1 dimensions of torch.int32"),
        (labels.float(), "1 dimensions of torch.float32"),
    ):
        expected = r"targets: expected classes \(N,\) int64 or values \(N, n\) float32, got"
        with pytest.raises(ValueError, match=f"{expected} {came}"):
            Split(images, wrong)
    with pytest.raises(ValueError, match="expected one target a sample, got 4 samples and 3 targets"):
        Split(images, labels[:3])


def test_dataset_checks_shape_labels_pixels_and_that_train_has_every_class():
    good = small()
    labels = good.train.targets
    with pytest.raises(ValueError, match=r"train split: expected images of shape \(2, 6, 5\), got \(2, 5, 6\)$"):
        replace(good, shape=(2, 6, 5))
    with pytest.raises(ValueError, match="train split: expected labels 0 to 1, got 0 to 2"):
        replace(good, targets=Classes(2))
    with pytest.raises(ValueError, match="train split: expected pixels up to 16, got 2"):
        replace(good, pixel_max=16)
    with pytest.raises(ValueError, match="train split: expected images of every class, got none of class 3, 4"):
        replace(good, targets=Classes(5))
    with pytest.raises(ValueError, match="expected a split train, got test"):
        replace(good, splits={"test": good.train})
    for wrong, message in (
        (Split(good.train.samples, labels - 1), "expected labels 0 to 2, got -1 to 1"),
        (good.train[labels > 5], "expected at least one image, got no image"),
        (Split(good.train.samples, labels[:, None].float()), r"expected class numbers \(N,\) int64, got \(12, 1\)"),
        (Split(good.train.samples.float(), labels), r"expected images .*, got \(2, 5, 6\) of torch.float32"),
    ):
        with pytest.raises(ValueError, match=f"test split: {message}"):
            replace(good, splits={"train": good.train, "test": wrong})


def test_train_comes_first_and_only_train_needs_every_class():
    good = small()
    part = good.train[good.train.targets != 1]
    made = replace(good, splits={"valid": part, "train": good.train, "shifted": part})
    assert list(made.splits) == ["train", "valid", "shifted"]
    assert made.train is good.train


# ---- what the model sees


def test_inputs_are_float32_in_the_unit_interval():
    dataset = small()
    seen = dataset.inputs(dataset.train.samples)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen, dataset.train.samples.double().div(255).float(), rtol=0, atol=1e-7)


def test_standardized_inputs_have_mean_0_and_std_1_per_channel_of_train():
    dataset = small().standardized()
    seen = dataset.inputs(dataset.train.samples).double()
    torch.testing.assert_close(seen.mean((0, 2, 3)), torch.zeros(2).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(seen.std((0, 2, 3), correction=0), torch.ones(2).double(), rtol=0, atol=1e-6)
    reference = dataset.train.samples.double().div(255)
    torch.testing.assert_close(dataset.mean.flatten().double(), reference.mean((0, 2, 3)), rtol=1e-6, atol=0)
    test = (dataset.test.samples.double().div(255) - dataset.mean) / dataset.std  # train's numbers, not test's
    torch.testing.assert_close(dataset.inputs(dataset.test.samples).double(), test, rtol=0, atol=1e-5)


def test_a_constant_channel_cannot_be_standardized():
    dataset = small()
    dataset.train.samples[:, 1] = 7
    with pytest.raises(ValueError, match="expected pixels that vary, channel 1 is constant"):
        dataset.standardized()


def test_to_returns_an_equal_dataset():
    dataset = small(augment="crop_flip").standardized()
    moved = dataset.to("cpu")
    assert torch.equal(moved.inputs(moved.test.samples), dataset.inputs(dataset.test.samples))
    assert moved.augment == "crop_flip"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_sees_what_the_cpu_sees():
    dataset = small(augment="crop_flip").standardized()
    moved = dataset.to("cuda")
    assert {t.device.type for t in (moved.train.samples, moved.test.targets, moved.mean, moved.std)} == {"cuda"}
    seen = moved.inputs(moved.train.samples, seeded(1)).cpu()
    torch.testing.assert_close(seen, dataset.inputs(dataset.train.samples, seeded(1)), rtol=0, atol=1e-6)


# ---- augmentation


def slow_crop_flip(image: torch.Tensor, dy: int, dx: int, mirror: bool) -> torch.Tensor:
    """Pixel by pixel: out(y, x) = in(y + dy - 4, x' + dx - 4), zero outside, x' mirrored."""
    _, height, width = image.shape
    out = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            row, column = y + dy - PADDING, (width - 1 - x if mirror else x) + dx - PADDING
            if 0 <= row < height and 0 <= column < width:
                out[:, y, x] = image[:, row, column]
    return out


@pytest.mark.parametrize("shape", [(3, 9, 7), (1, 8, 8)])
def test_crop_flip_equals_a_pixel_by_pixel_reference(shape):
    images = random_images(24, *shape)
    changed = crop_flip(images, seeded(3))
    assert changed.dtype == torch.uint8
    assert changed.shape == images.shape
    generator = seeded(3)
    corner = torch.randint(2 * PADDING + 1, (2, 24), generator=generator)
    mirror = torch.randint(2, (24, 1, 1, 1), generator=generator).flatten()
    for i in range(24):
        expected = slow_crop_flip(images[i], int(corner[0, i]), int(corner[1, i]), bool(mirror[i]))
        assert torch.equal(changed[i], expected), i


def test_crop_flip_makes_every_shift_and_mirrors_half():
    ramp = torch.arange(1, 26, dtype=torch.uint8).reshape(1, 1, 5, 5).expand(4000, 1, 5, 5)
    changed = crop_flip(ramp, seeded())
    centre = changed[:, 0, 2, 2]  # its value tells the shift, where the centre still shows the image
    mirrored = (changed[:, 0, :, 1:].int() - changed[:, 0, :, :-1].int()).flatten(1).eq(-1).any(1)
    plain = (changed[:, 0, :, 1:].int() - changed[:, 0, :, :-1].int()).flatten(1).eq(1).any(1)
    assert not (mirrored & plain).any()
    assert abs(mirrored.sum() / (mirrored | plain).sum() - 0.5) < 0.03
    assert set(centre.tolist()) == set(range(26))
    assert len(changed.flatten(1).unique(dim=0)) > 81  # 9 x 9 shifts, both ways


def test_augmentation_is_for_training_only_and_follows_its_generator():
    dataset = small(augment="crop_flip")
    images = dataset.train.samples
    assert torch.equal(dataset.inputs(images, seeded(1)), dataset.inputs(images, seeded(1)))
    assert not torch.equal(dataset.inputs(images, seeded(1)), dataset.inputs(images, seeded(2)))
    assert torch.equal(dataset.inputs(images), small().inputs(images))
    assert torch.equal(small().inputs(images, seeded(1)), small().inputs(images))  # augment: none


# ---- subsets


def test_subset_is_in_proportion_by_largest_remainder():
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)[torch.randperm(100, generator=seeded())]
    for size in (1, 7, 10, 33, 99, 100):
        chosen = stratified_indices(labels, size)
        assert len(chosen.unique()) == size
        assert torch.equal(chosen, chosen.sort().values)
        exact = labels.bincount() * size / 100
        assert (labels[chosen].bincount(minlength=3) - exact).abs().max() < 1
    assert labels[stratified_indices(labels, 7)].bincount().tolist() == [4, 2, 1]  # 3.5, 2.1, 1.4


def test_subset_does_not_depend_on_the_seed_of_the_run():
    labels = torch.arange(10).repeat(20)
    torch.manual_seed(1)
    first = stratified_indices(labels, 50)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(first, stratified_indices(labels, 50))
    assert torch.equal(state, torch.get_rng_state())  # and leaves the run's generator alone
    assert not torch.equal(first, torch.arange(50))


@pytest.mark.parametrize("size", [0, 201])
def test_subset_size_out_of_range(size):
    with pytest.raises(ValueError, match=f"subset size must be between 1 and 200, got {size}"):
        stratified_indices(torch.arange(10).repeat(20), size)


def test_load_subsets_both_splits_and_names_the_setting_that_does_not_fit(tmp_path):
    dataset = load_dataset(DatasetSettings("digits", train_size=100, test_size=50), tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (100, 50)
    assert dataset.train.targets.bincount().tolist() == [10] * 10
    whole = load_dataset(DatasetSettings("digits"), tmp_path)
    rows = {row.numpy().tobytes() for row in whole.train.samples}
    assert all(row.numpy().tobytes() in rows for row in dataset.train.samples)
    with pytest.raises(ValueError, match=r"dataset.test_size of digits: .* between 1 and 360, got 361"):
        load_dataset(DatasetSettings("digits", test_size=361), tmp_path)
    with pytest.raises(ValueError, match="train split: expected images of every class, got none of class"):
        load_dataset(DatasetSettings("digits", train_size=9), tmp_path)


# ---- the two that ship with packages


@pytest.mark.parametrize(
    ("name", "train", "test", "shape", "brightest"),
    [("digits", (139, 146), (35, 37), (1, 8, 8), 16), ("mnist5k", (400, 400), (100, 100), (1, 28, 28), 255)],
)
def test_shipped_datasets(name, train, test, shape, brightest, tmp_path):
    dataset = load_dataset(DatasetSettings(name), tmp_path)
    assert dataset.shape == shape
    assert dataset.train.samples.max() == dataset.pixel_max == brightest
    for split, (low, high) in ((dataset.train, train), (dataset.test, test)):
        counts = split.targets.bincount()
        assert (counts.min(), counts.max()) == (low, high)
        assert split.samples.is_contiguous()
    assert dataset.inputs(dataset.train.samples).max() == 1
    again = load_dataset(DatasetSettings(name), tmp_path)
    assert torch.equal(dataset.test.samples, again.test.samples)
    everything = torch.cat([dataset.train.samples, dataset.test.samples])
    whole = {"digits": 1797, "mnist5k": 5000}[name]
    assert len(everything) == whole
    # Nearest train image by pixels: a label column or an image layout read wrongly would not survive this.
    a, b = dataset.train.samples.flatten(1).float(), dataset.test.samples.flatten(1).float()
    nearest = dataset.train.targets[torch.cdist(b, a).argmin(1)]
    assert (nearest == dataset.test.targets).float().mean() > 0.9


def test_digits_are_those_of_scikit_learn(tmp_path):
    from sklearn.datasets import load_digits

    dataset = load_dataset(DatasetSettings("digits"), tmp_path)
    ours = sorted(row.numpy().tobytes() for split in (dataset.train, dataset.test) for row in split.samples)
    assert ours == sorted(row.astype(np.uint8).tobytes() for row in load_digits().images)


# ---- MNIST's layout


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist_files(tmp_path, monkeypatch):
    """Made-up MNIST of 20 and 10 images under tmp_path/MNIST/raw, the checksum table following."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    arrays, table = {}, {}
    for split, count in (("train", 20), ("test", 10)):
        images, labels = mnist.FILES[split]
        arrays[images] = random_images(count, 28, 28, seed=count).numpy()
        arrays[labels] = np.arange(count, dtype=np.uint8) % 10
    for name, array in arrays.items():
        (raw / name).write_bytes(idx(array))
        table[name] = md5(idx(array)).hexdigest()
    monkeypatch.setitem(mnist.MD5, "mnist", table)
    return raw


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
    expected, found = mnist.MD5["mnist"][path.name], md5(data).hexdigest()
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
    with pytest.raises(MissingDataError, match=rf"python scripts/fetch_data\.py {name} --root {tmp_path}$") as missing:
        load_dataset(DatasetSettings(name), tmp_path)
    assert str(pickle.loads(pickle.dumps(missing.value))) == str(missing.value)
    monkeypatch.setenv("NCLAB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"python scripts/fetch_data\.py {name}$"):
        load_dataset(DatasetSettings(name), tmp_path)


# ---- CIFAR's layouts


def cifar_batch(count: int, seed: int, classes: int = 10) -> tuple[np.ndarray, list[int]]:
    return random_images(count, 3072, seed=seed).numpy(), [i % classes for i in range(count)]


@pytest.fixture
def cifar10_bin(tmp_path, monkeypatch):
    folder = tmp_path / cifar.BIN_FOLDER
    folder.mkdir()
    batches = {}
    for seed, file in enumerate(list(cifar.BIN_MD5)):
        pixels, labels = batches[file] = cifar_batch(10, seed)
        data = b"".join(bytes([label]) + row.tobytes() for label, row in zip(labels, pixels, strict=True))
        (folder / file).write_bytes(data)
        monkeypatch.setitem(cifar.BIN_MD5, file, md5(data).hexdigest())
    return batches


def test_cifar10_binary_layout(cifar10_bin, tmp_path):
    dataset = load_dataset(DatasetSettings("cifar10"), tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (50, 10)
    pixels, labels = cifar10_bin["data_batch_2.bin"]
    assert torch.equal(dataset.train.samples[10:20].flatten(1), torch.from_numpy(pixels))
    assert dataset.train.targets[10:20].tolist() == labels
    assert torch.equal(dataset.test.samples.flatten(1), torch.from_numpy(cifar10_bin["test_batch.bin"][0]))


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
    kind = getattr(torchvision.datasets, cifar.TORCHVISION[name])
    classes = cifar.NUM_CLASSES[name]
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    arrays = {}

    def write(file: str, content: dict) -> str:
        data = pickle.dumps(content, protocol=2)
        (folder / file).write_bytes(data)
        return md5(data).hexdigest()

    for lists in ("train_list", "test_list"):
        table = []
        for file, _ in getattr(kind, lists):
            arrays[file] = pixels, labels = cifar_batch(classes, len(arrays), classes)
            key = "labels" if name == "cifar10" else "fine_labels"
            table.append([file, write(file, {"data": pixels, key: labels})])
        monkeypatch.setattr(kind, lists, table)
    meta = write(kind.meta["filename"], {kind.meta["key"]: [str(i) for i in range(classes)]})
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": meta})
    return name, folder, arrays


def test_cifar_python_layout(cifar_python, tmp_path):
    name, _, arrays = cifar_python
    dataset = load_dataset(DatasetSettings(name), tmp_path)
    *train, test = arrays.values()
    assert torch.equal(dataset.train.samples.flatten(1), torch.from_numpy(np.vstack([pixels for pixels, _ in train])))
    assert dataset.train.targets.tolist() == [label for _, labels in train for label in labels]
    assert torch.equal(dataset.test.samples.flatten(1), torch.from_numpy(test[0]))
    assert dataset.targets.count == cifar.NUM_CLASSES[name]
    assert dataset.train.samples.is_contiguous()


def test_cifar_python_layout_is_checked(cifar_python, tmp_path):
    name, folder, arrays = cifar_python
    file = list(arrays)[-1]
    (folder / file).write_bytes(b"not that")
    with pytest.raises(ChecksumError, match=f"{file}: expected md5 .*, found {md5(b'not that').hexdigest()}"):
        load_dataset(DatasetSettings(name), tmp_path)
    (folder / file).unlink()
    with pytest.raises(MissingDataError, match=f"looked for {folder.name}/{file}"):
        load_dataset(DatasetSettings(name), tmp_path)
