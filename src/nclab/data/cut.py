"""Which samples of the splits of a dataset are kept: sizes and imbalance."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from nclab.data.imbalance import Imbalance, kept_of
from nclab.data.split import Split


def cut(
    splits: Mapping[str, Split], sizes: Mapping[str, int], imbalance: Imbalance | None, classes: int, name: str
) -> dict[str, Split]:
    """The splits, as large as `sizes` (split -> samples) and the imbalance of train say, of a dataset `name`.

    The valid split is taken out before imbalance and train size keep some of the rest, so that runs which differ in
    them are judged by the same samples. Of a valid split that the data bring along, its size keeps some. The train size
    keeps the proportions that imbalance left. Raises ValueError, which says the key, for what the data do not have.
    """
    splits, sizes = dict(splits), dict(sizes)
    if "valid" in sizes and "valid" not in splits:
        with _said(f"dataset.valid_size of {name}"):
            splits["train"], splits["valid"] = splits["train"].divide(sizes.pop("valid"))
    if imbalance is not None:
        with _said(f"dataset.imbalance of {name}"):
            splits["train"] = splits["train"][kept_of(splits["train"].targets, classes, imbalance)]
    for split, size in sizes.items():
        with _said(f"dataset.{split}_size of {name}"):
            if split not in splits:
                raise ValueError(f"the data have no {split} split")
            splits[split] = splits[split].subset(size)
    return splits


@contextmanager
def _said(where: str) -> Iterator[None]:
    """A ValueError says where it comes from."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
