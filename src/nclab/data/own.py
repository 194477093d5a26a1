"""What datasets of a user's own files share: the key `path`, splits divided here, and how many classes there are."""

from pathlib import Path

import torch

from nclab.data.split import Split
from nclab.interfaces.targets import Classes, Targets, Values
from nclab.system.words import at_home


def require_path(path: str, expected: str) -> None:
    """Raise ValueError for a dataset.path that names nothing."""
    if not path.strip() or "://" in path or "\0" in path:
        raise ValueError(f"dataset.path must be {expected}, got {path!r}")


def found_at(path: str, expected: str, is_there: str = "exists") -> Path:
    """dataset.path with `~` expanded. Raises ValueError where `expected` is not there."""
    place = Path(at_home(path))
    if not getattr(place, is_there)():
        raise ValueError(f"dataset.path: expected {expected}, found none at {place}")
    return place


def divided(splits: dict[str, Split], test_size: int | None) -> dict[str, Split]:
    """The splits, with a test split of this size taken out of train where the files bring none along."""
    if test_size is None or "test" in splits:
        return splits
    try:
        train, test = splits["train"].divide(test_size)
    except ValueError as error:
        raise ValueError(f"dataset.test_size: {error}") from None
    return {**splits, "train": train, "test": test}


def kind_of(targets: torch.Tensor, names: tuple[str, ...] | None = None) -> Targets:
    """Values for floats, else as many classes as the largest number says."""
    if targets.is_floating_point():
        return Values(targets.shape[1])
    if (highest := int(targets.max())) >= len(targets):
        came = f"label {highest} among {len(targets)} samples"
        raise ValueError(f"expected classes 0 to C-1, each with a sample; got {came}")
    return Classes(highest + 1 if names is None else len(names), names)
