"""CollapseMeter: the two streaming passes, and `measure`, the same on tensors that are at hand."""

from collections.abc import Callable

import torch
from torch import Tensor

from nclab.metrics import collapse
from nclab.metrics.collapse import ClassMeans, OnDevice, Spread


class CollapseMeter:
    """Collapse metrics of one probe point and one split from a stream of batches.

    >>> train = CollapseMeter(num_classes)
    >>> for features, labels in batches: train.add_means(features, labels)          # pass 1
    >>> for features, labels in batches: train.add_spread(features, labels)         # pass 2
    >>> train.compute()
    >>> test = CollapseMeter(num_classes, class_means=train.class_means)            # pass 2 alone

    `reduce` sums a float64 tensor over whoever else measures a part of the split; all then have the numbers of the
    whole. It is called once a pass, at its end.
    """

    def __init__(
        self,
        num_classes: int,
        class_means: ClassMeans | None = None,
        reduce: Callable[[Tensor], Tensor] | None = None,
    ):
        self.num_classes = num_classes
        self._reduce = reduce
        self._counts: Tensor | None = None
        self._sums: Tensor | None = None
        self._means = class_means
        self._at: OnDevice | None = None
        self._spread: Spread | None = None
        self._precision = torch.float64

    def add_means(self, features: Tensor, labels: Tensor) -> None:
        """Pass 1 over features (B, d) and labels (B,)."""
        _check_batch(features, labels)
        if self._means is not None:
            raise RuntimeError("the class means of this meter are fixed: given, or already used by pass 2")
        self._precision = features.dtype
        with collapse.full_precision(features.device.type):
            counts, sums = collapse.class_sums(features, labels, self.num_classes)
        self._counts = counts if self._counts is None else self._counts + counts
        self._sums = sums if self._sums is None else self._sums + sums

    @property
    def class_means(self) -> ClassMeans:
        """Class means and their geometry; ends pass 1. Raises ValueError that names an empty class."""
        if self._means is None:
            if self._counts is None:
                raise RuntimeError("no batch seen: call add_means for every batch first")
            if self._reduce is not None:
                self.accept(self._reduce(self.sums()))
            counts, sums = self._counts, self._sums
            self._means = collapse.class_means(counts, sums, self._precision)
        return self._means

    def sums(self) -> Tensor:
        """The sums of the pass under way, flat and float64: what several processes add up."""
        if self._spread is not None:
            return self._spread.flat()
        if self._counts is None:
            raise RuntimeError("no batch seen: call add_means for every batch first")
        return torch.cat([self._counts[:, None], self._sums], 1).flatten()  # (C (1 + d),)

    def accept(self, reduced: Tensor) -> None:
        """Go on with these sums, those of all processes, in the place of this one's."""
        if self._spread is not None:
            self._spread = self._spread.like(reduced)
        else:
            total = reduced.view(self.num_classes, -1)
            self._counts, self._sums = total[:, 0], total[:, 1:]

    def add_spread(
        self, features: Tensor, labels: Tensor, logits: Tensor | None = None, weight: Tensor | None = None
    ) -> None:
        """Pass 2 over features (B, d), labels (B,) and, at the classifier's input, logits (B, C) and its W (C, d)."""
        _check_batch(features, labels)
        with collapse.full_precision(features.device.type):
            if self._at is None:
                self._at = OnDevice.of(self.class_means, like=features)
            batch = collapse.spread(features, labels, self._at, logits, weight)
        self._spread = batch if self._spread is None else self._spread + batch

    def compute(self, weight: Tensor | None = None) -> dict[str, float]:
        """All columns of the probe point; those of the classifier W (C, d) only where `weight` is given, as it was to
        `add_spread`."""
        if self._spread is None:
            raise RuntimeError("no batch seen: call add_spread for every batch first")
        if self._reduce is not None:
            self.accept(self._reduce(self.sums()))
        m, s = self.class_means, self._spread
        s = Spread(*(t.cpu() for t in (s.counts, s.squares, s.along, s.ncc_hits, s.mismatches, s.apart)), s.decided)
        empty = torch.nonzero(s.counts == 0).flatten().tolist()
        if empty:
            raise ValueError(f"class {', '.join(map(str, empty))} has no sample in this split")
        finite = bool(torch.isfinite(s.squares).all()) and bool(torch.isfinite(m.gram).all())
        values = {
            "nc1": collapse.nc1(m, s),
            "nc1_trace_ratio": collapse.nc1_trace_ratio(m, s),
            "cdnv": collapse.cdnv(m, s),
            "nc2_equinorm": collapse.nc2_equinorm(m),
            "nc2_equiangular": collapse.nc2_equiangular(m),
            "nc2_gram": collapse.gram_distance(m.gram) if m.rank else collapse.NAN,
            # With one vector for all classes nothing is nearest: undefined, not chance.
            "ncc_accuracy": float(s.ncc_hits / s.counts.sum()) if finite and m.rank else collapse.NAN,
            "rank": float(m.rank),
        }
        if weight is not None:
            w = weight.detach().double().cpu()
            values["nc2_weight_gram"] = collapse.gram_distance(w @ w.T)
            values["nc2_weight_orthogonal"] = collapse.orthogonal_distance(w @ w.T)
            values["nc2_means_orthogonal"] = collapse.orthogonal_distance(m.means @ m.means.T)
            values["nc3"] = collapse.nc3(m, w)
            values["nc3_gram"] = collapse.gram_distance(w @ m.centred.T) if m.rank else collapse.NAN
            values["nc3_cosine"] = collapse.nc3_cosine(s)
        if s.decided:
            values["nc4_mismatch"] = float(s.mismatches / s.decided) if finite and m.rank else collapse.NAN
        return values


def measure(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    class_means: Tensor | None = None,
) -> dict[str, float]:
    """Collapse metrics of features (N, d) with labels (N,); definitions in `nclab.metrics.collapse`.

    weight (C, d) and bias (C,): the classifier that reads these features; adds nc2_weight_gram, nc2_weight_orthogonal,
    nc2_means_orthogonal, nc3, nc3_gram, nc3_cosine and nc4_mismatch. class_means (C, d): of the train split, when the
    features are those of the test split; without it they are taken from the features. Raises ValueError for shapes that
    do not fit, labels out of range and empty classes.
    """
    _check_batch(features, labels)
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"labels must lie in 0..{num_classes - 1}, got {int(labels.min())}..{int(labels.max())}")
    d = features.shape[1]
    for name, tensor, shape in (
        ("weight", weight, (num_classes, d)),
        ("bias", bias, (num_classes,)),
        ("class_means", class_means, (num_classes, d)),
    ):
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
    if bias is not None and weight is None:
        raise ValueError("a bias without a weight makes no logits; give both")
    known = None if class_means is None else collapse.geometry(class_means.detach().cpu(), class_means.dtype)
    meter = CollapseMeter(num_classes, known)
    if known is None:
        meter.add_means(features, labels)
    logits = None
    if weight is not None:
        with collapse.full_precision(features.device.type):
            logits = features @ weight.T.to(features)
            if bias is not None:
                logits = logits + bias.to(features)
    meter.add_spread(features, labels, logits, weight)
    return meter.compute(weight)


def _check_batch(features: Tensor, labels: Tensor) -> None:
    if features.ndim != 2 or labels.ndim != 1 or len(features) != len(labels) or not len(labels):
        raise ValueError(
            "features must have shape (N, d) and labels (N,) with N > 0, "
            f"got {tuple(features.shape)} and {tuple(labels.shape)}"
        )
    if features.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"features must be float32 or float64 (metrics never run in half), got {features.dtype}")
