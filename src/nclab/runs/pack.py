"""Finished runs as one archive, small enough to be committed and sent: what they measured, without their weights.

Whoever unpacks it draws and judges by it as by the originals, and training skips its runs. The same runs give the same
bytes, whatever the machine, the order and the time.
"""

import errno
import fnmatch
import io
import lzma
import os
import stat
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from nclab.runs import anonymous
from nclab.runs.find import find_runs
from nclab.runs.state import RunState
from nclab.system.atomic import write_atomic
from nclab.system.words import first_of

ENDING = ".tar.xz"
TIME = 315532800  # 1980-01-01: tar warns of 1970
STILL = ("running", "queued", "submitted", "unreadable")  # never packed: nobody knows what they will be
# What is packed of a run, and how it loses what is ours alone. A finished run has all of them.
FILES: dict[str, Callable[[str], str] | None] = {
    "DONE": None,
    "config.yaml": anonymous.config,
    "events.jsonl": anonymous.events,
    "metrics.csv": None,
    "summary.json": anonymous.summary,
}
APPENDED = ("events.jsonl", "metrics.csv")  # a run that was killed may leave half a line


class PackError(ValueError):
    """The archive cannot be made as asked for; one line of text."""


@dataclass(frozen=True)
class Packed:
    """What an archive holds; sizes in bytes."""

    runs: int
    unfinished: int
    experiments: int
    size: int
    unpacked: int


def pack(
    paths: Iterable[Path], out: Path, unfinished: bool = False, last: bool = False, metrics: tuple[str, ...] = ()
) -> Packed:
    """Write the archive EXPERIMENT/RUN/FILE of the runs in `paths`; an earlier one stays until it is whole.

    Args:
        paths: Run folders, experiment folders or output roots. No symbolic link is followed.
        out: A file that ends in .tar.xz.
        unfinished: Pack runs too that failed, diverged or were interrupted, as far as they are.
        last: Of metrics.csv keep the last measured epoch alone, for claims on the end of training.
        metrics: Of metrics.csv keep these metrics alone, names or patterns such as nc2_*; none: all.

    Raises:
        PackError: Before anything is written: a run is not finished (with `unfinished`: may still change), lacks a
            file, holds a link, or shares its name with another one; there is none; `out` is no such file.
        NoFolder: A path is no folder.
        OSError: The archive cannot be written.
    """
    paths = list(paths)
    if not out.name.endswith(ENDING) or out.is_dir() or not out.absolute().parent.is_dir():
        raise PackError(f"--out: expected a file that ends in {ENDING}, in a folder that is there; got {out}")
    links: list[Path] = []
    runs = find_runs(paths, links)
    if links:
        raise PackError(f"{first_of(map(str, links))} is a symbolic link; none is followed: name the folder itself")
    if not runs:
        raise PackError(f"no run in {first_of(map(str, paths))}")
    _refuse_unfinished(runs, unfinished)
    named: dict[str, RunState] = {}
    for run in runs:
        name = f"{run.experiment}/{run.name}"
        if name in named:
            raise PackError(f"{name} is there twice: {named[name].path} and {run.path}")
        named[name] = run
    data, unpacked = _archive(named, last, metrics)
    write_atomic(out, data)
    rest = sum(run.state != "done" for run in runs)
    return Packed(len(runs), rest, len({run.experiment for run in runs}), len(data), unpacked)


def _refuse_unfinished(runs: list[RunState], unfinished: bool) -> None:
    refused = [run for run in runs if run.state in STILL or (run.state != "done" and not unfinished)]
    if refused:
        names = first_of(f"{run.path} ({run.state})" for run in refused)
        still = any(run.state in STILL for run in refused)
        hint = "wait for them, or name the others" if still else "--unfinished packs them too, as far as they are"
        raise PackError(f"{len(refused)} unfinished: {names}; {hint}")


def _archive(named: dict[str, RunState], last: bool, metrics: tuple[str, ...]) -> tuple[bytes, int]:
    """The bytes of the archive, and of the files in it."""
    buffer, unpacked, measured = io.BytesIO(), 0, set()
    with lzma.open(buffer, "wb", preset=6) as xz, tarfile.open(fileobj=xz, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, run in sorted(named.items()):
            for file in FILES:
                data = _content(run, file)
                if data is not None and file == "metrics.csv":
                    measured |= {_metric(row) for row in data.splitlines()[1:]} if metrics else set()
                    data = _of_metrics(_of_last_epoch(data) if last else data, metrics)
                if data is not None:
                    member = tarfile.TarInfo(f"{name}/{file}")
                    member.size, member.mtime, member.mode = len(data), TIME, 0o644
                    tar.addfile(member, io.BytesIO(data))
                    unpacked += len(data)
    for pattern in metrics:
        if not fnmatch.filter(measured, pattern):
            raise PackError(f"--metrics: no run has {pattern}; measured: {', '.join(sorted(measured))}")
    return buffer.getvalue(), unpacked


def _metric(row: bytes) -> str:
    """Of a row `epoch,split,layer,metric,value`."""
    return row.split(b",")[3].decode()


def _of_metrics(table: bytes, metrics: tuple[str, ...]) -> bytes:
    """The header of metrics.csv, and the rows of these metrics; the whole where none is named."""
    rows = table.splitlines(keepends=True)
    kept = [row for row in rows[1:] if any(fnmatch.fnmatchcase(_metric(row), one) for one in metrics)]
    return b"".join([*rows[:1], *kept]) if metrics else table


def _of_last_epoch(metrics: bytes) -> bytes:
    """The header of metrics.csv, and the rows of its last epoch: rows of later epochs come later."""
    header, *rows = metrics.splitlines(keepends=True)
    epoch = rows[-1].partition(b",")[0] if rows else b""
    return b"".join([header, *(row for row in rows if row.partition(b",")[0] == epoch)])


def _content(run: RunState, name: str) -> bytes | None:
    """What the archive holds of a file; None where an unfinished run has none."""
    file, done = run.path / name, run.state == "done"
    data = _read(file)
    if data is None:
        if done:
            raise PackError(f"{run.path}: no {name} in a finished run")
        return None
    if name in APPENDED and not done:
        data = data[: data.rfind(b"\n") + 1]
    change = FILES[name]
    if change is None:
        return data
    try:
        return change(data.decode()).encode()
    except UnicodeDecodeError:
        raise PackError(f"{file}: not UTF-8") from None
    except anonymous.CannotRead as error:
        raise PackError(f"{file}{error}") from None


def _read(file: Path) -> bytes | None:
    """The bytes of a file that is no link; None without one. Raises PackError."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = "is a symbolic link; none is followed" if error.errno == errno.ELOOP else error.strerror
        raise PackError(f"{file} {reason}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PackError(f"{file}: expected a file")
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()
