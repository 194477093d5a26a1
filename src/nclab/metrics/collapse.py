"""Every collapse metric, once, as a pure function of the class means and of the sums of pass 2.

Notation: features H (N, d) of one layer and one split, labels y, C classes. n_c samples of class c, mu_c (d) class
means **of the train split**, mu_G their unweighted mean, M (C, d) rows m_c = mu_c - mu_G, W (C, d) and b (C) the
classifier, Sigma_W = 1/N sum_i (h_i - mu_y)(h_i - mu_y)^T, Sigma_B = 1/C sum_c m_c m_c^T.

An undefined value is nan, never 0: e.g. all of them where every class mean is the same vector (rank 0). No column but
`classifier_bias_collapse` depends on the scale of the features or of W. Means that differ by no more than
`ClassMeans.cut` coincide.

A test split may lack a class, where the class means of the train split are given. Then `cdnv` is the mean over the
pairs of classes that are there. `nc1`, `nc1_trace_ratio`, `ncc_accuracy`, `nc4_mismatch` and `nc3_cosine` are means
over samples, whatever their classes. All others depend on the class means and on W alone.
"""

from itertools import chain

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nclab.metrics.geometry import NAN, ClassMeans, power_of_two
from nclab.metrics.passes import WithinSums, unit_rows
from nclab.metrics.precision import full_precision

# m: class means of the train split; s: sums of the split that is measured.


def nc1(m: ClassMeans, s: WithinSums) -> float:
    """tr(Sigma_W Sigma_B^+) / C. 0 at collapse. Papyan 2020, with the 1/C of Zhu 2021.

    = 1/C sum_k (within_span_k / N) / (lambda_k / C): the pseudo-inverse acts in span(M) only, cut as `ClassMeans.rank`.
    Not comparable across ranks: a direction that falls below the cut takes its share with it.
    """
    if m.rank == 0:
        return NAN
    return float((s.within_span / s.counts.sum() / m.eigenvalues[: m.rank]).sum())


def nc1_trace_ratio(m: ClassMeans, s: WithinSums) -> float:
    """tr Sigma_W / tr Sigma_B. 0 at collapse. Tirer 2023."""
    if m.rank == 0:
        return NAN
    return float(s.within.sum() / s.counts.sum() / (m.gram.trace() / len(m.gram)))


def cdnv(m: ClassMeans, s: WithinSums) -> float:
    """Class-distance normalised variance: mean over pairs of (v_c + v_c') / (2 ||mu_c - mu_c'||^2), v_c the within-
    class variance sum |z|^2 / n_c. 0 at collapse. Galanti 2022. nan where two class means coincide.

    The pairs are those of classes with a sample in the split; nan if there are fewer than two such classes."""
    return over_distances(m, s.within / s.counts, s.counts > 0)


def over_distances(m: ClassMeans, spreads: Tensor, present: Tensor) -> float:
    """Mean over pairs of the classes that are `present` (C,) of (v_c + v_c') / (2 ||mu_c - mu_c'||^2), v = spreads (C,)
    in the units of m's distances. nan where two of their means coincide, and for fewer than two of them."""
    classes = torch.nonzero(present).flatten()
    distances = m.distances[classes][:, classes].fill_diagonal_(torch.inf)
    if m.rank == 0 or len(classes) < 2 or (distances <= m.cut).any():
        return NAN
    own = spreads[classes]
    return _mean_over_pairs((own[:, None] + own) / (2 * distances))


def nc2_equinorm(m: ClassMeans) -> float:
    """std(||m_c||) / mean(||m_c||), population std. 0 at collapse. Papyan 2020."""
    norms = m.gram.diagonal().sqrt()
    return float(norms.std(correction=0) / norms.mean()) if m.rank else NAN


def nc2_equiangular(m: ClassMeans) -> float:
    """Mean over pairs of |cos(m_c, m_c') + 1/(C-1)|. 0 at collapse. Papyan 2020. nan where a mean is mu_G itself."""
    if m.rank == 0 or (m.gram.diagonal() <= m.cut).any():
        return NAN
    norms = m.gram.diagonal().sqrt()
    cosines = m.gram / (norms[:, None] * norms)
    return _mean_over_pairs((cosines + 1 / (len(norms) - 1)).abs())


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


def gram_of_means(m: ClassMeans) -> Tensor:
    """The products (C, C) of the class means themselves, not centred, times scale^2: M M^T and what mu_G adds to it."""
    mean = (m.scale * m.means).mean(0)
    along = m.centred @ mean
    return m.gram + along[:, None] + along + mean @ mean


def nc2_weight_equinorm(weight: Tensor) -> float:
    """std(||w_c||) / mean(||w_c||) over the rows of W (C, d), not centred, population std. 0 at collapse. Papyan 2020.
    nan where W is 0."""
    norms = torch.linalg.vector_norm(weight, dim=1)
    return float(norms.std(correction=0) / norms.mean())


def nc2_weight_equiangular(weight: Tensor) -> float:
    """Mean over pairs of |cos(w_c, w_c') + 1/(C-1)| over the rows of W (C, d), not centred. 0 at collapse. Papyan 2020.
    nan where a row is 0."""
    rows = unit_rows(weight)
    return _mean_over_pairs((rows @ rows.T + 1 / (len(rows) - 1)).abs())


