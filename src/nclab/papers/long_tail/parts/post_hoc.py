"""metrics.suite=[post_hoc]: balanced accuracy with rows that are turned to the class means, without any training."""

import torch
from torch import Tensor

from nclab.interfaces.batch import Batch, Output
from nclab.metrics.collapse import classifier_of
from nclab.metrics.long_tail import balanced_accuracies, frequency_groups
from nclab.metrics.meter import CollapseMeter
from nclab.metrics.suite import METRICS, Context, Metric, SuiteSettings, last_layer, require_classes
from nclab.papers.long_tail.parts.rows import equalised, projected, slerp

AMOUNT = 0.3  # of the angle between row and centred class mean


def variants(weight: Tensor, means: Tensor) -> dict[str, Tensor]:
    """Rows (C, d) by name. equal: lengths equalised, not turned: the control of the others; slerp: turned by AMOUNT to
    the centred class means (C, d); proj: projected on their span; slerp_equal, proj_equal: lengths equalised too."""
    turned = {"slerp": slerp(weight, means, AMOUNT), "proj": projected(weight, means)}
    return {"equal": equalised(weight), **turned, **{f"{name}_equal": equalised(w) for name, w in turned.items()}}


@METRICS.add("post_hoc", SuiteSettings)
class PostHoc(Metric):
    """network, every split but train: post_hoc_NAME and post_hoc_tail_NAME for every name of `variants`: balanced
    accuracy and tail accuracy of the logits W' h + b, with several heads within that of the sample. Class means are
    those of the train split, centred at their mean.
    """

    def __init__(self, settings: SuiteSettings | None = None):
        pass

    def start(self, context: Context) -> None:
        require_classes("post_hoc", context)
        self.context, self.classes = context, context.targets.dim
        self.feature, _ = last_layer(context)
        self.meter = CollapseMeter(self.classes)
        self.rows: Tensor | None = None  # (V, C, d)

    def names(self, split: str) -> set[str]:
        named = [] if split == "train" else ["equal", "slerp", "proj", "slerp_equal", "proj_equal"]
        return {f"post_hoc_{group}{name}" for name in named for group in ("", "tail_")}

    def wanted(self, n_pass: int) -> set[str]:
        return {self.feature}

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        labels, h = self.context.targets.groups(batch.targets), features[self.feature]
        if self.context.train is None:
            self.meter.add_means(h, labels)
            return
        if self.rows is None:
            self._begin(h)
        logits = torch.einsum("bd,vcd->vbc", h.double(), self.rows) + self.bias
        right = self.context.targets.within_heads(logits, labels).argmax(2) == labels  # (V, B)
        self.seen += labels.bincount(minlength=self.classes)
        for own, of in zip(self.hits, right, strict=True):
            own += labels[of].bincount(minlength=self.classes)

    def _begin(self, like: Tensor) -> None:
        model, means = self.context.model, self.context.train.meter.class_means
        weight, bias = (t.detach().double().cpu() for t in classifier_of(model.get_submodule(model.classifier)))
        found = variants(weight, means.centred)
        self.rows, self.bias = torch.stack(list(found.values())).to(like.device), bias.to(like.device)
        self.hits = torch.zeros(len(found), self.classes, dtype=torch.float64, device=like.device)
        self.seen = torch.zeros(self.classes, dtype=torch.float64, device=like.device)

    def sums(self) -> Tensor:
        return self.meter.sums() if self.context.train is None else torch.cat([self.hits, self.seen[None]]).flatten()

    def compute(self, reduced: Tensor) -> dict[str, float]:
        if self.context.train is None:
            self.counts = reduced.view(self.classes, -1)[:, 0].cpu()
            self.meter.accept(reduced)
            self.meter.class_means  # noqa: B018 - raises for an absent class
            return {}
        *hits, seen = reduced.cpu().view(-1, self.classes)
        groups, found = frequency_groups(self.context.train.counts), {}
        for name, own in zip(("equal", "slerp", "proj", "slerp_equal", "proj_equal"), hits, strict=True):
            scores = balanced_accuracies(own, seen, groups)
            found |= {f"post_hoc_{name}": scores["balanced_accuracy"], f"post_hoc_tail_{name}": scores["tail_accuracy"]}
        return found
