"""metrics.suite=[collapse]: every collapse column at every probe point, and the effective depth of the network."""

from typing import Any

import torch
from torch import Tensor, nn

from nclab.interfaces.batch import Batch, Output
from nclab.metrics.collapse import subspace_alignment
from nclab.metrics.depth import effective_depth, effective_depth_first
from nclab.metrics.meter import CollapseMeter
from nclab.metrics.suite import METRICS, NETWORK, Context, Metric, SuiteSettings


@METRICS.add("collapse", SuiteSettings)
class CollapseSuite(Metric):
    """Two passes over the train split: class means, then spreads about them; one over any other, with the train means.

    NC2 of W, NC3 and NC4 live at the classifier's input; subspace alignment at hidden layers with a learnable weight
    whose input is handed out; both effective depths, of the train split, in the layer `network`.
    """

    def __init__(self, settings: SuiteSettings | None = None):
        self.context: Context | None = None

    def start(self, context: Context) -> None:
        if context.targets.groups(torch.zeros(0, dtype=torch.int64)) is None:
            raise ValueError("metrics.suite: collapse needs classes, and this dataset's targets are values")
        self.context, model = context, context.model
        self.sources = {probe.feature: probe.layer for probe in context.probes}
        self.last = model.inputs()[model.classifier]  # where NC2, NC3 and NC4 with W live
        self.aligned = {p.layer: model.inputs()[p.site] for p in context.probes if _aligned(model, p)}
        count, self._pass = context.targets.dim, 1
        self._head: Tensor | None = None  # an implicit layer makes its weight anew at every look
        if context.train is None:
            self.passes = 2
            self.meters = {f: CollapseMeter(count) for f in self.sources}
            self.inputs = {f: CollapseMeter(count) for f in self.aligned.values() if f not in self.sources}
        else:
            self.passes = 1
            known = context.train.meters
            self.meters = {f: CollapseMeter(count, known[f].class_means) for f in self.sources}
            self.inputs = {}

    def wanted(self, n_pass: int) -> set[str]:
        return {*self.sources, "logits", *(self.inputs if n_pass == 1 else ())}

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        labels = self.context.targets.groups(batch.targets)
        if n_pass < self.passes:
            for f, meter in self._measured().items():
                meter.add_means(features[f], labels)
            return
        weight = self._weight()
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
        model, weight, first = self.context.model, self._weight(), self.context.train is None
        values, ncc = {}, []
        for probe in self.context.probes:
            found = self.meters[probe.feature].compute(weight if probe.feature == self.last else None)
            if first and probe.site not in (None, model.classifier):  # undefined on a fixed layer
                at = self.aligned.get(probe.layer)
                means = None if at is None else (self.meters | self.inputs)[at].class_means
                found["subspace_alignment"] = (
                    float("nan") if means is None else subspace_alignment(means, model.etf_sites()[probe.site].weight)
                )
            values |= {f"{probe.layer}/{metric}": value for metric, value in found.items()}
            if probe.stage is not None:
                ncc.append(found["ncc_accuracy"])
        if first:
            values[f"{NETWORK}/effective_depth"] = effective_depth(ncc, self.context.eps)
            values[f"{NETWORK}/effective_depth_first"] = effective_depth_first(ncc, self.context.eps)
        return values

    def _measured(self) -> dict[str, CollapseMeter]:
        """The meters of the pass under way: those of inputs have but the first of two."""
        return self.meters | self.inputs if self._pass < self.passes else self.meters

    def _accept(self, reduced: Tensor) -> None:
        if reduced is self._own:  # of a single process
            return
        meters = self._measured().values()
        for meter, own in zip(meters, reduced.split([len(meter.sums()) for meter in meters]), strict=True):
            meter.accept(own)

    def _weight(self) -> Tensor:
        if self._head is None:
            model = self.context.model
            self._head = model.etf_sites()[model.classifier].weight
        return self._head


def _aligned(model: nn.Module, probe: Any) -> bool:
    """Subspace alignment is defined for hidden layers with a learnable weight whose input is handed out."""
    if probe.site in (None, model.classifier) or probe.site not in model.inputs():
        return False
    return "weight" in dict(model.etf_sites()[probe.site].named_parameters(recurse=False))