def classifier_bias_collapse(m: ClassMeans, weight: Tensor, bias: Tensor) -> float:
    """|| W mu_G + b ||, what the classifier says of the mean of the class means, in units of the logits. 0 at collapse.
    The fourth number of Zhu 2021; it grows with features, W and b, so that runs compare at one scale only.

    weight (C, d), bias (C,) of zeros where the classifier has none."""
    factor = power_of_two(weight)
    logits = (factor * weight) @ (m.scale * m.means).mean(0) / m.scale / factor + bias  # (C,)
    unit = power_of_two(logits)
    return float((unit * logits).norm()) / unit


def nc4_mismatch(s: WithinSums) -> float:
    """Share of samples whose largest logit, bias included, and nearest class mean are of different classes. 0 at
    collapse. Papyan 2020. Where several logits are largest, one at the nearest mean is enough. nan where a sample has
    no largest logit: all are equal, or it is not finite."""
    return float(s.mismatches) / s.with_logits


def ncc_accuracy(s: WithinSums) -> float:
    """Share of samples whose nearest class mean is that of their label. 1 at collapse. Cohen 2018."""
    return int(s.ncc_hits) / float(s.counts.sum())


def nc3_cosine(s: WithinSums) -> float:
    """1 - mean over samples of cos(h_i, w_y), w_y the row of W of the sample's class. 0 at collapse without a common
    offset of features. After arXiv 2505.15239. nan where a feature or a row is 0."""
    return float(s.cosine_gaps / s.counts.sum())


def nc3(m: ClassMeans, weight: Tensor) -> float:
    """|| W/||W||_F - M/||M||_F ||_F, not squared. 0 at collapse (self-duality). Papyan 2020."""
    return nc3_of_centred(m.centred, weight) if m.rank else NAN


def nc3_of_centred(centred: Tensor, weight: Tensor) -> float:
    """`nc3` of class means (C, d) that are centred already."""
    if not weight.norm() > 0:
        return NAN
    return float((weight / weight.norm() - centred / centred.norm()).norm())


def subspace_alignment(m: ClassMeans, weight: Tensor) -> float:
    """Mean squared cosine of the principal angles between span(M), M (C, d_in) the class means at a layer's *input*,
    and the top C-1 right singular vectors of the layer's weight (d_out, d_in). 1 at collapse. Rangamani 2023.

    Where the means span fewer than C-1 dimensions, or the layer has fewer directions, the mean runs over the smaller
    count. Means nothing for a full-rank ETF, whose singular values are all equal: do not call it there.
    """
    if m.rank == 0 or not torch.isfinite(weight).all():
        return NAN
    directions = min(len(m.means) - 1, *weight.shape)
    w = weight.detach().double().cpu()
    w = w * power_of_two(w)
    w = w if len(w) >= w.shape[1] else w.T  # the smaller Gram: its leading eigenvectors cost a tenth of an SVD
    vectors = torch.linalg.eigh(w.T @ w).eigenvectors[:, -directions:]  # of the smaller side, (., C-1)
    if w.shape[1] != weight.shape[1]:
        vectors = torch.linalg.qr(w @ vectors).Q  # left singular vectors of W -> right ones
    return float((m.basis.T @ vectors).square().sum() / min(directions, m.rank))


def classifier_of(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """W (C, d) and b (C,) of a linear layer; zeros where it has no bias. An implicit layer makes its weight anew."""
    weight, bias = layer.weight, getattr(layer, "bias", None)
    return weight, weight.new_zeros(len(weight)) if bias is None else bias


def image_of_means(m: ClassMeans, layer: nn.Module) -> Tensor:
    """The rows W m_c (C, d_out), float64, of a linear layer that reads what m are the class means of; up to a factor.

    The layer is called, without its bias: one that applies its weight without storing it need not make a matrix."""
    like = next(t for t in chain(layer.parameters(), layer.buffers()) if t.is_floating_point())
    bias = getattr(layer, "bias", None)
    without_bias = {} if bias is None else {"bias": torch.zeros_like(bias)}
    with full_precision(like.device.type, products_only=True):
        return functional_call(layer, without_bias, (m.centred.to(like),)).double().cpu()


def dnc3_gram(m: ClassMeans, image: Tensor) -> float:
    """|| K/||K||_F - L/||L||_F ||_F with K = M M^T at a layer's *input* and L = (W M)(W M)^T behind its weight, whose
    rows W m_c are `image` (C, d_out): how far the layer is from keeping the angles and relative lengths of the class
    means. At most sqrt(2).

    0 at deep collapse, where the input's Gram matrix is a simplex ETF's and the weight's leading right singular
    vectors span M with one singular value (after Sukenik 2023, whose DNC3 is `subspace_alignment`). nan where the means
    coincide or the layer sends all of them to 0."""
    image = image * power_of_two(image)
    behind = image @ image.T
    norm = behind.norm()
    if m.rank == 0 or not torch.isfinite(norm) or norm == 0:
        return NAN
    return float((m.gram / m.gram.norm() - behind / norm).norm())


def _mean_over_pairs(matrix: Tensor) -> float:
    """Mean of a symmetric matrix (C, C) over the pairs of two classes: of what is not on the diagonal."""
    return float(matrix.fill_diagonal_(0).sum() / (len(matrix) * (len(matrix) - 1)))
