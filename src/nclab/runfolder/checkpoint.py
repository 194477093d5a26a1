"""Atomic save and exact resume: everything that the next epoch depends on, and nothing that can run code.

checkpoint.pt is what torch.save writes, with a checksum behind it that torch.load does not mind. The checkpoint before
it stays as checkpoint.previous.pt, and takes its place where it is damaged or missing. checkpoint.best.pt is that of
the best epoch, of a run with the key `best`.
"""

import hashlib
import io
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nclab.runfolder.folder import RecordError
from nclab.system.atomic import replace, write_atomic
from nclab.system.machine import out_of_memory
from nclab.system.written import BEST as BEST
from nclab.system.written import CHECKPOINTS

NAME, PREVIOUS = CHECKPOINTS
FORMAT = 2
FORMATS = (1, FORMAT)  # 1 had no checksum
MAGIC = b"\nnclab, sha256: "  # then the digest of all bytes before these
DIGEST = hashlib.sha256().digest_size


def save(folder: Path, state: dict[str, Any], marks: dict[str, dict[str, Any]]) -> None:
    """Write checkpoint.pt: the state of a training (`nclab.training.progress.state_of`) and lengths and digests of the
    logs (`RunFolder.marks`). The checkpoint that was there is the previous one then."""
    write_atomic(folder / NAME, _sealed(state, marks), keep=folder / PREVIOUS)


def save_best(folder: Path, state: dict[str, Any], marks: dict[str, dict[str, Any]]) -> None:
    """Write checkpoint.best.pt: the state after the best epoch so far."""
    write_atomic(folder / BEST, _sealed(state, marks))


def _sealed(state: dict[str, Any], marks: dict[str, dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state, **marks}, buffer)
    with buffer.getbuffer() as payload:
        digest = hashlib.sha256(payload).digest()
    buffer.seek(0, io.SEEK_END)
    buffer.write(MAGIC + digest)
    return buffer.getvalue()


def load_best(folder: Path) -> dict[str, Any] | None:
    """The checkpoint of the best epoch, None if there is none. Raises RecordError where it is damaged."""
    try:
        return _read(folder / BEST)
    except FileNotFoundError:
        return None
    except _Damaged as damage:
        raise RecordError(f"{folder / BEST} cannot be read ({damage}); overwrite=true starts the run again") from None


def to_stderr(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def load(
    folder: Path,
    warn: Callable[[str], None] = to_stderr,
    fault: Callable[[Path, dict[str, Any]], str | None] = lambda *_: None,
) -> dict[str, Any] | None:
    """The checkpoint of a run folder, None if there is none. Tensors and plain values only (weights_only).

    Where checkpoint.pt is damaged or missing, or `fault(folder, state)` says what is wrong with it, `warn` is told so
    and the previous one is returned; who goes on with the run then calls `promote`. Raises RecordError if neither will
    do.
    """
    problems = []
    for name in (NAME, PREVIOUS):
        try:
            state = _read(folder / name)
        except FileNotFoundError:
            problems.append(f"{folder / name} is missing")
        except _Damaged as damage:
            problems.append(f"{folder / name} cannot be read ({damage})")
        else:
            if reason := fault(folder, state):
                problems.append(reason)
                continue
            if problems:
                warn(f"{problems[0]}; in its place {PREVIOUS} is used, of epoch {state['progress']['epoch']}")
            return state
    if not exists(folder):
        return None
    raise RecordError(f"{', and '.join(dict.fromkeys(problems))}; overwrite=true starts the run again")


def exists(folder: Path) -> bool:
    """Whether the folder has a checkpoint, good or bad."""
    return any((folder / name).exists() for name in (NAME, PREVIOUS))


def promote(folder: Path) -> None:
    """The previous checkpoint takes the place of the damaged one, which must not be kept as the previous one at the
    next save."""
    replace(folder / PREVIOUS, folder / NAME)


class _Damaged(Exception):
    """A file is not the checkpoint that was saved; the message says how that shows."""


def _read(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    end = len(data) - DIGEST - len(MAGIC)
    sealed = end > 0 and data[end:-DIGEST] == MAGIC
    if sealed and hashlib.sha256(memoryview(data)[:end]).digest() != data[-DIGEST:]:
        raise _Damaged("its checksum does not match")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a file that is none of ours torch says more than one line
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)  # noqa: TID251
    except Exception as error:  # bytes that are no checkpoint can raise anything
        if out_of_memory(error):
            raise
        torch_knows = isinstance(error, pickle.UnpicklingError) and data[:2] == b"PK"
        reason = "it holds more than tensors and plain values" if torch_knows else "torch.save has not written it so"
        raise _Damaged(f"{reason}: {type(error).__name__}") from None
    if not isinstance(state, dict) or state.get("format") not in FORMATS:
        came = state.get("format") if isinstance(state, dict) else type(state).__name__
        expected = " or ".join(map(str, FORMATS))
        raise RecordError(f"{path} has format {came}, expected {expected}; overwrite=true starts the run again")
    if not sealed and state["format"] != 1:
        raise _Damaged("its checksum is missing")
    return state
