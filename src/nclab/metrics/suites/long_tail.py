"""metrics.suite=[long_tail]: balanced accuracies, collapse under both weightings, alignment of means and rows."""

import torch
from torch import Tensor

from nclab.interfaces.batch import Batch, Output
from nclab.metrics.collapse import classifier_of
from nclab.metrics.long_tail import (
    balanced_accuracies,
    frequency_groups,
    largest_cosine,
    row_cosines,
    unbalanced_collapse,
    weighted_nc1,
)
from nclab.metrics.meter import CollapseMeter
from nclab.metrics.suite import METRICS, Context, Metric, SuiteSettings, last_layer, require_classes


@METRICS.add("long_tail", SuiteSettings)
class LongTailSuite(Metric):
    """Two passes over the train split: class means, then spreads and hits; one over any other, for its hits.

    network, every split: balanced_accuracy, head_accuracy, middle_accuracy, tail_accuracy, class_accuracy_c, with
    several heads within that of the sample. Head, middle and tail are those of the train split. The classifier's input,
    train: nc1_balanced, nc1_unbalanced, nc2_equinorm_unbalanced, nc2_equiangular_unbalanced, nc3_unbalanced;
    row_cosine_c of every class and their mean row_cosine; row_norm_c = |w_c| over the mean length of the rows;
    head_row_cosine and tail_row_cosine, the largest cosine between two rows of the group, head_mean_cosine and
    tail_mean_cosine that of its centred class means.
    """

    def __init__(self, settings: SuiteSettings | None = None):
        pass

    def start(self, context: Context) -> None:
        require_classes("long_tail", context)
        self.context, self.classes = context, context.targets.dim
        self.feature, self.layer = last_layer(context)
        self.passes = 2 if context.train is None else 1
        self.meter = CollapseMeter(self.classes)
        self.counts: Tensor | None = None if context.train is None else context.train.counts  # n_c of train (C,)
        self.hits = torch.zeros(2, self.classes, dtype=torch.float64)  # right ones and all, of every class
        self.spread: Tensor | None = None  # (2, rank, rank): sums of p p^T, and of p p^T / n_y

    def names(self, split: str) -> set[str]:
        groups = {f"{name}_accuracy" for name in ("balanced", "head", "middle", "tail")}
        return groups | {f"class_accuracy_{c}" for c in range(self.classes)}

    def wanted(self, n_pass: int) -> set[str]:
        return {self.feature, "logits"}

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        labels, h = self.context.targets.groups(batch.targets), features[self.feature]
        if n_pass < self.passes:
            self.meter.add_means(h, labels)
            return
        right = self.context.targets.within_heads(features["logits"], labels).argmax(1) == labels
        hits = torch.stack([labels[right].bincount(minlength=self.classes), labels.bincount(minlength=self.classes)])
        self.hits = self.hits.to(hits.device) + hits
        if self.context.train is None:
            self._add_spread(h, labels)

    def _add_spread(self, h: Tensor, labels: Tensor) -> None:
        m = self.meter.class_means
        if self.spread is None:
            self.spread = torch.zeros(2, m.rank, m.rank, dtype=torch.float64, device=h.device)
            self._means, self._basis = (t.to(h.device) for t in (m.means, m.basis))
            self._counts = self.counts.to(h.device)
        p = m.scale * (h.double() - self._means[labels]) @ self._basis  # (B, rank)
        self.spread += torch.stack([p.T @ p, p.T @ (p / self._counts[labels][:, None])])

    def sums(self) -> Tensor:
        if self.counts is None:
            return self.meter.sums()
        return torch.cat([self.hits.flatten(), *([] if self.spread is None else [self.spread.flatten()])])

    def next_pass(self, n_pass: int, reduced: Tensor) -> None:
        self.counts = reduced.view(self.classes, -1)[:, 0].cpu()
        self.meter.accept(reduced)
        self.meter.class_means  # noqa: B018 - ends the first pass; raises for an absent class

    def compute(self, reduced: Tensor) -> dict[str, float]:
        hits, spread = reduced.cpu().split([2 * self.classes, len(reduced) - 2 * self.classes])
        groups = frequency_groups(self.counts)
        found = balanced_accuracies(*hits.view(2, -1), groups)
        if self.context.train is None:
            rank = self.meter.class_means.rank
            columns = self._columns(groups, *spread.view(2, rank, rank))
            found |= {f"{self.layer}/{name}": value for name, value in columns.items()}
        return found

    def _columns(self, groups: dict[str, Tensor], total: Tensor, by_class: Tensor) -> dict[str, float]:
        """total, by_class (rank, rank): the sums of `spread`."""
        m, model = self.meter.class_means, self.context.model
        weight = classifier_of(model.get_submodule(model.classifier))[0].detach().double().cpu()
        share = self.counts / self.counts.sum()
        cosines, norms = row_cosines(m, weight), torch.linalg.vector_norm(weight, dim=1)
        found = {
            "nc1_balanced": weighted_nc1(m, by_class / self.classes, torch.full_like(share, 1 / self.classes)),
            "nc1_unbalanced": weighted_nc1(m, total / self.counts.sum(), share),
            **unbalanced_collapse(m, share, weight),
            "row_cosine": float(cosines.mean()),
        }
        for name in ("head", "tail"):
            found[f"{name}_row_cosine"] = largest_cosine(weight[groups[name]])
            found[f"{name}_mean_cosine"] = largest_cosine(m.centred[groups[name]])
        for c, (cosine, norm) in enumerate(zip(cosines.tolist(), (norms / norms.mean()).tolist(), strict=True)):
            found |= {f"row_cosine_{c}": cosine, f"row_norm_{c}": norm}
        return found
