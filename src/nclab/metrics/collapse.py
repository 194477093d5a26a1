"""Neural-collapse metrics as pure functions of few sums: no d x d matrix anywhere.

Notation: features H (N, d) of one probe point and one split, labels y, C classes. n_c samples of class c, mu_c (d)
class means **of the train split**, mu_G their unweighted mean, M (C, d) rows m_c = mu_c - mu_G, W (C, d) and b (C)
the classifier, Sigma_W = 1/N sum_i (h_i - mu_y)(h_i - mu_y)^T, Sigma_B = 1/C sum_c m_c m_c^T.

An undefined value is nan, never 0: e.g. all of them where every class mean is the same vector (rank 0).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

EPS = torch.finfo(torch.float64).eps
NAN = float("nan")
ROWS = 1024  # rows summed in float32 before they enter a float64 sum
# Bytes that pass 2 works on at a time. On a CPU they stay in the cache while every operation of the pass runs over
# them, so that features come from memory once; on a GPU they only bound what is allocated.
CPU_CHUNK, GPU_CHUNK = 2**20, 2**26


@dataclass(frozen=True)
class ClassMeans:
    """Class means of a probe point, float64, and the geometry that every metric needs.

    means (C, d), centred (C, d), gram (C, C) = M M^T, eigenvalues (C) of the Gram in descending order, `rank` of them
    above the cut (see `geometry`), basis (d, rank) = M^T U lambda^(-1/2), orthonormal,
    distances (C, C) = ||mu_c - mu_c'||^2.
    """

    means: Tensor
    centred: Tensor
    gram: Tensor
    eigenvalues: Tensor
    rank: int
    basis: Tensor
    distances: Tensor


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """No autocast and no TF32 inside, whatever the caller trains with; no gradients either."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [b.fp32_precision for b in backends]
    for b in backends:
        b.fp32_precision = "ieee"
    try:
        with torch.no_grad(), torch.autocast(device_type, enabled=False):
            yield
    finally:
        for b, precision in zip(backends, before, strict=True):
            b.fp32_precision = precision


