"""The two passes over the features of a layer, as sums that add over batches, devices and processes.

Pass 1 (`class_sums`) gives the class means. Pass 2 (`within_sums`) gives what the metrics need of the deviations from
them. Neither forms a d x d matrix, and the host waits for the device in neither.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nclab.metrics.geometry import NAN, ClassMeans

# Bytes that a pass works on at a time. On a CPU they stay in the cache while every operation of the pass runs over
# them, so that features come from memory once; on a GPU they only bound what is allocated.
CPU_CHUNK, GPU_CHUNK = 2**20, 2**26


def class_sums(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Pass 1: the number of samples of every class n_c (C,) and the class sums S_c (C, d), both float64.

    features (N, d) float32 or float64, labels (N,) int64 in 0..C-1. Sums are float64 throughout: those of equal float32
    rows are exact, so that equal features have equal class means, whatever the number and order of the samples.
    """
    counts = torch.zeros(num_classes, dtype=torch.float64, device=features.device)
    sums = torch.zeros(num_classes, features.shape[1], dtype=torch.float64, device=features.device)
    for block in _chunks(features, max(num_classes, features.shape[1])):
        own = labels[block]
        _add_by_class(sums, own, features[block].double())
        _add_by_class(counts, own, torch.ones_like(own, dtype=torch.float64))
    return counts, sums


@dataclass
class WithinSums:
    """The sums of pass 2 over the samples h of a split, with z = scale (h - mu_y), scale that of `ClassMeans`.

    counts (C,): samples of every class.
    within (C,): sum of |z|^2 over the samples of every class.
    within_span (rank,): sum of (z V)^2 along every basis vector of span(M); V is `ClassMeans.basis`.
    deviations (C, d): sum of z over the samples of every class, in the features' precision; the others are float64.
    ncc_hits: samples whose nearest class mean is that of their label.
    mismatches: samples whose largest logit and nearest class mean are different classes; nan if one has no largest.
    cosine_gaps: sum of 1 - cos(h, w_y); nan if no weight was given.
    with_logits: samples that came with logits.
    """

    counts: Tensor
    within: Tensor
    within_span: Tensor
    deviations: Tensor
    ncc_hits: Tensor
    mismatches: Tensor
    cosine_gaps: Tensor
    with_logits: int = 0

    def __add__(self, other: "WithinSums") -> "WithinSums":
        pairs = zip(self._tensors(), other._tensors(), strict=True)
        return WithinSums(*(own + more for own, more in pairs), self.with_logits + other.with_logits)

    def _tensors(self) -> tuple[Tensor, ...]:
        return (
            *(self.counts, self.within, self.within_span, self.deviations),
            *(self.ncc_hits, self.mismatches, self.cosine_gaps),
        )

    def cpu(self) -> "WithinSums":
        """The same sums in host memory."""
        return WithinSums(*(t.cpu() for t in self._tensors()), self.with_logits)

    def flat(self) -> Tensor:
        """All sums as one float64 tensor, so that several processes add them up at once."""
        numbers = [self.ncc_hits, self.mismatches, self.cosine_gaps, self.counts.new_full((), self.with_logits)]
        arrays = [self.counts, self.within, self.within_span, self.deviations.double().flatten()]
        return torch.cat([*arrays, torch.stack([n.double() for n in numbers])])

    def like(self, flat: Tensor) -> "WithinSums":
        """The sums that `flat` made one tensor of."""
        sizes = [len(self.counts)] * 2 + [len(self.within_span), self.deviations.numel(), 4]
        counts, within, within_span, deviations, numbers = flat.split(sizes)
        hits, mismatches, gaps, with_logits = numbers
        deviations = deviations.view(self.deviations.shape)
        return WithinSums(counts, within, within_span, deviations, hits.long(), mismatches, gaps, int(with_logits))

    def about(self, shift: Tensor, basis: Tensor) -> "WithinSums":
        """The same sums of z - shift_y, shift (C, d) float64, basis (d, rank) that of the sums; in host memory.

        sum |z - shift|^2 = sum |z|^2 - shift . (2 sum z - n shift), so that the rounding of the points that samples
        were subtracted from can be undone afterwards. `deviations` stay as they are."""
        both = 2 * self.deviations.double() - self.counts[:, None] * shift  # (C, d)
        within = self.within - (shift * both).sum(1)
        within_span = self.within_span - ((shift @ basis) * (both @ basis)).sum(0)
        # Sums of squares: below 0 is rounding, at exact collapse. nan stays.
        return replace(self, within=within.clamp_min(0), within_span=within_span.clamp_min(0))


@dataclass(frozen=True)
class MeansOnDevice:
    """What pass 2 reads of `ClassMeans`, in the features' precision, on their device; lengths times `scale`."""

    scale: float
    minus_means: Tensor  # (C, d): -mu_c
    basis: Tensor  # (rank, d): V^T. Thin products are up to three times faster on a CPU with the thin side first
    coordinates: Tensor  # (C, rank): m_c V
    distances: Tensor  # (C, C): ||mu_c - mu_c'||^2

    @classmethod
    def of(cls, m: ClassMeans, like: Tensor) -> "MeansOnDevice":
        tensors = (-m.scale * m.means, m.basis.T.contiguous(), m.centred @ m.basis, m.distances)
        return cls(m.scale, *(t.to(like) for t in tensors))

    def rounding(self, m: ClassMeans) -> Tensor:
        """How far the class means lie from the points that pass 2 subtracts (C, d), float64, in host memory."""
        return m.scale * m.means + self.minus_means.double().cpu()


