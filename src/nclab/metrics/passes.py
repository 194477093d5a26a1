"""The two passes over the features of a layer, as sums that add over batches, devices and processes.

Pass 1 (`class_sums`) gives the class means. Pass 2 (`within_sums`) gives what the metrics need of the deviations from
them. Neither forms a d x d matrix, and the host waits for the device in neither.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nclab.metrics.geometry import NAN, ClassMeans

# Bytes that a pass works on at a time. On a CPU they stay in the cache while every operation of the pass runs over
# them, so that features come from memory once; on a GPU they only bound what is allocated.
CPU_CHUNK, GPU_CHUNK = 2**20, 2**26
# Share of a class mean's half distance to the next one, squared, within which float32 leaves no doubt.
SURE = 1 - 1e-3
FAR = 2.0**40  # features of this size or its inverse: their squares come near the ends of float32
Logits = Tensor | Callable[[Tensor], Tensor]  # (N, C), or what makes (n, C) of n features


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
    mismatches: samples whose logit is larger elsewhere than at the class of the nearest mean (a tie with it is none);
        nan if one has no largest.
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
    sure: Tensor  # (C,): |z V|^2 up to which mu_c is the nearest mean of a sample h = mu_c + z / scale

    @classmethod
    def of(cls, m: ClassMeans, like: Tensor) -> "MeansOnDevice":
        others = m.distances.clone().fill_diagonal_(torch.inf)
        sure = SURE / 4 * others.amin(1)  # |z V| below half the distance to every other mean
        tensors = (-m.scale * m.means, m.basis.T.contiguous(), m.coordinates, m.distances, sure)
        return cls(m.scale, *(t.to(like) for t in tensors))

    def rounding(self, m: ClassMeans) -> Tensor:
        """How far the class means lie from the points that pass 2 subtracts (C, d), float64, in host memory."""
        return m.scale * m.means + self.minus_means.double().cpu()


def within_sums(
    features: Tensor,
    labels: Tensor,
    class_means: MeansOnDevice,
    logits: Logits | None = None,
    weight: Tensor | None = None,
) -> WithinSums:
    """Pass 2 over features (N, d), labels (N,) and, at the classifier's input, its logits and its weight (C, d).

    The nearest class mean in R^d is the nearest in span(M). Distances are taken relative to the sample's own class,
    ||h - mu_c||^2 - ||h - mu_y||^2 = ||mu_c - mu_y||^2 - 2 z . (mu_c - mu_y): no difference of large numbers, so
    that float32 decides rightly also where features are collapsed. On a CPU they are taken only of samples further from
    mu_y than half its distance to the nearest other mean: the triangle inequality decides the others.

    Squares are formed of features times `scale`, a power of two that follows from the class means alone, so that all
    chunks and processes have the same: float32 features of any size give the same digits.

    Memory: a few chunks (`CPU_CHUNK`, `GPU_CHUNK` bytes), whatever N, and a few tensors of (C, d).
    """
    minus_weight = None if weight is None else -unit_rows(weight.detach()).to(features)
    total = _no_sums(features, class_means, NAN if weight is None else 0.0)
    for rows in _chunks(features, class_means.coordinates.shape[0]):
        own = features[rows]
        own_logits = logits(own) if callable(logits) else None if logits is None else logits[rows]
        _add_within(total, own, labels[rows], class_means, own_logits, minus_weight)
    return replace(total, with_logits=0 if logits is None else len(features))


def _chunks(features: Tensor, numbers: int) -> list[slice]:
    """The rows of features in slices that fill a chunk with `numbers` numbers a row."""
    chunk = CPU_CHUNK if features.device.type == "cpu" else GPU_CHUNK
    size = max(1, chunk // (numbers * features.element_size()))
    return [slice(start, start + size) for start in range(0, max(1, len(features)), size)]  # one of no rows, too


def _no_sums(features: Tensor, class_means: MeansOnDevice, gaps: float) -> WithinSums:
    """The sums of no sample."""
    num_classes, rank = class_means.coordinates.shape

    def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=features.device)

    return WithinSums(
        counts=zeros(num_classes),
        within=zeros(num_classes),
        within_span=zeros(rank),
        deviations=zeros(num_classes, features.shape[1], dtype=features.dtype),
        ncc_hits=zeros(dtype=torch.int64),
        mismatches=zeros(),
        cosine_gaps=zeros() + gaps,
    )


def _add_within(
    total: WithinSums,
    features: Tensor,
    labels: Tensor,
    class_means: MeansOnDevice,
    logits: Tensor | None,
    minus_weight: Tensor | None,
) -> None:
    """Adds to `total`, in place, the sums of so few samples that all their scores (N, C) are one chunk;
    minus_weight (C, d): -w_c / |w_c|."""
    (n, d), scale = features.shape, class_means.scale
    p, squares = features.new_empty(class_means.coordinates.shape[1], n), labels.new_empty(n, dtype=torch.float64)
    chunks = _chunks(features, d)
    room = torch.empty_like(features[chunks[0]])  # one buffer: fresh memory would cost more than the arithmetic
    for rows in chunks:
        h, y = features[rows], labels[rows]
        own = torch.index_select(class_means.minus_means, 0, y, out=room[: len(y)])
        z = torch.add(own, h, alpha=scale, out=own)  # (n, d)
        torch.mm(class_means.basis, z.T, out=p[:, rows])
        squares[rows] = torch.linalg.vector_norm(z, dim=1).double().square_()
        _add_by_class(total.deviations, y, z)
        if minus_weight is not None:  # 1 - cos as half a squared distance, which does not cancel near 0
            h = h if FAR**-1 < scale < FAR else h * scale
            gap = torch.index_select(minus_weight, 0, y, out=own)
            gap.addcmul_(h, 1 / torch.linalg.vector_norm(h, dim=1, keepdim=True))  # (n, d): h/|h| - w_y/|w_y|
            total.cosine_gaps += torch.linalg.vector_norm(gap, dim=1).double().square_().sum() / 2
    nearest = _nearest(p, labels, class_means)
    _add_by_class(total.counts, labels, torch.ones_like(squares))
    _add_by_class(total.within, labels, squares)
    total.within_span += p.square_().sum(1, dtype=torch.float64)
    total.ncc_hits += (nearest == labels).sum()
    if logits is not None:
        total.mismatches += _mismatches(logits, nearest)


def _nearest(p: Tensor, labels: Tensor, class_means: MeansOnDevice) -> Tensor:
    """The class (n,) of the nearest mean of every sample, of (z V)^T (rank, n)."""
    if p.device.type != "cpu":  # to choose samples the host would have to wait for their number
        return _nearest_of_all(p, labels, class_means)
    sure = torch.linalg.vector_norm(p, dim=0).square_() < class_means.sure.index_select(0, labels)  # nan is not
    rest = torch.nonzero(~sure).flatten()
    others = _nearest_of_all(p.index_select(1, rest), labels.index_select(0, rest), class_means)
    return labels.index_copy(0, rest, others)


def _nearest_of_all(p: Tensor, labels: Tensor, class_means: MeansOnDevice) -> Tensor:
    """`_nearest` by the distances to all means."""
    scores = class_means.distances.index_select(0, labels).addmm_(p.T, class_means.coordinates.T, alpha=-2)  # (n, C)
    return scores.min(1).indices  # on a CPU faster than argmin


def _mismatches(logits: Tensor, nearest: Tensor) -> Tensor:
    """How many rows of logits (N, C) are larger elsewhere than at `nearest` (N,), float64.

    nan if a row has no largest: where that is not finite, or all are equal, as logits that fell below the range."""
    largest = logits.amax(1)  # a tenth of the time that `max`, which also looks for the place, takes on a CPU
    no_largest = (largest - largest) / (largest - logits.amin(1))  # (N,): 0, or nan
    elsewhere = logits.gather(1, nearest[:, None])[:, 0] < largest
    return elsewhere.sum() + no_largest.sum(dtype=torch.float64)


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
