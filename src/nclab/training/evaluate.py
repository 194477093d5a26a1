"""One evaluation of a network: loss, accuracy and every collapse metric at every probe point, train and test.

The features of a split are kept in memory when they fit the budget, so that one forward pass serves both passes of
the meters; else a second forward pass makes them again. The numbers are the same.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from nclab.data import Dataset, Split
from nclab.etf import FixedLinear, Measures
from nclab.metrics import CollapseMeter, effective_depth, effective_depth_first, full_precision, subspace_alignment
from nclab.models import PROBES, Classifier, Probe
from nclab.parallel.group import SINGLE, ProcessGroup
from nclab.training.objective import CROSS_ENTROPY, Loss

GIB = 2**30


@dataclass
class MetricsSettings:
    every: int = 1  # epochs between measurements; 0: loss and accuracy at the end only
    probe: str = PROBES[0]  # what is measured behind a hidden map: linear | activation
    eps: float = 0.01  # NCC error up to which a layer counts as separated (effective depth)
    batch_size: int = 1000  # of the evaluation passes
    memory_gib: float = 2.0  # features up to this size are kept between the two passes


@dataclass
class Evaluation:
    """values[split][layer][metric]; layer `network` holds what belongs to no layer. stages: the layers that count for
    the effective depth, each with the maps that end there."""

    values: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    stages: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def network(self, split: str, metric: str) -> float:
        return self.values[split]["network"][metric]

    def ncc(self, split: str = "train") -> dict[str, float]:
        """NCC accuracy of every stage, in network order; empty if not measured."""
        layers = self.values[split]
        return {layer: layers[layer]["ncc_accuracy"] for layer in self.stages if layer in layers}

    def measures(self) -> Measures:
        """What a policy may know."""
        return Measures(self.network("train", "accuracy"), self.ncc("train"), self.stages)


def _go_on() -> None:
    """Nobody asks to stop."""


class Pass:
    """Forward passes over this process's share of one split in evaluation mode: yields (features incl. `input` and
    `logits`, labels). `check` is called before every batch and may raise."""

    def __init__(
        self,
        model: Classifier,
        dataset: Dataset,
        split: Split,
        batch_size: int,
        check: Callable[[], None] = _go_on,
        world: ProcessGroup = SINGLE,
    ):
        self.model, self.dataset, self.batch_size, self.check = model, dataset, batch_size, check
        own = world.share(len(split))
        self.samples, self.labels = split.samples[own], split.labels[own]
        self.most = world.largest_share(len(split))  # samples that a process passes over

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        model, size = self.model, self.batch_size
        training = model.training
        model.eval()
        try:
            batches = zip(self.samples.split(size), self.labels.split(size), strict=True)
            for images, labels in batches:
                self.check()
                with full_precision(images.device.type):
                    x = self.dataset.inputs(images)
                    logits, features = model(x)
                yield {"input": x.flatten(1), **features, "logits": logits}, labels
            for _ in range(math.ceil(self.most / size) - math.ceil(len(self.labels) / size)):
                self.check()  # as often as every other process
        finally:
            model.train(training)


def accuracy(model: Classifier, dataset: Dataset, split: Split, batch_size: int, world: ProcessGroup = SINGLE) -> float:
    """Share of samples of the split that the network, in evaluation mode, labels right."""
    own = Pass(model, dataset, split, batch_size, world=world)
    return float(world.sum(sum((f["logits"].argmax(1) == labels).sum() for f, labels in own))) / len(split)


def refreshed(model: Classifier, dataset: Dataset, batch_size: int, world: ProcessGroup = SINGLE) -> Classifier:
    """A copy whose batch-norm statistics are those of the train split under the present weights: the mean over
    batches of their statistics.

    Right after a map is replaced, the running statistics behind it are still those of the old map; training does not
    read them, evaluation does, so that an accuracy taken then mixes the switch with their staleness.
    """
    copy = deepcopy(model)
    images = dataset.train.samples.split(max(2, batch_size))
    images = images[:-1] if len(images[-1]) == 1 else images  # batch norm has no variance over one sample
    with full_precision(dataset.train.samples.device.type):
        update_bn((dataset.inputs(batch[world.share(len(batch))]) for batch in images), copy)
    return copy


def evaluate(
    model: Classifier,
    dataset: Dataset,
    settings: MetricsSettings,
    collapse: bool = True,
    check: Callable[[], None] = _go_on,
    world: ProcessGroup = SINGLE,
    loss: Loss = CROSS_ENTROPY,
) -> Evaluation:
    """Loss and accuracy of both splits and, with `collapse`, all metrics at all probe points. `check` may raise to end
    it between two batches. All processes pass over their shares and return the same."""
    probes = model.probes(settings.probe)
    result = Evaluation(stages={p.layer: p.stage for p in probes if p.stage is not None})
    last = model.inputs()[model.classifier]  # where NC2, NC3 and NC4 with W live
    train, test = (
        Pass(model, dataset, split, settings.batch_size, check, world) for split in (dataset.train, dataset.test)
    )
    if not collapse:
        for name, stream in (("train", train), ("test", test)):
            tally = _Tally(loss)
            _spread_pass(stream, {}, last, None, tally)
            result.values[name] = {"network": tally.compute(world)}
        return result

    sources = {p.feature: p.layer for p in probes}
    weight = model.etf_sites()[model.classifier].weight

    def values(meters: dict[str, CollapseMeter], tally: _Tally) -> dict[str, dict[str, float]]:
        layers = {layer: meters[f].compute(weight if f == last else None) for f, layer in sources.items()}
        return {**layers, "network": tally.compute(world)}

    inputs = {p.layer: model.inputs()[p.site] for p in probes if _aligned(model, p)}
    reduce = world.sum if world.size > 1 else None
    meters = {f: CollapseMeter(dataset.num_classes, reduce=reduce) for f in sources}
    means_only = {f: CollapseMeter(dataset.num_classes, reduce=reduce) for f in inputs.values() if f not in sources}
    tally = _Tally(loss)
    kept = _means_pass(train, meters | means_only, tally, {*sources, "logits"}, settings.memory_gib * GIB)
    known = {f: meter.class_means for f, meter in (meters | means_only).items()}
    _spread_pass(kept or train, meters, last, weight)
    result.values["train"] = layers = values(meters, tally)
    for p in probes:
        if p.site not in (None, model.classifier):  # undefined on a fixed map
            means = known.get(inputs.get(p.layer))
            aligned = subspace_alignment(means, model.etf_sites()[p.site].weight) if means else float("nan")
            layers[p.layer]["subspace_alignment"] = aligned
    ncc = list(result.ncc().values())
    layers["network"]["effective_depth"] = effective_depth(ncc, settings.eps)
    layers["network"]["effective_depth_first"] = effective_depth_first(ncc, settings.eps)

    meters = {f: CollapseMeter(dataset.num_classes, known[f], reduce) for f in sources}
    tally = _Tally(loss)
    _spread_pass(test, meters, last, weight, tally)
    result.values["test"] = values(meters, tally)
    return result


Batches = Iterable[tuple[dict[str, Tensor], Tensor]]


def _means_pass(
    stream: Pass, meters: dict[str, CollapseMeter], tally: "_Tally", wanted: set[str], budget: float
) -> list[tuple[dict[str, Tensor], Tensor]]:
    """Pass 1 over a split; returns the wanted features of all batches, or nothing where they exceed `budget` bytes."""
    kept, fits = [], None
    for features, labels in stream:
        tally.add(features["logits"], labels)
        for f, meter in meters.items():
            meter.add_means(features[f], labels)
        if fits is None:
            row = sum(features[f][0].numel() * features[f].element_size() for f in wanted)
            fits = row * stream.most <= budget  # the same answer in every process
        if fits:
            kept.append(({f: _own(features[f]) for f in wanted}, labels))
    return kept


def _own(feature: Tensor) -> Tensor:
    """The feature without the rest of what it is a view of: a class token would keep all the tokens of its layer."""
    whole = feature.untyped_storage().nbytes() == feature.numel() * feature.element_size()
    return feature if whole else feature.clone()


def _spread_pass(
    batches: Batches,
    meters: dict[str, CollapseMeter],
    last: str,
    weight: Tensor | None,
    tally: "_Tally | None" = None,
) -> None:
    """Pass 2 over a split, of the meters and of the tally where there is one; NC3 and NC4 need the classifier's weight
    and the network's decisions at its input `last`."""
    for features, labels in batches:
        if tally is not None:
            tally.add(features["logits"], labels)
        for f, meter in meters.items():
            meter.add_spread(features[f], labels, *((features["logits"], weight) if f == last else ()))


class _Tally:
    """Loss, without its penalty, and accuracy, summed on the device."""

    def __init__(self, loss: Loss) -> None:
        self._each = loss.each
        self.samples = 0
        self.loss: Tensor | float = 0.0
        self.hits: Tensor | int = 0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        self.samples += len(labels)
        self.loss = self.loss + self._each(logits, labels).sum(dtype=torch.float64)
        self.hits = self.hits + (logits.argmax(1) == labels).sum()

    def compute(self, world: ProcessGroup) -> dict[str, float]:
        own = torch.stack([self.loss, self.hits.double(), self.loss.new_full((), self.samples)])
        loss, hits, samples = world.sum(own).tolist()
        return {"loss": loss / samples, "accuracy": hits / samples}


def _aligned(model: Classifier, probe: Probe) -> bool:
    """Subspace alignment is defined for hidden maps with a learnable weight whose input is handed out."""
    hidden = probe.site not in (None, model.classifier)
    return hidden and probe.site in model.inputs() and not isinstance(model.etf_sites()[probe.site], FixedLinear)