def within_sums(
    features: Tensor,
    labels: Tensor,
    class_means: MeansOnDevice,
    logits: Tensor | None = None,
    weight: Tensor | None = None,
) -> WithinSums:
    """Pass 2 over features (N, d), labels (N,) and, at the classifier's input, logits (N, C) and its weight (C, d).

    The nearest class mean in R^d is the nearest in span(M). Distances are taken relative to the sample's own class,
    ||h - mu_c||^2 - ||h - mu_y||^2 = ||mu_c - mu_y||^2 - 2 z . (mu_c - mu_y): no difference of large numbers, so
    that float32 decides rightly also where features are collapsed.

    Squares are formed of features times `scale`, a power of two that follows from the class means alone, so that all
    chunks and processes have the same: float32 features of any size give the same digits.

    Memory: a few chunks (`CPU_CHUNK`, `GPU_CHUNK` bytes), whatever N.
    """
    unit_weight = None if weight is None else unit_rows(weight.detach()).to(features)
    total = None
    for rows in _chunks(features, class_means.coordinates.shape[0]):
        own_logits = None if logits is None else logits[rows]
        part = _within_sums(features[rows], labels[rows], class_means, own_logits, unit_weight)
        total = part if total is None else total + part
    return total


def _chunks(features: Tensor, numbers: int) -> list[slice]:
    """The rows of features in slices that fill a chunk with `numbers` numbers a row."""
    chunk = CPU_CHUNK if features.device.type == "cpu" else GPU_CHUNK
    size = max(1, chunk // (numbers * features.element_size()))
    return [slice(start, start + size) for start in range(0, max(1, len(features)), size)]  # one of no rows, too


def _within_sums(
    features: Tensor, labels: Tensor, class_means: MeansOnDevice, logits: Tensor | None, unit_weight: Tensor | None
) -> WithinSums:
    """`within_sums` of so few samples that all their scores (N, C) are one chunk; the rows of W have unit length."""
    num_classes, rank = class_means.coordinates.shape
    (n, d), scale = features.shape, class_means.scale
    p, squares = features.new_empty(rank, n), labels.new_empty(n, dtype=torch.float64)
    deviations = features.new_zeros(num_classes, d)
    gaps = torch.full((), NAN if unit_weight is None else 0.0, dtype=torch.float64, device=features.device)
    chunks = _chunks(features, d)
    room = torch.empty_like(features[chunks[0]])  # one buffer: fresh memory would cost more than the arithmetic
    more = None if unit_weight is None else torch.empty_like(room)
    for rows in chunks:
        h, y = features[rows], labels[rows]
        own = torch.index_select(class_means.minus_means, 0, y, out=room[: len(y)])
        z = torch.add(own, h, alpha=scale, out=own)  # (n, d)
        torch.mm(class_means.basis, z.T, out=p[:, rows])
        squares[rows] = torch.linalg.vector_norm(z, dim=1).double().square_()
        _add_by_class(deviations, y, z)
        if unit_weight is not None:  # 1 - cos as half a squared distance, which does not cancel near 0
            h = torch.mul(h, scale, out=more[: len(y)])
            h.div_(torch.linalg.vector_norm(h, dim=1, keepdim=True))
            h.sub_(torch.index_select(unit_weight, 0, y, out=own))
            gaps += torch.linalg.vector_norm(h, dim=1).double().square_().sum() / 2
    scores = class_means.distances.index_select(0, labels).addmm_(p.T, class_means.coordinates.T, alpha=-2)  # (N, C)
    nearest = scores.min(1).indices  # (N,); on a CPU faster than argmin
    counts, within = squares.new_zeros(num_classes), squares.new_zeros(num_classes)
    _add_by_class(counts, labels, torch.ones_like(squares))
    _add_by_class(within, labels, squares)
    return WithinSums(
        counts=counts,
        within=within,
        within_span=p.square_().sum(1, dtype=torch.float64),
        deviations=deviations,
        ncc_hits=(nearest == labels).sum(),
        mismatches=squares.new_zeros(()) if logits is None else _mismatches(logits, nearest),
        cosine_gaps=gaps,
        with_logits=0 if logits is None else n,
    )


def _mismatches(logits: Tensor, nearest: Tensor) -> Tensor:
    """How many rows of logits (N, C) are largest elsewhere than at `nearest` (N,), float64.

    nan if a row has no largest: where that is not finite, or all are equal, as logits that fell below the range."""
    largest, predicted = logits.max(1)
    no_largest = (largest - largest) / (largest - logits.amin(1))  # (N,): 0, or nan
    return (predicted != nearest).sum() + no_largest.sum(dtype=torch.float64)


def unit_rows(weight: Tensor) -> Tensor:
    """The rows of a weight (C, d) at unit length, in float32 at least; nan of a row of zeros."""
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    weight = weight / weight.abs().amax(1, keepdim=True)  # so that no square leaves the range
    return weight / torch.linalg.vector_norm(weight, dim=1, keepdim=True)


def _add_by_class(total: Tensor, labels: Tensor, values: Tensor) -> None:
    """Adds the sum over the values (n, ...) of every class to its row of total (C, ...)."""
    if _adds_in_order(total.device):
        total.index_add_(0, labels, values)  # n d additions, by row: the same digits whatever the number of threads
    else:
        one_hot = torch.zeros(len(labels), len(total), dtype=values.dtype, device=values.device)
        total += one_hot.scatter_(1, labels[:, None], 1).T @ values


def _adds_in_order(device: torch.device) -> bool:
    """Whether `index_add_` gives the same digits every time: a GPU adds in no fixed order."""
    return device.type == "cpu"
