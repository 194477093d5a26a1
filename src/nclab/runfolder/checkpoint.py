"""Atomic save and exact resume: everything that the next epoch depends on, and nothing that can run code.

checkpoint.pt is what torch.save writes, with a checksum behind it that torch.load does not mind. The checkpoint before
it stays as checkpoint.previous.pt, and takes its place where it is damaged or missing.
"""

import hashlib
import io
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from torch.optim import Optimizer

from nclab.etf import ETFPolicy, FixedLinear
from nclab.etf.layer import pack, replace, unpack
from nclab.models import Classifier
from nclab.runfolder.folder import RecordError, write_atomic
from nclab.system.machine import out_of_memory

NAME = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"
FORMAT = 2
FORMATS = (1, FORMAT)  # 1 had no checksum
MAGIC = b"\nnclab, sha256: "  # then the digest of all bytes before these
DIGEST = hashlib.sha256().digest_size


@dataclass
class Part:
    """The epoch under way: what has been trained of it. A run can be saved between any two batches."""

    batches: int = 0
    samples: int = 0  # in these batches
    loss: Tensor | float = 0.0  # sum over these samples
    seconds: float = 0.0  # of the processes before this one
    order: Tensor | None = None  # state of the generator that drew the order of this epoch, before it did

    def count(self, loss: Tensor, samples: int) -> None:
        """Add a batch: its mean loss, () or (S,), and its size."""
        self.loss = self.loss + loss * samples
        self.samples += samples
        self.batches += 1


@dataclass
class Progress:
    """How far a run is, and what it remembers besides weights."""

    epoch: int = 0  # epochs trained
    seconds: float = 0.0  # of all the processes that worked on the run
    unsettled: list[str] | None = None  # sites switched after the last epoch
    total_parameters: int = 0  # learnable before any switch
    part: Part | None = None  # of the next epoch; None before the first, when even the start is not measured
    processes: int = 1  # that saved this


def save(
    folder: Path,
    model: Classifier,
    policy: ETFPolicy,
    optimizer: Optimizer,
    generators: dict[str, Generator],
    progress: Progress,
    lengths: dict[str, int],
) -> None:
    """Write checkpoint.pt: weights, fixed maps as recipes, optimizer, policy, all random states, log lengths. The
    checkpoint that was there is the previous one then."""
    fixed = {site: pack(m) for site, m in model.etf_sites().items() if isinstance(m, FixedLinear)}
    state = {
        "format": FORMAT,
        "progress": _plain(progress),
        "fixed": fixed,
        "model": model.state_dict(),
        "policy": policy.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generators": {name: g.get_state() for name, g in generators.items()},
        **random_state(),
        "lengths": lengths,
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with buffer.getbuffer() as payload:
        digest = hashlib.sha256(payload).digest()
    buffer.seek(0, io.SEEK_END)
    buffer.write(MAGIC + digest)
    write_atomic(folder / NAME, buffer.getvalue(), keep=folder / PREVIOUS)


def to_stderr(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def load(folder: Path, warn: Callable[[str], None] = to_stderr) -> dict[str, Any] | None:
    """The checkpoint of a run folder, None if there is none. Tensors and plain values only (weights_only).

    Where checkpoint.pt is damaged or missing, `warn` is told so and the previous one is returned; who goes on with the
    run then calls `promote`. Raises RecordError if neither can be read.
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
            if problems:
                warn(f"{problems[0]}; in its place {PREVIOUS} is used, of epoch {state['progress']['epoch']}")
            return state
    if not exists(folder):
        return None
    raise RecordError(f"{', and '.join(problems)}; overwrite=true starts the run again")


def exists(folder: Path) -> bool:
    """Whether the folder has a checkpoint, good or bad."""
    return any((folder / name).exists() for name in (NAME, PREVIOUS))


def promote(folder: Path) -> None:
    """The previous checkpoint takes the place of the damaged one, which must not be kept as the previous one at the
    next save."""
    (folder / PREVIOUS).replace(folder / NAME)


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
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no checkpoint can raise anything
        if out_of_memory(error):
            raise
        raise _Damaged((str(error).splitlines() or [type(error).__name__])[0]) from None
    if not isinstance(state, dict) or state.get("format") not in FORMATS:
        came = state.get("format") if isinstance(state, dict) else type(state).__name__
        expected = " or ".join(map(str, FORMATS))
        raise RecordError(f"{path} has format {came}, expected {expected}; overwrite=true starts the run again")
    if not sealed and state["format"] != 1:
        raise _Damaged("its checksum is missing")
    return state


def restore_model(state: dict[str, Any], model: Classifier) -> None:
    """Bring a freshly built model, before any policy touched it, to the state: fixed maps first, then weights."""
    sites = model.etf_sites()
    for site, packed in state["fixed"].items():
        replace(model, site, unpack(sites[site], packed))
    model.load_state_dict(state["model"])


def restore_rest(
    state: dict[str, Any], policy: ETFPolicy, optimizer: Optimizer, generators: dict[str, Generator]
) -> Progress:
    """Optimizer, policy and random states; the optimizer must have been built on the restored model."""
    optimizer.load_state_dict(state["optimizer"])
    policy.load_state_dict(state["policy"])
    for name, generator in generators.items():
        generator.set_state(state["generators"][name])
    set_random_state(state)
    progress = Progress(**state["progress"])
    if progress.part is not None:
        progress.part = Part(**progress.part)
    return progress


def _plain(progress: Progress) -> dict[str, Any]:
    plain = asdict(progress)
    if progress.part is not None:
        plain["part"]["loss"] = float(progress.part.loss)  # exact: as a float64 it is the same number
    return plain


def random_state() -> dict[str, Any]:
    """The states of torch's own generators, those outside `Fit.generators`."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch_rng": torch.get_rng_state(), "cuda_rng": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Take back what `random_state` gave; the GPUs' part only on a machine with as many of them."""
    torch.set_rng_state(state["torch_rng"])
    if state["cuda_rng"] and torch.cuda.device_count() == len(state["cuda_rng"]):
        torch.cuda.set_rng_state_all(state["cuda_rng"])
