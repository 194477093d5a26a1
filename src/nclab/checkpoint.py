"""Atomic save and exact resume: everything that the next epoch depends on, and nothing that can run code."""

import io
import pickle
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from torch.optim import Optimizer

from nclab.etf import ETFPolicy, FixedLinear
from nclab.etf.layer import pack, replace, unpack
from nclab.models import Classifier
from nclab.record import RecordError, write_atomic

NAME = "checkpoint.pt"
FORMAT = 1


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
    """Write checkpoint.pt: weights, fixed maps as recipes, optimizer, policy, all random states, log lengths."""
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
    write_atomic(folder / NAME, buffer.getvalue())


def load(folder: Path) -> dict[str, Any] | None:
    """The checkpoint of a run folder, None if there is none. Tensors and plain values only (weights_only).

    Raises RecordError for a file that cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a file that is none of ours torch says more than one line
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RecordError(f"{path} cannot be read ({reason}); overwrite=true starts the run again") from None
    if not isinstance(state, dict):
        raise RecordError(f"{path} holds a {type(state).__name__}, expected a run's state; overwrite=true starts again")
    if state.get("format") != FORMAT:
        raise RecordError(f"{path} has format {state.get('format')}, expected {FORMAT}; overwrite=true starts again")
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