def class_sums(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Pass 1: samples a class n_c (C,) and class sums S_c (C, d), float64, of features (N, d) and labels (N,).

    Sums over ROWS rows are one-hot matmuls in the features' precision; only they are added up in float64. Sums, not
    running means: they add over batches, devices and ranks.
    """
    counts = torch.zeros(num_classes, dtype=torch.float64, device=features.device)
    sums = torch.zeros(num_classes, features.shape[1], dtype=torch.float64, device=features.device)
    for block in _chunks(features, num_classes):
        one_hot = _one_hot(labels[block], num_classes, features.dtype)  # (n, C)
        counts += one_hot.sum(0)
        for rows, own in zip(features[block].split(ROWS), one_hot.split(ROWS), strict=True):
            sums += own.T @ rows
    return counts, sums


def class_means(counts: Tensor, sums: Tensor, precision: torch.dtype = torch.float64) -> ClassMeans:
    """Class means and their geometry from the sums of pass 1 over features of dtype `precision`.

    Raises ValueError that names an empty class."""
    counts, sums = counts.cpu(), sums.cpu()
    empty = torch.nonzero(counts == 0).flatten().tolist()
    if empty:
        raise ValueError(f"class {', '.join(map(str, empty))} has no sample: its mean does not exist")
    return geometry(sums / counts[:, None], precision)


def geometry(means: Tensor, precision: torch.dtype = torch.float64) -> ClassMeans:
    """Geometry of class means (C, d) that were taken from features of dtype `precision`; C >= 2.

    An eigenvalue counts as a direction above the cut max(C eps64 lambda_max, C (eps ||mu||_F)^2), eps that of
    `precision`: the second term is the rounding of the means themselves. Without it C equal means would span
    directions of pure rounding noise (a class token before the first block)."""
    means = means.to(torch.float64)
    num_classes = means.shape[0]
    if num_classes < 2:
        raise ValueError(f"neural collapse needs at least 2 classes, got {num_classes}")
    centred = means - means.mean(0)
    gram = centred @ centred.T
    if not torch.isfinite(gram).all():
        nothing = torch.full((num_classes,), NAN, dtype=torch.float64)
        empty = means.new_zeros(means.shape[1], 0)
        return ClassMeans(means, centred, gram, nothing, 0, empty, gram)
    eigenvalues, vectors = torch.linalg.eigh(gram)
    eigenvalues, vectors = eigenvalues.flip(0), vectors.flip(1)  # descending
    noise = num_classes * (torch.finfo(precision).eps * means.norm()) ** 2
    cut = torch.maximum(num_classes * EPS * eigenvalues[0], noise)
    rank = int((eigenvalues > cut).sum())
    basis = centred.T @ (vectors[:, :rank] / eigenvalues[:rank].sqrt())  # (d, rank)
    coordinates = centred @ basis  # (C, rank)
    distances = torch.cdist(coordinates, coordinates, compute_mode="donot_use_mm_for_euclid_dist").square()
    return ClassMeans(means, centred, gram, eigenvalues, rank, basis, distances)


@dataclass
class Spread:
    """The sums of pass 2, float64: everything that metrics need of single samples.

    counts n_c (C,), squares sum |z|^2 a class (C,) with z = h - mu_y, along sum (z V)^2 a direction (rank,),
    ncc_hits samples nearest to their own class mean, mismatches samples whose logits choose another class than the
    nearest mean (of `decided` samples that came with logits), apart sum (1 - cos(h, w_y)) (nan where no W came).
    """

    counts: Tensor
    squares: Tensor
    along: Tensor
    ncc_hits: Tensor
    mismatches: Tensor
    apart: Tensor
    decided: int = 0

    def __add__(self, other: "Spread") -> "Spread":
        return Spread(
            self.counts + other.counts,
            self.squares + other.squares,
            self.along + other.along,
            self.ncc_hits + other.ncc_hits,
            self.mismatches + other.mismatches,
            self.apart + other.apart,
            self.decided + other.decided,
        )

    def flat(self) -> Tensor:
        """All sums as one float64 tensor, so that several processes add them up at once."""
        numbers = [self.ncc_hits, self.mismatches, self.apart, self.counts.new_full((), self.decided)]
        return torch.cat([self.counts, self.squares, self.along, torch.stack([n.double() for n in numbers])])

    def like(self, flat: Tensor) -> "Spread":
        """The sums that `flat` made one tensor of."""
        counts, squares, along, numbers = flat.split([len(self.counts)] * 2 + [len(self.along), 4])
        hits, mismatches, apart, decided = numbers
        return Spread(counts, squares, along, hits.long(), mismatches.long(), apart, int(decided))


@dataclass(frozen=True)
class OnDevice:
    """What pass 2 reads of `ClassMeans`, in the features' precision, on their device."""

    means: Tensor  # (C, d)
    basis: Tensor  # (rank, d): V^T. Thin products are up to three times faster on a CPU with the thin side first
    coordinates: Tensor  # (C, rank): m_c V
    distances: Tensor  # (C, C)

    @classmethod
    def of(cls, m: ClassMeans, like: Tensor) -> "OnDevice":
        return cls(*(t.to(like) for t in (m.means, m.basis.T.contiguous(), m.centred @ m.basis, m.distances)))


def spread(
    features: Tensor, labels: Tensor, at: OnDevice, logits: Tensor | None = None, weight: Tensor | None = None
) -> Spread:
    """Pass 2 over features (N, d), labels (N,) and, at the classifier's input, logits (N, C) and its weight (C, d).

    The nearest class mean in R^d is the nearest in span(M). Distances are taken relative to the sample's own class,
    ||h - mu_c||^2 - ||h - mu_y||^2 = ||mu_c - mu_y||^2 - 2 z . (mu_c - mu_y): no difference of large numbers, so
    that float32 decides rightly also where features are collapsed.

    Memory: a few chunks (`CPU_CHUNK`, `GPU_CHUNK` bytes), whatever N. The host waits for nothing.

    Limit: float32 features whose common offset is r times the distance between class means, collapsed to sigma =
    1e-3, give NC1 and CDNV to about 2e-9 r^2 relative (r = 10: 2e-7, r = 100: 2e-5); pass float64 beyond that.
    """
    rows = None
    if weight is not None:
        rows = weight.detach().to(features)
        rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)  # nan of a row that is 0
    total = None
    for block in _chunks(features, at.coordinates.shape[0]):
        part = _spread(features[block], labels[block], at, None if logits is None else logits[block], rows)
        total = part if total is None else total + part
    return total


