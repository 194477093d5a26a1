"""dataset=image_folder and dataset=torchvision: pictures of any mode and size, by path from the command line."""

import numpy as np
import pytest
import torch
from conftest import composed
from data_files import mnist_content, random_images
from PIL import Image
from torchvision.datasets import ImageFolder

from nclab.data import MissingDataError, load_dataset
from nclab.data.image_folder import FolderSettings
from nclab.data.torchvision import TorchvisionSettings
from nclab.interfaces.targets import Classes

CLASSES = ("ant", "bee", "cat")


def fill(folder, per_class: int, size=(6, 5), mode: str = "RGB", suffix: str = "png", seed: int = 0):
    """Pictures of all classes below the folder."""
    for number, name in enumerate(CLASSES):
        (folder / name / "deep").mkdir(parents=True)
        for i in range(per_class):
            pixels = random_images(size[1], size[0], 3, seed=seed + 100 * number + i).numpy()
            place = folder / name / ("deep" if i == 0 else "")
            Image.fromarray(pixels).convert(mode).save(place / f"{i}.{suffix}")
    return folder


def load(path, **keys):
    return load_dataset(FolderSettings("image_folder", path=str(path), **keys), "nowhere")


def test_train_test_and_valid_folders_are_what_torchvision_reads(tmp_path):
    for seed, split in enumerate(("train", "test", "val")):
        fill(tmp_path / split, 4 - seed, seed=1000 * seed)
    dataset = load(tmp_path)
    assert list(dataset.splits) == ["train", "test", "valid"]
    assert (dataset.shape, dataset.targets) == ((3, 5, 6), Classes(3, CLASSES))
    for split, folder in (("train", "train"), ("test", "test"), ("valid", "val")):
        theirs = sorted((y, np.asarray(x).transpose(2, 0, 1).tobytes()) for x, y in ImageFolder(tmp_path / folder))
        own = dataset.splits[split]
        assert sorted((int(y), x.numpy().tobytes()) for x, y in zip(own.samples, own.targets, strict=True)) == theirs


def test_an_undivided_folder_is_divided_by_test_size(tmp_path):
    fill(tmp_path, 4)
    assert list(load(tmp_path).splits) == ["train"]
    dataset = load(tmp_path, test_size=3, valid_size=3, train_size=3)
    assert [split.targets.tolist() for split in dataset.splits.values()] == [[0, 1, 2]] * 3
    pictures = {x.numpy().tobytes() for split in dataset.splits.values() for x in split.samples}
    assert len(pictures) == 9


def test_size_and_channels_bring_pictures_to_one_shape(tmp_path):
    fill(tmp_path / "train", 2, mode="L", suffix="jpg")
    fill(tmp_path / "test", 2, size=(9, 7), mode="LA")
    Image.new("RGB", (9, 7)).save(fill(tmp_path / "mixed", 2) / "bee" / "1.png")
    with pytest.raises(
        ValueError, match=r"bee/1\.png: expected 6 x 5 pixels as the first, got 9 x 7; set dataset.size"
    ):
        load(tmp_path / "mixed")
    assert load(tmp_path, size=4).shape == (1, 4, 4)
    coloured = load(tmp_path, size=4, channels=3)
    assert coloured.shape == (3, 4, 4)
    first = Image.open(tmp_path / "test" / "ant" / "1.png").convert("RGB").resize((4, 4), Image.Resampling.BILINEAR)
    assert torch.equal(coloured.splits["test"].samples[0], torch.from_numpy(np.array(first)).permute(2, 0, 1))
    with pytest.raises(ValueError, match=r"test split: expected images of shape \(1, 5, 6\), got \(1, 7, 9\)"):
        load(tmp_path)


@pytest.mark.parametrize(("place", "modes"), [("train/bee", ("RGB", "L")), ("test/ant", ("L", "P"))])
def test_grey_among_coloured_pictures_is_refused_unless_channels_says_what_they_become(tmp_path, place, modes):
    """Else the first picture would decide, and the colours of the others be lost."""
    for split in ("train", "test"):
        fill(tmp_path / split, 2, mode=modes[0])
    path = tmp_path / place / "1.png"
    Image.open(path).convert(modes[1]).save(path)
    first, other = ("coloured", "grey") if modes[0] == "RGB" else ("grey", "coloured")
    with pytest.raises(
        ValueError, match=rf"{place}/1\.png: expected a {first} picture as the first, got a {other} one; set dataset.ch"
    ):
        load(tmp_path)
    assert [load(tmp_path, channels=channels).shape for channels in (1, 3)] == [(1, 5, 6), (3, 5, 6)]


def test_valid_and_val_beside_each_other_are_refused(tmp_path):
    for split in ("train", "valid", "val"):
        fill(tmp_path / split, 1)
    with pytest.raises(ValueError, match=r"expected valid/ or val/, found both"):
        load(tmp_path)


def test_a_corrupt_or_other_picture_is_named(tmp_path):
    fill(tmp_path, 2)
    path = tmp_path / "bee" / "1.png"
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 4
    for content in (b"", b"text", whole[:60], bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path}: expected a PNG or JPEG picture, got another or a damaged one"):
            load(tmp_path)
    path.unlink()
    Image.new("RGB", (6, 5)).save(path, "BMP")
    with pytest.raises(ValueError, match=f"{path}: expected a PNG or JPEG picture"):
        load(tmp_path)
    Image.new("I;16", (6, 5)).save(path, "PNG")
    with pytest.raises(ValueError, match=f"{path}: expected 8 bits a channel .*, got mode I"):
        load(tmp_path)


