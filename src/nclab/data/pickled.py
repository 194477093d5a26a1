"""Arrays out of a pickle, and nothing else: CIFAR's official Python version comes as pickles, which may run code."""

import io
import pickle
from pathlib import Path
from typing import Any

# What a pickled numpy array is made of, under the module names of numpy 1 and 2. None of them runs what it is given.
ALLOWED = {
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _ArrayUnpickler(pickle.Unpickler):  # noqa: TID251  # the one that finds no other class
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def unpickle_arrays(data: bytes, label: str | Path) -> Any:
    """Plain values and numpy arrays in a pickle (of Python 2, too). ValueError, naming `label`, for anything else."""
    try:
        return _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, TypeError) as error:
        raise ValueError(
            f"{label}: expected a pickle of arrays and plain values alone, got another ({error})"
        ) from None
