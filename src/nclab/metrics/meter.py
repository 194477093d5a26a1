"""CollapseMeter: the two streaming passes over the features of a layer."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nclab.metrics import collapse
from nclab.metrics.checks import (
    Array,
    batch_of,
    check_label_range,
    class_count,
    class_means_of,
    in_host_memory,
    matrix_of,
)
from nclab.metrics.geometry import NAN, ClassMeans, class_means, power_of_two
from nclab.metrics.passes import Logits, MeansOnDevice, WithinSums, class_sums, within_sums
from nclab.metrics.precision import full_precision


class CollapseMeter:
    """Collapse metrics of one layer and one split from a stream of batches, in two passes over them.

    Pass 1 (`add_means`) sums features by class; pass 2 (`add_spread`) sums deviations from the class means; `compute`
    returns the columns, whose formulas stand in `nclab.metrics.collapse`. The order of the samples does not matter.
    Memory is O(C d), whatever the number of samples, and on a GPU no batch makes the host wait.

    The train split has both passes. A test split is measured against the class means of the train split: it has pass
    2 alone.

    Args:
        num_classes: C >= 2.
        class_means: of the train split, for a test split: `class_means` of the train split's meter, which is exact, or
            a tensor or array (C, d). A split measured so may lack classes: `cdnv` is then the mean over the pairs of
            classes with samples, and every other column is defined as ever.
        reduce: sums a float64 tensor over all processes that measure a part of the split; all then have the numbers
            of the whole. It is called once a pass, at its end.

    >>> import torch
    >>> from nclab.metrics import CollapseMeter
    >>> centres = torch.tensor([[2.0, 0.0], [-1.0, 2.0], [-1.0, -2.0]])
    >>> labels = torch.tensor([0, 1, 2, 0, 1, 2])
    >>> noise = torch.tensor([1.0, 1, 1, -1, -1, -1])[:, None]  # (6, 1)
    >>> batches = [(centres[y] + e, y) for e, y in zip(noise.split(2), labels.split(2))]
    >>> train = CollapseMeter(num_classes=3)
    >>> for features, y in batches:
    ...     train.add_means(features, y)
    >>> for features, y in batches:
    ...     train.add_spread(features, y)
    >>> values = train.compute()
    >>> print(f"{values['nc1_trace_ratio']:.4f} {values['ncc_accuracy']:.0f} {values['rank']:.0f}")
    0.4286 1 2
    >>> test = CollapseMeter(num_classes=3, class_means=train.class_means)
    >>> test.add_spread(centres, torch.tensor([0, 1, 1]))
    >>> print(f"{test.compute()['ncc_accuracy']:.4f}")
    0.6667
    """

    def __init__(
        self,
        num_classes: int,
        class_means: ClassMeans | Array | None = None,
        reduce: Callable[[Tensor], Tensor] | None = None,
    ):
        self.num_classes = class_count(num_classes)
        self._given = None if class_means is None else class_means_of(class_means, self.num_classes)
        self._reduce = reduce
        self.reset()

    def reset(self) -> None:
        """Forget all batches, and the class means unless they were given."""
        self._means = self._given
        self._counts: Tensor | None = None
        self._sums: Tensor | None = None
        self._counts_of_pass_1: Tensor | None = None  # of all processes
        self._means_on_device: MeansOnDevice | None = None
        self._within: WithinSums | None = None
        self._came_with: tuple[bool, bool] | None = None  # whether the batches of pass 2 have logits and a weight
        self._kinds: dict[str, tuple[int, torch.dtype, torch.device]] = {}  # of the first batch of each pass
        self._label_range: tuple[Tensor, Tensor] | None = None
        self._precision = torch.float64

    def add_means(self, features: Array, labels: Array) -> None:
        """Pass 1 over a batch.

        Args:
            features: (B, d), float32 or float64.
            labels: (B,), integers in 0..C-1.

        Raises:
            ValueError: for shapes, types or devices that do not fit. A label out of range is named at once on a CPU; on
                a GPU at the end of the pass, so that no batch waits for the device.
            RuntimeError: after pass 2 has begun, or where the class means were given.
        """
        if self._means is not None:
            raise RuntimeError("the class means of this meter are fixed: given, or already used by pass 2")
        features, labels = self._checked(features, labels, "pass 1")
        self._precision = features.dtype
        with full_precision(features.device.type, products_only=True):
            counts, sums = class_sums(features, labels, self.num_classes)
        self._counts = counts if self._counts is None else self._counts + counts
        self._sums = sums if self._sums is None else self._sums + sums

    @property
    def class_means(self) -> ClassMeans:
        """Class means and their geometry; ends pass 1.

        Raises:
            ValueError: names an empty class, or a label out of range.
            RuntimeError: if no batch was seen.
        """
        if self._means is None:
            if self._counts is None:
                raise RuntimeError("no batch seen: call add_means for every batch first")
            self._check_label_range()
            if self._reduce is not None:
                self.accept(self._reduce(self.sums()))
            self._means = class_means(self._counts, self._sums, self._precision)
            self._counts_of_pass_1 = self._counts.cpu()
        return self._means

    def sums(self) -> Tensor:
        """The sums of the pass under way, flat and float64: what several processes add up, for `accept`.

        Raises ValueError for a label out of range, RuntimeError if this pass saw no batch."""
        self._check_label_range()
        if self._within is not None:
            return self._within.flat()
        if self._counts is None:
            raise RuntimeError("no batch seen: call add_means for every batch first")
        return torch.cat([self._counts[:, None], self._sums], 1).flatten()  # (C (1 + d),)

    def accept(self, reduced: Tensor) -> None:
        """Go on with these sums, those of all processes, in the place of this one's. An alternative to `reduce`."""
        if self._within is not None:
            self._within = self._within.like(reduced)
        else:
            total = reduced.view(self.num_classes, -1)
            self._counts, self._sums = total[:, 0], total[:, 1:]

    def add_spread(
        self, features: Array, labels: Array, logits: Array | Logits | None = None, weight: Array | None = None
    ) -> None:
        """Pass 2 over a batch.

        Args:
            features: (B, d), float32 or float64.
            labels: (B,), integers in 0..C-1.
            logits: (B, C), what the network predicts, or a function that makes (n, C) of n rows of features, which is
                called for a few rows at a time; for nc4_mismatch. With every batch or with none.
            weight: (C, d), of the classifier that reads these features; for nc3_cosine. With every batch and with
                `compute`, or with none.

        Raises:
            ValueError: as `add_means`, and for logits or a weight that came with some batches only.
            RuntimeError: if there are no class means: pass 1 comes first.
        """
        features, labels = self._checked(features, labels, "pass 2")
        came_with = (logits is not None, weight is not None)
        self._check_classifier(came_with)
        if logits is not None and not callable(logits):
            logits = matrix_of(logits, "logits", (len(features), self.num_classes))
            if logits.device != features.device:
                raise ValueError(f"logits must be on {features.device} like the features, got {logits.device}")
        if weight is not None:
            weight = matrix_of(weight, "weight", (self.num_classes, features.shape[1]))
        with full_precision(features.device.type, products_only=True):
            if self._means_on_device is None:
                self._means_on_device = MeansOnDevice.of(self.class_means, like=features)
            batch = within_sums(features, labels, self._means_on_device, logits, weight)
        self._came_with = came_with
        self._within = batch if self._within is None else self._within + batch

    def compute(self, weight: Array | None = None, bias: Array | None = None) -> dict[str, float]:
        """All columns of the layer, from all batches so far.

        Args:
            weight: (C, d), of the classifier, as it was given to `add_spread`; adds nc2_weight_equinorm,
                nc2_weight_equiangular, nc2_weight_gram, nc2_weight_orthogonal, nc2_means_orthogonal, nc3, nc3_gram and
                nc3_cosine.
            bias: (C,), of the classifier; only with a weight. Adds classifier_bias_collapse.

        Returns:
            column -> value; nan where the column is undefined, e.g. with one vector for all classes.

        Raises:
            ValueError: if pass 2 saw other samples than pass 1 (their numbers of every class differ), if the weight was
                given here and not to `add_spread` or the other way round, for a label out of range.
            RuntimeError: if pass 2 saw no batch.
        """
        if self._within is None:
            raise RuntimeError("no batch seen: call add_spread for every batch first")
        if bias is not None and weight is None:
            raise ValueError("a bias without a weight is no classifier's; give both")
        if (weight is not None) != self._came_with[1]:
            given, not_given = ("compute", "add_spread") if weight is not None else ("add_spread", "compute")
            raise ValueError(f"{given} was given a weight and {not_given} was not: give the classifier's to both")
        self._check_label_range()
        m, s = self.class_means, self._within
        s = (s if self._reduce is None else s.like(self._reduce(self.sums()))).cpu()
        self._check_same_samples(s.counts)
        s = s.about(self._centre(m, s), m.basis)
        finite = bool(torch.isfinite(s.within).all())
        decided = finite and m.rank > 0  # with one vector for all classes nothing is nearest: undefined, not chance
        values = {
            "nc1": collapse.nc1(m, s),
            "nc1_trace_ratio": collapse.nc1_trace_ratio(m, s),
            "cdnv": collapse.cdnv(m, s),
            "nc2_equinorm": collapse.nc2_equinorm(m),
            "nc2_equiangular": collapse.nc2_equiangular(m),
            "nc2_gram": collapse.gram_distance(m.gram) if m.rank else NAN,
            "ncc_accuracy": collapse.ncc_accuracy(s) if decided else NAN,
            "rank": float(m.rank),
        }
        if weight is not None:
            w = matrix_of(weight, "weight", tuple(m.means.shape)).detach().double().cpu()
            if bias is not None:
                b = matrix_of(bias, "bias", (len(w),)).detach().double().cpu()
                values["classifier_bias_collapse"] = collapse.classifier_bias_collapse(m, w, b)
            w = w * power_of_two(w)
            gram, of_means = w @ w.T, collapse.gram_of_means(m)
            values["nc2_weight_equinorm"] = collapse.nc2_weight_equinorm(w)
            values["nc2_weight_equiangular"] = collapse.nc2_weight_equiangular(w)
            values["nc2_weight_gram"] = collapse.gram_distance(gram)
            values["nc2_weight_orthogonal"] = collapse.orthogonal_distance(gram)
            values["nc2_means_orthogonal"] = collapse.orthogonal_distance(of_means)
            values["nc3"] = collapse.nc3(m, w)
            values["nc3_gram"] = collapse.gram_distance(w @ m.centred.T) if m.rank else NAN
            values["nc3_cosine"] = collapse.nc3_cosine(s) if finite else NAN
        if s.with_logits:
            values["nc4_mismatch"] = collapse.nc4_mismatch(s) if decided else NAN
        return {name: value if math.isfinite(value) else NAN for name, value in values.items()}  # inf left the range

    def _centre(self, m: ClassMeans, s: WithinSums) -> Tensor:
        """Where the class means lie, seen from the points that pass 2 subtracted from the samples (C, d).

        Of the train split the mean of what was left, which undoes the rounding of both passes; else that of the points
        alone. Without it NC1 and CDNV of float32 features collapsed to sigma = 1e-5 are 1e-5 off."""
        if self._counts_of_pass_1 is not None:
            return s.deviations.double() / s.counts[:, None]
        return self._means_on_device.rounding(m)

    def _checked(self, features: Array, labels: Array, which: str) -> tuple[Tensor, Tensor]:
        """The batch as tensors that fit this meter and each other."""
        features, labels = batch_of(features, labels)
        kind = (features.shape[1], features.dtype, features.device)
        if self._kinds.get(which, kind) != kind:
            first, kind = (f"d={d} {dtype} on {device}" for d, dtype, device in (self._kinds[which], kind))
            raise ValueError(f"all batches of {which} must be alike: the first had {first}, this one {kind}")
        means = self._sums if self._means is None else self._means.means
        if means is not None and features.shape[1] != means.shape[1]:
            raise ValueError(f"features must have the d={means.shape[1]} of the class means, got {features.shape[1]}")
        low, high = torch.aminmax(labels)
        readable = in_host_memory(labels)
        if readable:
            check_label_range(int(low), int(high), self.num_classes)
        self._kinds[which] = kind
        if readable:
            return features, labels
        if self._label_range is not None:
            low, high = torch.minimum(low, self._label_range[0]), torch.maximum(high, self._label_range[1])
        self._label_range = low, high
        return features, labels.clamp(0, self.num_classes - 1)  # an index out of range would end the CUDA context

    def _check_label_range(self) -> None:
        """Raises ValueError for a label out of range that came on a GPU; waits for it."""
        if self._label_range is not None:
            check_label_range(*(int(n) for n in self._label_range), self.num_classes)

    def _check_classifier(self, came_with: tuple[bool, bool]) -> None:
        """Raises ValueError if logits or a weight came with some batches of pass 2 only."""
        earlier = self._came_with or came_with
        for name, first, now in zip(("logits", "a weight"), earlier, came_with, strict=True):
            if first != now:
                came = f"the first batch came {'with' if first else 'without'}, this one {'with' if now else 'without'}"
                raise ValueError(f"add_spread needs {name} with every batch or with none: {came}")

    def _check_same_samples(self, counts: Tensor) -> None:
        """Raises ValueError where pass 2 saw other numbers of samples (C,) than pass 1."""
        before = self._counts_of_pass_1
        if before is None or torch.equal(before, counts):
            return
        c = int(torch.nonzero(before != counts)[0])
        raise ValueError(
            f"pass 2 saw other samples than pass 1: class {c} had {int(before[c])} in pass 1 and {int(counts[c])} in "
            "pass 2; give both passes every sample once"
        )
