"""The two passes over the features of a layer, as sums that add over batches, devices and processes.

Pass 1 (`class_sums`) gives the class means. Pass 2 (`within_sums`) gives what the metrics need of the deviations from
them. Neither forms a d x d matrix, and the host waits for the device in neither.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nclab.metrics.geometry import NAN, ClassMeans

ROWS = 1024  # rows summed in float32 before they enter a float64 sum
# Bytes that pass 2 works on at a time. On a CPU they stay in the cache while every operation of the pass runs over
# them, so that features come from memory once; on a GPU they only bound what is allocated.
CPU_CHUNK, GPU_CHUNK = 2**20, 2**26


def class_sums(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Pass 1: the number of samples of every class n_c (C,) and the class sums S_c (C, d), both float64.

    features (N, d) float32 or float64, labels (N,) int64 in 0..C-1. Sums over ROWS rows are one-hot matmuls in the
    features' precision; only these are added up in float64.
    """
    counts = torch.zeros(num_classes, dtype=torch.float64, device=features.device)
    sums = torch.zeros(num_classes, features.shape[1], dtype=torch.float64, device=features.device)
    for block in _chunks(features, num_classes):
        one_hot = _one_hot(labels[block], num_classes, features.dtype)  # (n, C)
        counts += one_hot.sum(0)
        for rows, own in zip(features[block].split(ROWS), one_hot.split(ROWS), strict=True):
            sums += own.T @ rows
    return counts, sums


@dataclass
class WithinSums:
    """The sums of pass 2 over the samples h of a split, float64, with z = h - mu_y.

    counts (C,): samples of every class.
    within (C,): sum of |z|^2 over the samples of every class.
    within_span (rank,): sum of (z V)^2 along every basis vector of span(M); V is `ClassMeans.basis`.
    ncc_hits: samples whose nearest class mean is that of their label.
    mismatches: samples whose largest logit and nearest class mean are different classes.
    cosine_gaps: sum of 1 - cos(h, w_y); nan if no weight was given.
    with_logits: samples that came with logits.
    """

    counts: Tensor
    within: Tensor
    within_span: Tensor
    ncc_hits: Tensor
    mismatches: Tensor
    cosine_gaps: Tensor
    with_logits: int = 0

    def __add__(self, other: "WithinSums") -> "WithinSums":
        return WithinSums(
            self.counts + other.counts,
            self.within + other.within,
            self.within_span + other.within_span,
            self.ncc_hits + other.ncc_hits,
            self.mismatches + other.mismatches,
            self.cosine_gaps + other.cosine_gaps,
            self.with_logits + other.with_logits,
        )

    def cpu(self) -> "WithinSums":
        """The same sums in host memory."""
        tensors = (self.counts, self.within, self.within_span, self.ncc_hits, self.mismatches, self.cosine_gaps)
        return WithinSums(*(t.cpu() for t in tensors), self.with_logits)

    def flat(self) -> Tensor:
        """All sums as one float64 tensor, so that several processes add them up at once."""
        numbers = [self.ncc_hits, self.mismatches, self.cosine_gaps, self.counts.new_full((), self.with_logits)]
        return torch.cat([self.counts, self.within, self.within_span, torch.stack([n.double() for n in numbers])])

    def like(self, flat: Tensor) -> "WithinSums":
        """The sums that `flat` made one tensor of."""
        sizes = [len(self.counts)] * 2 + [len(self.within_span), 4]
        counts, within, within_span, numbers = flat.split(sizes)
        hits, mismatches, gaps, with_logits = numbers
        return WithinSums(counts, within, within_span, hits.long(), mismatches.long(), gaps, int(with_logits))


@dataclass(frozen=True)
class MeansOnDevice:
    """What pass 2 reads of `ClassMeans`, in the features' precision, on their device."""

    means: Tensor  # (C, d)
    basis: Tensor  # (rank, d): V^T. Thin products are up to three times faster on a CPU with the thin side first
    coordinates: Tensor  # (C, rank): m_c V
    distances: Tensor  # (C, C): ||mu_c - mu_c'||^2

    @classmethod
    def of(cls, m: ClassMeans, like: Tensor) -> "MeansOnDevice":
        return cls(*(t.to(like) for t in (m.means, m.basis.T.contiguous(), m.centred @ m.basis, m.distances)))


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

    Memory: a few chunks (`CPU_CHUNK`, `GPU_CHUNK` bytes), whatever N.

    Limit: float32 features whose common offset is r times the distance between class means, collapsed to sigma =
    1e-3, give NC1 and CDNV to about 2e-9 r^2 relative (r = 10: 2e-7, r = 100: 2e-5); pass float64 beyond that.
    """
    unit_weight = None
    if weight is not None:
        unit_weight = weight.detach().to(features)
        unit_weight = unit_weight / torch.linalg.vector_norm(unit_weight, dim=1, keepdim=True)  # nan of a row of zeros
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
    n, d = features.shape
    p, lengths = features.new_empty(rank, n), features.new_empty(n)
    gaps = torch.full((), NAN if unit_weight is None else 0.0, dtype=torch.float64, device=features.device)
    chunks = _chunks(features, d)
    room = torch.empty_like(features[chunks[0]])  # one buffer: fresh memory would cost more than the arithmetic
    for rows in chunks:
        own = torch.index_select(class_means.means, 0, labels[rows], out=room[: len(labels[rows])])
        z = torch.sub(features[rows], own, out=own)  # (n, d)
        torch.mm(class_means.basis, z.T, out=p[:, rows])
        torch.linalg.vector_norm(z, dim=1, out=lengths[rows])
        if unit_weight is not None:  # 1 - cos as half a squared distance, which does not cancel near 0
            h = features[rows]
            torch.index_select(unit_weight, 0, labels[rows], out=own)
            own.sub_(h / torch.linalg.vector_norm(h, dim=1, keepdim=True))
            gaps += own.square_().sum(dtype=torch.float64) / 2
    scores = class_means.distances.index_select(0, labels).addmm_(p.T, class_means.coordinates.T, alpha=-2)  # (N, C)
    nearest = scores.min(1).indices  # (N,); on a CPU faster than argmin
    one_hot = _one_hot(labels, num_classes, torch.float64)  # (N, C)
    return WithinSums(
        counts=one_hot.sum(0),
        within=lengths.double().square_() @ one_hot,
        within_span=p.square_().sum(1, dtype=torch.float64),
        ncc_hits=(nearest == labels).sum(),
        mismatches=labels.new_zeros(()) if logits is None else (logits.argmax(1) != nearest).sum(),
        cosine_gaps=gaps,
        with_logits=0 if logits is None else n,
    )


def _one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    return torch.zeros(len(labels), num_classes, dtype=dtype, device=labels.device).scatter_(1, labels[:, None], 1)
