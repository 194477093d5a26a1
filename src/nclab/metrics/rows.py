"""Features of some samples of a split as matrices, wherever the samples are: for what no sum can give."""

from collections.abc import Mapping

import torch
from torch import Tensor

LABELS = "labels "  # the name of labels beside features, none of which is called so
MOST_ROWS = 2000  # samples of a split that suites look at, where no sum can give what they measure


def chosen_rows(samples: int, most: int) -> Tensor:
    """Indices (n,) in rising order of n = min(samples, most) samples of a split: all, or a random subset, always the
    same one (torch's generator at seed 0)."""
    if samples <= most:
        return torch.arange(samples)
    return torch.randperm(samples, generator=torch.Generator().manual_seed(0))[:most].sort().values


class SampledRows:
    """Rows of several features of the samples that `chosen_rows` takes of a split, float64, in the order of the split.

    Every process fills in the rows of its own samples, and the others are 0, so that a sum over processes gives all:
    the same bits as one process has.

    Args:
        samples: of the split.
        most: rows that are kept at most.
        chosen: the rows to keep, rising, instead of those of `chosen_rows`.
    """

    def __init__(self, samples: int, most: int, chosen: Tensor | None = None):
        chosen = chosen_rows(samples, most) if chosen is None else chosen.cpu()
        self.count = len(chosen)
        self._place = torch.full((samples,), self.count)  # of a sample: its row, or the spare one behind the last
        self._place[chosen] = torch.arange(len(chosen))
        self._rows: dict[str, Tensor] = {}

    def add(self, features: Mapping[str, Tensor], index: Tensor) -> None:
        """A batch: name -> (B, d), and the samples' rows of the split (B,)."""
        if self._place.device != index.device:
            self._place = self._place.to(index.device)  # once
        # What is not taken goes to the spare row: to leave it out, the host would have to wait for its number.
        place = self._place[index]
        for name, feature in features.items():
            if name not in self._rows:
                self._rows[name] = feature.new_zeros(self.count + 1, feature.shape[1])
            self._rows[name].index_copy_(0, place, feature)

    @property
    def size(self) -> int:
        """How many numbers `sums` gives."""
        return sum(self.count * rows.shape[1] for rows in self._rows.values())

    def sums(self) -> Tensor:
        """What processes add up, for `accept`."""
        return torch.cat([rows[: self.count].double().flatten() for rows in self._rows.values()])

    def accept(self, reduced: Tensor) -> None:
        """Go on with the rows of all processes."""
        parts = reduced.split([self.count * rows.shape[1] for rows in self._rows.values()])
        self._rows = {name: part.view(self.count, -1) for name, part in zip(self._rows, parts, strict=True)}

    def __getitem__(self, name: str) -> Tensor:
        """(n, d), float64, in host memory."""
        return self._rows[name][: self.count].double().cpu()
