"""One evaluation of a network: loss, accuracy and every collapse metric at every probe point, train and test.

The features of a split are kept in memory when they fit the budget, so that one forward pass serves both passes of
the meters; else a second forward pass makes them again. The numbers are the same.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import update_bn

from nclab.data import Dataset, Split
from nclab.etf import FixedLinear, Measures
from nclab.metrics import CollapseMeter, effective_depth, effective_depth_first, subspace_alignment
from nclab.models import Classifier

PROBES = ("linear", "activation")
GIB = 2**30


@dataclass
class MetricsSettings:
    every: int = 1  # epochs between measurements; 0: loss and accuracy at the end only
    probe: str = "linear"  # what is measured behind a hidden map: linear | activation
    eps: float = 0.01  # NCC error up to which a layer counts as separated (effective depth)
    batch_size: int = 2000  # of the evaluation passes
    memory_gib: float = 2.0  # features up to this size are kept between the two passes


@dataclass
class Evaluation:
    """values[split][layer][metric]; layer `network` holds what belongs to no layer."""

    values: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    probe_of: dict[str, str] = field(default_factory=dict)  # site -> layer

    def network(self, split: str, metric: str) -> float:
        return self.values[split]["network"][metric]

    def ncc(self, split: str = "train") -> dict[str, float]:
        """NCC accuracy behind every linear map, by site, in network order; empty if not measured."""
        layers = self.values[split]
        return {s: layers[p]["ncc_accuracy"] for s, p in self.probe_of.items() if p in layers}

    def measures(self) -> Measures:
        """What a policy may know."""
        return Measures(self.network("train", "accuracy"), self.ncc("train"))


class Pass:
    """Forward passes over one split in evaluation mode: yields (features incl. `input` and `logits`, labels)."""

    def __init__(self, model: Classifier, dataset: Dataset, split: Split, batch_size: int):
        self.model, self.dataset, self.split, self.batch_size = model, dataset, split, batch_size

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        model, size = self.model, self.batch_size
        training = model.training
        model.eval()
        try:
            for images, labels in zip(self.split.images.split(size), self.split.labels.split(size), strict=True):
                with torch.no_grad():
                    x = self.dataset.inputs(images)
                    logits, features = model(x)
                yield {"input": x.flatten(1), **features, "logits": logits}, labels
        finally:
            model.train(training)


def accuracy(model: Classifier, dataset: Dataset, split: Split, batch_size: int) -> float:
    """Share of samples of the split that the network, in evaluation mode, labels right."""
    hits = sum((f["logits"].argmax(1) == labels).sum() for f, labels in Pass(model, dataset, split, batch_size))
    return float(hits) / len(split)


def refreshed(model: Classifier, dataset: Dataset, batch_size: int) -> Classifier:
    """A copy whose batch-norm statistics are those of the train split under the present weights: the mean over
    batches of their statistics.

    Right after a map is replaced, the running statistics behind it are still those of the old map; training does not
    read them, evaluation does, so that an accuracy taken then mixes the switch with their staleness.
    """
    copy = deepcopy(model)
    images = dataset.train.images.split(max(2, batch_size))
    images = images[:-1] if len(images[-1]) == 1 else images  # batch norm has no variance over one sample
    update_bn((dataset.inputs(batch) for batch in images), copy)
    return copy


def evaluate(model: Classifier, dataset: Dataset, settings: MetricsSettings, collapse: bool = True) -> Evaluation:
    """Loss and accuracy of both splits and, with `collapse`, all metrics at all probe points."""
    result = Evaluation(probe_of=_layer_names(model, settings.probe))
    if not collapse:
        for name in ("train", "test"):
            tally = _Tally()
            split = getattr(dataset, name)
            for features, labels in Pass(model, dataset, split, settings.batch_size):
                tally.add(features["logits"], labels)
            result.values[name] = {"network": tally.compute()}
        return result

    last = model.inputs()[_classifier(model)]  # the classifier's input: where NC2, NC3 and NC4 with W live
    sources = dict(zip(model.probes(settings.probe).values(), result.probe_of.values(), strict=True))
    if last not in sources:
        sources = _insert_before(sources, "logits", last)
    inputs = {s: f for s, f in model.inputs().items() if _aligned(model, s)}  # site -> feature whose means are asked
    means_only = {f: CollapseMeter(dataset.num_classes) for f in inputs.values() if f not in sources}
    classifier = model.etf_sites()[_classifier(model)].weight

    known = {}
    for name in ("train", "test"):
        split = getattr(dataset, name)
        stream = Pass(model, dataset, split, settings.batch_size)
        meters = {f: CollapseMeter(dataset.num_classes, known.get(f)) for f in sources}
        tally = _Tally()
        kept: list[tuple[dict[str, Tensor], Tensor]] = []
        fits = None
        if name == "train":
            for features, labels in stream:
                tally.add(features["logits"], labels)
                for f, meter in (meters | means_only).items():
                    meter.add_means(features[f], labels)
                if fits is None:
                    row = sum(features[f][0].numel() * features[f].element_size() for f in sources)
                    fits = row * len(split) <= settings.memory_gib * GIB
                if fits:
                    kept.append(({f: features[f] for f in {*sources, "logits"}}, labels))
            known = {f: meter.class_means for f, meter in meters.items()}
        for features, labels in kept or stream:
            if name == "test":
                tally.add(features["logits"], labels)
            for f, meter in meters.items():
                meter.add_spread(features[f], labels, features["logits"] if f == last else None)
        result.values[name] = {
            layer: meters[f].compute(classifier if f == last else None) for f, layer in sources.items()
        }
        result.values[name]["network"] = tally.compute()

    train = result.values["train"]
    known |= {f: meter.class_means for f, meter in means_only.items()}
    for site, role in model.etf_roles().items():
        if role != "classifier":  # undefined on a fixed map
            weight = model.etf_sites()[site].weight
            aligned = subspace_alignment(known[inputs[site]], weight) if site in inputs else float("nan")
            train[result.probe_of[site]]["subspace_alignment"] = aligned
    ncc = list(result.ncc().values())
    train["network"]["effective_depth"] = effective_depth(ncc, settings.eps)
    train["network"]["effective_depth_first"] = effective_depth_first(ncc, settings.eps)
    return result


class _Tally:
    """Cross-entropy loss and accuracy, summed on the device."""

    def __init__(self) -> None:
        self.samples = 0
        self.loss: Tensor | float = 0.0
        self.hits: Tensor | int = 0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        self.samples += len(labels)
        self.loss = self.loss + functional.cross_entropy(logits, labels, reduction="none").sum(dtype=torch.float64)
        self.hits = self.hits + (logits.argmax(1) == labels).sum()

    def compute(self) -> dict[str, float]:
        return {"loss": float(self.loss) / self.samples, "accuracy": float(self.hits) / self.samples}


def _classifier(model: Classifier) -> str:
    return next(site for site, role in model.etf_roles().items() if role == "classifier")


def _layer_names(model: Classifier, probe: str) -> dict[str, str]:
    """Site -> its layer's name in the logs: the feature's name, for the logits the name of the classifier."""
    return {site: site if f == "logits" else f for site, f in model.probes(probe).items()}


def _insert_before(sources: dict[str, str], key: str, feature: str) -> dict[str, str]:
    items = list(sources.items())
    at = [k for k, _ in items].index(key)
    return dict([*items[:at], (feature, feature), *items[at:]])


def _aligned(model: Classifier, site: str) -> bool:
    """Subspace alignment is defined for hidden maps with a learnable weight."""
    return model.etf_roles()[site] != "classifier" and not isinstance(model.etf_sites()[site], FixedLinear)