def _chunks(features: Tensor, numbers: int) -> list[slice]:
    """The rows of features in slices that fill a chunk with `numbers` numbers a row."""
    chunk = CPU_CHUNK if features.device.type == "cpu" else GPU_CHUNK
    size = max(1, chunk // (numbers * features.element_size()))
    return [slice(start, start + size) for start in range(0, max(1, len(features)), size)]  # one of no rows, too


def _spread(
    features: Tensor, labels: Tensor, at: OnDevice, logits: Tensor | None, unit_weight: Tensor | None
) -> Spread:
    """`spread` of so few samples that all their scores (N, C) are one chunk; the rows of W have unit length here."""
    num_classes, rank = at.coordinates.shape
    n, d = features.shape
    p, lengths = features.new_empty(rank, n), features.new_empty(n)
    apart = torch.full((), NAN if unit_weight is None else 0.0, dtype=torch.float64, device=features.device)
    chunks = _chunks(features, d)
    room = torch.empty_like(features[chunks[0]])  # one buffer: fresh memory would cost more than the arithmetic
    for rows in chunks:
        own = torch.index_select(at.means, 0, labels[rows], out=room[: len(labels[rows])])
        z = torch.sub(features[rows], own, out=own)  # (n, d)
        torch.mm(at.basis, z.T, out=p[:, rows])
        torch.linalg.vector_norm(z, dim=1, out=lengths[rows])
        if unit_weight is not None:  # 1 - cos as half a squared distance, which does not cancel near 0
            h = features[rows]
            torch.index_select(unit_weight, 0, labels[rows], out=own)
            own.sub_(h / torch.linalg.vector_norm(h, dim=1, keepdim=True))
            apart += own.square_().sum(dtype=torch.float64) / 2
    scores = at.distances.index_select(0, labels).addmm_(p.T, at.coordinates.T, alpha=-2)  # (N, C)
    nearest = scores.min(1).indices  # (N,); on a CPU faster than argmin
    one_hot = _one_hot(labels, num_classes, torch.float64)  # (N, C)
    return Spread(
        counts=one_hot.sum(0),
        squares=lengths.double().square_() @ one_hot,
        along=p.square_().sum(1, dtype=torch.float64),
        ncc_hits=(nearest == labels).sum(),
        mismatches=labels.new_zeros(()) if logits is None else (logits.argmax(1) != nearest).sum(),
        apart=apart,
        decided=0 if logits is None else n,
    )


def _one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    return torch.zeros(len(labels), num_classes, dtype=dtype, device=labels.device).scatter_(1, labels[:, None], 1)


# Each column, once. m: class means of the train split; s: sums of the split that is measured.


def nc1(m: ClassMeans, s: Spread) -> float:
    """tr(Sigma_W Sigma_B^+) / C. 0 at collapse. Papyan 2020, with the 1/C of Zhu 2021.

    = 1/C sum_k (along_k / N) / (lambda_k / C): the pseudo-inverse acts in span(M) only, cut as `ClassMeans.rank`.
    """
    if m.rank == 0:
        return NAN
    return float((s.along / s.counts.sum() / m.eigenvalues[: m.rank]).sum())


def nc1_trace_ratio(m: ClassMeans, s: Spread) -> float:
    """tr Sigma_W / tr Sigma_B. 0 at collapse. Tirer 2023."""
    if m.rank == 0:
        return NAN
    return float(s.squares.sum() / s.counts.sum() / (m.gram.trace() / len(m.gram)))


def cdnv(m: ClassMeans, s: Spread) -> float:
    """Class-distance normalised variance: mean over pairs of (v_c + v_c') / (2 ||mu_c - mu_c'||^2), v_c the within-
    class variance sum |z|^2 / n_c. 0 at collapse. Galanti 2022. nan where two class means coincide."""
    if m.rank == 0:
        return NAN
    variance = s.squares / s.counts
    pairs = _pairs((variance[:, None] + variance) / (2 * m.distances))
    return float(pairs.mean()) if torch.isfinite(pairs).all() else NAN


def nc2_equinorm(m: ClassMeans) -> float:
    """std(||m_c||) / mean(||m_c||), population std. 0 at collapse. Papyan 2020."""
    norms = m.gram.diagonal().sqrt()
    return float(norms.std(correction=0) / norms.mean()) if m.rank else NAN


def nc2_equiangular(m: ClassMeans) -> float:
    """Mean over pairs of |cos(m_c, m_c') + 1/(C-1)|. 0 at collapse. Papyan 2020. nan where a mean is mu_G itself."""
    if m.rank == 0 or (m.gram.diagonal() == 0).any():
        return NAN
    norms = m.gram.diagonal().sqrt()
    cosines = m.gram / (norms[:, None] * norms)
    return float(_pairs(cosines + 1 / (len(norms) - 1)).abs().mean())


def gram_distance(gram: Tensor) -> float:
    """|| G/||G||_F - (I - 11^T/C)/sqrt(C-1) ||_F for G (C, C): how far from the Gram matrix of a simplex ETF.

    nc2_gram with G = M M^T, nc2_weight_gram with W W^T, nc3_gram with W M^T. 0 at collapse. Zhu 2021.
    """
    num_classes = len(gram)
    norm = gram.norm()
    if not torch.isfinite(norm) or norm == 0:
        return NAN
    target = (torch.eye(num_classes, dtype=gram.dtype) - 1 / num_classes) / (num_classes - 1) ** 0.5
    return float((gram / norm - target).norm())


def orthogonal_distance(gram: Tensor) -> float:
    """|| G/||G||_F - I/sqrt(C) ||_F for G (C, C): how far from the Gram matrix of an orthogonal frame.

    nc2_weight_orthogonal with W W^T, nc2_means_orthogonal with the Gram of the class means mu_c, not centred. 0 where
    MSE without bias collapses (arXiv 2505.15239); a simplex ETF has sqrt(2 - 2 sqrt((C-1)/C)).
    """
    norm = gram.norm()
    if not torch.isfinite(norm) or norm == 0:
        return NAN
    return float((gram / norm - torch.eye(len(gram), dtype=gram.dtype) / len(gram) ** 0.5).norm())


def nc3_cosine(s: Spread) -> float:
    """1 - mean over samples of cos(h_i, w_y), w_y the row of W of the sample's class. 0 at collapse without a common
    offset of features. After arXiv 2505.15239. nan where a feature or a row is 0."""
    return float(s.apart / s.counts.sum())


def nc3(m: ClassMeans, weight: Tensor) -> float:
    """|| W/||W||_F - M/||M||_F ||_F, not squared. 0 at collapse (self-duality). Papyan 2020."""
    if m.rank == 0 or not weight.norm() > 0:
        return NAN
    return float((weight / weight.norm() - m.centred / m.centred.norm()).norm())


def subspace_alignment(m: ClassMeans, weight: Tensor) -> float:
    """Mean squared cosine of the principal angles between span(M), M (C, d_in) the class means at a layer's *input*,
    and the top C-1 right singular vectors of the layer's weight (d_out, d_in). 1 at collapse. Rangamani 2023.

    Where the means span fewer than C-1 dimensions, or the map has fewer directions, the mean runs over the smaller
    count. Means nothing for a full-rank ETF, whose singular values are all equal: do not call it there.
    """
    if m.rank == 0 or not torch.isfinite(weight).all():
        return NAN
    directions = min(len(m.means) - 1, *weight.shape)
    w = weight.detach().double().cpu()
    w = w if len(w) >= w.shape[1] else w.T  # the smaller Gram: its leading eigenvectors cost a tenth of an SVD
    vectors = torch.linalg.eigh(w.T @ w).eigenvectors[:, -directions:]  # of the smaller side, (., C-1)
    if w.shape[1] != weight.shape[1]:
        vectors = torch.linalg.qr(w @ vectors).Q  # left singular vectors of W -> right ones
    return float((m.basis.T @ vectors).square().sum() / min(directions, m.rank))


def _pairs(matrix: Tensor) -> Tensor:
    """Off-diagonal entries of a symmetric (C, C) matrix, each pair once."""
    i, j = torch.triu_indices(*matrix.shape, offset=1)
    return matrix[i, j]
