"""How well a layer's features tell the classes apart, by a linear classifier and by nearest neighbours.

scikit-learn is imported where it is needed: it takes a second, and most commands measure neither. It uses as many
threads as torch does: more than a run may have made a fit twenty times slower on a busy machine.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from nclab.metrics.geometry import NAN, power_of_two

NEIGHBOURS = 5
INVERSE_L2, MOST_ITERATIONS = 1.0, 1000
SEEN_INVERSE_L2, SEEN_MOST_ITERATIONS = 10.0, 5000


def linear_probe_accuracy(features: Tensor, labels: Tensor, test_features: Tensor, test_labels: Tensor) -> float:
    """Share of test samples that a linear classifier of the features gets right; it is trained on the train features.

    Multinomial logistic regression of scikit-learn (L-BFGS, at most 1000 iterations) with C = 1: the sum of the train
    losses plus |W|^2 / 2, the bias free, on features of mean 0 and standard deviation 1 a unit. 1 at collapse. The
    layers behind which it no longer grows, or falls, are the tunnel (Masarczyk 2023).

    Args:
        features, labels: (N, d) and (N,) of train samples. test_features, test_labels: (n, d) and (n,) of others.

    Returns: nan where a feature is not finite, or the train samples are of one class.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = _scaled(features, test_features)
    if train is None or len(torch.unique(labels)) < 2:
        return NAN
    model = make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_L2, max_iter=MOST_ITERATIONS))
    with warnings.catch_warnings(), threadpool_limits(torch.get_num_threads()):
        # A fit that was cut off is a probe too, and the bound is part of its definition.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train, labels.cpu().numpy())
        return float(model.score(test, test_labels.cpu().numpy()))


class SeenProbe:
    """Linear classifier of features, to ask what they still tell of classes that a network has forgotten.

    Multinomial logistic regression of scikit-learn (L-BFGS, at most 5000 iterations) with C = 10, the sum of the train
    losses plus |W|^2 / 20, the bias free, on the features as they are (Lanzillotta, Meier, Hofmann, arXiv 2512.07400).
    Accuracy 1 at collapse.

    Args:
        features, labels: (N, d) and (N,) of all train samples seen so far.
        heads: groups of classes that have a probe each; None: one probe tells all classes apart.
    """

    def __init__(self, features: Tensor, labels: Tensor, heads: Sequence[Sequence[int]] | None = None):
        h, y = (t.detach().cpu() for t in (features.double(), labels))
        self._heads = [None] if heads is None else [torch.tensor(head) for head in heads]
        self._probes: list[Any] = [None] * len(self._heads)
        self.finite = bool(torch.isfinite(h).all())
        if self.finite:
            self._probes = [self._fitted(h[rows], y[rows]) for rows in (_rows_of(y, head) for head in self._heads)]

    @staticmethod
    def _fitted(h: Tensor, y: Tensor) -> Any:
        """The classifier; None where the samples are of fewer than two classes."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        if len(y.unique()) < 2:
            return None
        with warnings.catch_warnings(), threadpool_limits(torch.get_num_threads()):
            warnings.simplefilter("ignore", ConvergenceWarning)
            return LogisticRegression(C=SEEN_INVERSE_L2, max_iter=SEEN_MOST_ITERATIONS).fit(h.numpy(), y.numpy())

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Share of the samples, (n, d) and (n,), that it gets right. Those of classes that it was not trained on are
        wrong. nan where a feature is not finite, here or in training, or there is no probe of two classes."""
        h, y = (t.detach().cpu() for t in (features.double(), labels))
        if not (self.finite and torch.isfinite(h).all() and any(probe is not None for probe in self._probes)):
            return NAN
        right = 0
        for head, probe in zip(self._heads, self._probes, strict=True):
            rows = _rows_of(y, head)
            if probe is not None and rows.any():
                with threadpool_limits(torch.get_num_threads()):
                    right += int((probe.predict(h[rows].numpy()) == y[rows].numpy()).sum())
        return right / len(y)


def _rows_of(labels: Tensor, head: Tensor | None) -> Tensor:
    """Which samples are of these classes, a mask (N,); None: all."""
    return torch.ones(len(labels), dtype=torch.bool) if head is None else torch.isin(labels, head.to(labels))


def knn_accuracy(features: Tensor, labels: Tensor, test_features: Tensor, test_labels: Tensor) -> float:
    """Share of test samples whose label is the most frequent one among the 5 nearest train features (Euclidean
    distance; of equally frequent labels the smallest). 1 at collapse.

    Arguments as `linear_probe_accuracy`. nan where a feature is not finite, or there are fewer than 5 train samples."""
    from sklearn.neighbors import KNeighborsClassifier

    train, test = _scaled(features, test_features)
    if train is None or len(train) < NEIGHBOURS:
        return NAN
    with threadpool_limits(torch.get_num_threads()):
        model = KNeighborsClassifier(NEIGHBOURS, algorithm="brute").fit(train, labels.cpu().numpy())
        return float(model.score(test, test_labels.cpu().numpy()))


def _scaled(features: Tensor, others: Tensor) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Both in float64 times one power of two that keeps their squares in range; None where one is not finite."""
    train, test = (t.detach().double().cpu() for t in (features, others))
    if not (torch.isfinite(train).all() and torch.isfinite(test).all()):
        return None, None
    scale = power_of_two(train)
    return (scale * train).numpy(), (scale * test).numpy()