def test_wrong_folders_are_named(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ValueError, match="expected a folder of pictures"):
            load(path)
    fill(tmp_path / "train", 2)
    (tmp_path / "train" / ".hidden").mkdir()
    fill(tmp_path / "test", 1)
    (tmp_path / "test" / "dog").mkdir()
    with pytest.raises(ValueError, match=f"{tmp_path}/test: expected folders of the classes ant, bee, cat; got dog"):
        load(tmp_path)
    (tmp_path / "test" / "dog").rmdir()
    (tmp_path / "test" / "cat" / "deep" / "0.png").unlink()
    assert load(tmp_path).splits["test"].targets.tolist() == [0, 1]  # only train needs every class
    for file in (tmp_path / "train" / "bee").rglob("*.png"):
        file.rename(file.with_suffix(".txt"))
    with pytest.raises(ValueError, match=rf"{tmp_path}/train/bee: expected pictures \(\.png, .*\), found none"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("size=0", "dataset.size must be between 1 and 4096, got 0"),
        ("size=5000", "dataset.size must be between 1 and 4096, got 5000"),
        ("channels=2", "dataset.channels must be 1 .*, got 2"),
        ("pixels=raw", "unknown dataset.pixels 'raw'; valid: unit, standardize"),
        ("path=''", "dataset.path must be a folder"),
    ],
)
@pytest.mark.parametrize("dataset", ["image_folder dataset.path=x", "torchvision dataset.set=KMNIST"])
def test_wrong_keys_are_named_before_anything_is_read(dataset, key, message):
    with pytest.raises(ValueError, match=message):
        composed(*f"dataset={dataset}".split(), f"dataset.{key}")


# ---- torchvision


def own(**keys):
    return TorchvisionSettings("torchvision", **keys)


def test_a_dataset_of_torchvision_by_its_name(tmp_path):
    raw = tmp_path / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, data in mnist_content(20, 10).items():
        (raw / name).write_bytes(data)
    dataset = load_dataset(own(set="KMNIST", valid_size=10), tmp_path)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 10, "test": 10, "valid": 10}
    assert (dataset.shape, dataset.targets.count, dataset.targets.names[0]) == ((1, 28, 28), 10, "o")
    assert torch.equal(dataset.splits["test"].samples, random_images(10, 28, 28, seed=10)[:, None])
    assert dataset.splits["test"].targets.tolist() == list(range(10))
    by_path = load_dataset(own(set="KMNIST", path=str(tmp_path), size=14, channels=3), "nowhere")
    assert by_path.shape == (3, 14, 14)
    held = load_dataset(own(set="KMNIST", download=True), tmp_path)  # they are there: nothing is asked for
    assert len(held.train) == 20


def test_splits_by_name_and_options(tmp_path, monkeypatch):
    """A class whose splits are named, one of which it has not."""
    from torchvision import datasets

    class Named(datasets.VisionDataset):
        def __init__(self, root, split="train", kind="plain"):
            if split not in ("train", "val"):
                raise ValueError(f"Unknown value '{split}' for argument split. Valid values are {{'train', 'val'}}.")
            self.count, self.kind = {"train": 6, "val": 3}[split], kind

        def __len__(self):
            return self.count

        def __getitem__(self, row):
            return Image.new("L", (4, 4), row), (row % 3 if self.kind == "plain" else [row])

    monkeypatch.setattr(datasets, "Named", Named, raising=False)
    monkeypatch.setattr(datasets, "__all__", (*datasets.__all__, "Named"))
    dataset = load_dataset(own(set="Named", test_size=3), tmp_path)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 3, "test": 3, "valid": 3}
    assert dataset.targets == Classes(3)
    with pytest.raises(ValueError, match="Named train: expected a picture and a class number, got Image and list"):
        load_dataset(own(set="Named", options={"kind": "boxes"}), tmp_path)
    with pytest.raises(ValueError, match=r"dataset.options of Named: .*unexpected keyword argument 'depth'"):
        load_dataset(own(set="Named", options={"depth": 3}), tmp_path)


def test_what_torchvision_lacks_is_said(tmp_path):
    with pytest.raises(MissingDataError, match=f"KMNIST is not under {tmp_path}; dataset.download=true fetches"):
        load_dataset(own(set="KMNIST"), tmp_path)
    with pytest.raises(ValueError, match=r"unknown dataset.set 'ImageFolder'; .*valid: .*KMNIST"):
        load_dataset(own(set="ImageFolder"), tmp_path)
    with pytest.raises(ValueError, match=r"dataset.options of EMNIST: .*'split'"):
        load_dataset(own(set="EMNIST"), tmp_path)
    with pytest.raises(MissingDataError, match="EMNIST is not under"):
        load_dataset(own(set="EMNIST", options={"split": "balanced"}), tmp_path)
    with pytest.raises(ValueError, match=r"dataset.set must be a class of torchvision.datasets, .*; got 'a b'"):
        composed("dataset=torchvision", "dataset.set=a b")
    assert list(tmp_path.iterdir()) == []
    words = ["dataset=torchvision", "dataset.set=EMNIST", "dataset.options={split:letters}"]
    config = composed(*words)
    assert config.run_name == composed(*words, "dataset.download=true").run_name != composed(*words[:2]).run_name
    assert config.dataset.options == {"split": "letters"}


def test_hidden_folders_hold_no_pictures(tmp_path):
    fill(tmp_path, 4)
    hidden = tmp_path / "ant" / ".ipynb_checkpoints"
    hidden.mkdir()
    (tmp_path / "ant" / "1.png").rename(hidden / "1.png")
    assert len(load(tmp_path, test_size=3).train) == 12 - 3 - 1
