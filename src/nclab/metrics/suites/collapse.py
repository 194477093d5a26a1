"""metrics.suite=[collapse]: every collapse column at every probe point, and the effective depth of the network."""

from typing import Any

import torch
from torch import Tensor, nn

from nclab.interfaces.batch import Batch, Output
from nclab.interfaces.effective_depth import effective_depth, effective_depth_first
from nclab.metrics.collapse import classifier_of, dnc3_gram, image_of_means, subspace_alignment
from nclab.metrics.geometry import NAN
from nclab.metrics.meter import CollapseMeter
from nclab.metrics.suite import METRICS, NETWORK, Context, Metric, SuiteSettings, require_classes


@METRICS.add("collapse", SuiteSettings)
class CollapseSuite(Metric):
    """Two passes over the train split: class means, then spreads about them; one over any other, with the train means.

    NC2 of W, NC3 and NC4 live at the classifier's input; `dnc3_gram` at hidden layers whose input `model.inputs()`
    returns, and subspace alignment at those of them whose weight is learnable; both effective depths, of the train
    split, in the layer `network`.
    """

    def __init__(self, settings: SuiteSettings | None = None):
        self.context: Context | None = None

    def start(self, context: Context) -> None:
        require_classes("collapse", context)
        self.context, model = context, context.model
        self.sources = {probe.feature: probe.layer for probe in context.probes}
        self.last = model.inputs()[model.classifier]  # where NC2, NC3 and NC4 with W live
        self.read = {p.layer: model.inputs()[p.site] for p in context.probes if _reads_known(model, p)}
        count, self._pass = context.targets.dim, 1
        self._head: tuple[Tensor, Tensor] | None = None
        if context.train is None:
            self.passes = 2
            self.meters = {f: CollapseMeter(count) for f in self.sources}
            self.inputs = {f: CollapseMeter(count) for f in self.read.values() if f not in self.sources}
        else:
            self.passes = 1
            known = context.train.meters
            self.meters = {f: CollapseMeter(count, known[f].class_means) for f in self.sources}
            self.inputs = {}

    def names(self, split: str) -> set[str]:
        return {"effective_depth", "effective_depth_first"} if split == "train" else set()

    def wanted(self, n_pass: int) -> set[str]:
        return {*self.sources, "logits", *(self.inputs if n_pass == 1 else ())}

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        labels = self.context.targets.groups(batch.targets)
        if n_pass < self.passes:
            for f, meter in self._measured().items():
                meter.add_means(features[f], labels)
            return
        weight, _ = self._classifier()
        for f, meter in self.meters.items():
            meter.add_spread(features[f], labels, *((features["logits"], weight) if f == self.last else ()))

    def sums(self) -> Tensor:
        self._own = torch.cat([meter.sums() for meter in self._measured().values()])
        return self._own

    def next_pass(self, n_pass: int, reduced: Tensor) -> None:
        self._accept(reduced)
        for meter in self._measured().values():
            meter.class_means  # noqa: B018 - ends the first pass; raises for an absent class
        self._pass = n_pass

    def compute(self, reduced: Tensor) -> dict[str, float]:
        self._accept(reduced)
        model, first = self.context.model, self.context.train is None
        values, ncc = {}, []
        for probe in self.context.probes:
            found = self.meters[probe.feature].compute(*(self._classifier() if probe.feature == self.last else ()))
            if first and probe.site not in (None, model.classifier):
                found |= self._of_weight(probe)
            values |= {f"{probe.layer}/{metric}": value for metric, value in found.items()}
            if probe.stage is not None:
                ncc.append(found["ncc_accuracy"])
        if first:
            values[f"{NETWORK}/effective_depth"] = effective_depth(ncc, self.context.eps)
            values[f"{NETWORK}/effective_depth_first"] = effective_depth_first(ncc, self.context.eps)
        return values

    def _of_weight(self, probe: Any) -> dict[str, float]:
        """The columns of a hidden layer's weight. nan where `model.inputs()` lacks it; subspace alignment of a fixed
        layer, too."""
        at, layer = self.read.get(probe.layer), self.context.model.etf_sites()[probe.site]
        if at is None:
            return {"subspace_alignment": NAN, "dnc3_gram": NAN}
        means = (self.meters | self.inputs)[at].class_means
        learnable = "weight" in dict(layer.named_parameters(recurse=False))
        return {
            "subspace_alignment": subspace_alignment(means, layer.weight) if learnable else NAN,
            "dnc3_gram": dnc3_gram(means, image_of_means(means, layer)),
        }

    def _measured(self) -> dict[str, CollapseMeter]:
        """The meters of the pass under way: those of inputs have but the first of two."""
        return self.meters | self.inputs if self._pass < self.passes else self.meters

    def _accept(self, reduced: Tensor) -> None:
        if reduced is self._own:  # of a single process
            return
        meters = self._measured().values()
        for meter, own in zip(meters, reduced.split([len(meter.sums()) for meter in meters]), strict=True):
            meter.accept(own)

    def _classifier(self) -> tuple[Tensor, Tensor]:
        if self._head is None:
            model = self.context.model
            self._head = classifier_of(model.etf_sites()[model.classifier])
        return self._head


def _reads_known(model: nn.Module, probe: Any) -> bool:
    """Whether it is a hidden layer whose input `model.inputs()` returns."""
    return probe.site not in (None, model.classifier) and probe.site in model.inputs()
