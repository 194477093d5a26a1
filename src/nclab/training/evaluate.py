"""One evaluation of a network: the objective's scores and every suite of metrics, on every split.

The features of a split are kept in memory when they fit the budget, so that one forward pass serves all passes of the
suites; else further forward passes make them again. The numbers are the same.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from nclab.data import Dataset, Split
from nclab.etf import Measures
from nclab.interfaces.batch import Batch, Output
from nclab.interfaces.valid import OutOfRange
from nclab.metrics import full_precision
from nclab.metrics.suite import METRICS, NETWORK, Context, Metric, Seen, by_layer
from nclab.models import PROBES, Classifier
from nclab.parallel.group import SINGLE, ProcessGroup
from nclab.training.headline import headline_of
from nclab.training.objective import CROSS_ENTROPY, Objective
from nclab.training.passes import Check, KeptPass, Pass, Stream, go_on

GIB = 2**30


@dataclass
class MetricsSettings:
    every: int = 1  # epochs between measurements; 0: loss and accuracy at the end only
    probe: str = PROBES[0]  # what is measured behind a hidden layer: linear | activation
    eps: float = 0.01  # NCC error up to which a layer counts as separated (effective depth)
    batch_size: int = 1000  # of the evaluation passes; on two cores an MLP is slower with 500, a ViT with 2000
    memory_gib: float = 2.0  # features up to this size stay in memory between the passes; else more forward passes
    suite: list[str] = field(default_factory=lambda: ["collapse"])  # what is measured besides loss and accuracy
    headline: str | None = None  # [split/]metric by which runs are compared; null: the objective's own
    # dataset whose test split is of none of the classes, for suite ood; its samples have the shape of this one's
    ood_dataset: str | None = None


@dataclass
class Evaluation:
    """values[split][layer][metric]; layer `network` holds what belongs to no layer. stages: the layers that count for
    the effective depth, each with the layers of linear layers that end there."""

    values: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    stages: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def network(self, split: str, metric: str) -> float:
        return self.values[split][NETWORK][metric]

    def ncc(self, split: str = "train") -> dict[str, float]:
        """NCC accuracy of every stage, in network order; empty if not measured."""
        layers = self.values[split]
        return {
            layer: layers[layer]["ncc_accuracy"] for layer in self.stages if "ncc_accuracy" in layers.get(layer, {})
        }

    def ranks(self) -> dict[str, float]:
        """Train `rank` of every layer that has one: how many dimensions its class means span."""
        return {layer: values["rank"] for layer, values in self.values["train"].items() if "rank" in values}

    def measures(self) -> Measures:
        """What a policy may know; the accuracy is nan where targets are no classes."""
        accuracy = self.values["train"][NETWORK].get("accuracy", float("nan"))
        return Measures(accuracy, self.ncc("train"), self.stages)

    def headline(self, objective: Objective, configured: str | None = None) -> dict[str, str | float]:
        """The number by which runs are compared: {split, metric, value}; ValueError where it was not measured."""
        split, metric = headline_of(objective, configured, self.values)
        return {"split": split, "metric": metric, "value": self.number("metrics.headline", split, metric)}

    def number(self, key: str, split: str, metric: str) -> float:
        """The number of the network that this key of a configuration names; ValueError where it was not measured."""
        measured = self.values.get(split, {}).get(NETWORK, {})
        if metric not in measured:
            valid = ", ".join(f"{s}/{m}" for s, layers in self.values.items() for m in layers.get(NETWORK, {}))
            raise ValueError(f"{key}: '{split}/{metric}' is not measured; valid: {valid}")
        return measured[metric]


def scores(
    model: Classifier,
    dataset: Dataset,
    split: Split,
    batch_size: int,
    objective: Objective = CROSS_ENTROPY,
    world: ProcessGroup = SINGLE,
) -> dict[str, float]:
    """The objective's scores of a split, the network in evaluation mode: loss, accuracy, ..."""
    tally = _Tally(objective)
    for _, batch, out in Pass(model, dataset, split, batch_size, world=world):
        tally.add(out, batch)
    return tally.compute(world)


def scores_of_few(model: Classifier, dataset: Dataset, objective: Objective) -> dict[str, float]:
    """The scores of the first two train samples: which ones there are, before anything is trained."""
    few = Split(dataset.train.samples[:2], dataset.train.targets[:2])
    return scores(model, dataset, few, 2, objective)


def refreshed(model: Classifier, dataset: Dataset, batch_size: int, world: ProcessGroup = SINGLE) -> Classifier:
    """A copy whose batch-norm statistics are those of the train split under the present weights: the mean over
    batches of their statistics.

    Right after a layer is replaced, the running statistics behind it are still those of the old one; training does not
    read them, evaluation does, so that an accuracy taken then mixes the switch with their staleness.
    """
    copy = deepcopy(model)
    samples = dataset.train.samples.split(max(2, batch_size))
    samples = samples[:-1] if len(samples[-1]) == 1 else samples  # batch norm has no variance over one sample
    with full_precision(dataset.train.samples.device.type):
        update_bn((dataset.inputs(batch[world.share(len(batch))]) for batch in samples), copy)
    return copy


def suites_of(
    model: Classifier,
    dataset: Dataset,
    settings: MetricsSettings,
    objective: Objective = CROSS_ENTROPY,
    check: Check = go_on,
    seen: Seen | None = None,
) -> list[Metric]:
    """The suites of the train split, started. Raises ValueError for an unknown one, and where one cannot be measured of
    this model and dataset; reads no weight."""
    try:
        suites = [METRICS[name].build() for name in settings.suite]
    except KeyError as error:
        raise OutOfRange(f"metrics.suite: {error.args[0]}", "metrics.suite") from None
    if settings.ood_dataset is not None and not any(suite.outside for suite in suites):
        named = f"metrics.suite=[{','.join(settings.suite)}]"
        raise ValueError(f"metrics.ood_dataset has no effect with {named}; leave it out, or add ood to the suites")
    context = replace(_context(model, dataset, settings, objective, "train", check), seen=seen)
    for suite in suites:
        suite.start(context)
    return suites


def _context(
    model: Classifier, dataset: Dataset, settings: MetricsSettings, objective: Objective, split: str, check: Check
) -> Context:
    """What suites are told of a split."""
    samples = dataset.splits[split].samples
    return Context(
        model,
        model.probes(settings.probe),
        dataset.targets,
        split,
        eps=settings.eps,
        samples=len(samples),
        outside=len(dataset.outside or ()),
        held_out=dataset.held_out,
        penalties=objective.penalties(model),
        of_train=split != "train" and samples is dataset.train.samples,
        continuous=samples.dtype not in (torch.int32, torch.int64),
        loss=objective.mean,
        check=check,
    )


def evaluate(
    model: Classifier,
    dataset: Dataset,
    settings: MetricsSettings,
    measured: bool = True,
    check: Check = go_on,
    world: ProcessGroup = SINGLE,
    objective: Objective = CROSS_ENTROPY,
    splits: Sequence[str] | None = None,
    seen: Seen | None = None,
) -> Evaluation:
    """The objective's scores and, with `measured`, all suites on the named splits (None: all), train first. `seen`:
    what the phases so far drew from (None: all). `check` may raise to end it between two batches. All processes pass
    over their shares and return the same."""
    probes = model.probes(settings.probe)
    result = Evaluation(stages={p.layer: p.stage for p in probes if p.stage is not None})
    of_train = suites_of(model, dataset, settings, objective, check, seen) if measured else []
    for name in ["train", *(split for split in splits or dataset.splits if split != "train")]:
        if name == "train":
            suites = of_train
        else:
            suites = [METRICS[suite].build() for suite in settings.suite] if measured else []
            context = _context(model, dataset, settings, objective, name, check)
            for suite, own in zip(suites, of_train, strict=True):
                suite.start(replace(context, train=own))
        stream = Pass(model, dataset, dataset.splits[name], settings.batch_size, check, world)
        outside = None
        if name == "train" and measured and dataset.outside is not None:
            outside = Pass(model, dataset, dataset.outside, settings.batch_size, check, world)
        tally = _Tally(objective)
        sums = _passes(stream, outside, suites, tally, settings, world)
        found = [by_layer(suite.compute(reduced)) for suite, reduced in zip(suites, sums, strict=True)]
        result.values[name] = _merged(found, tally.compute(world))
    return result


def _merged(found: list[dict[str, dict[str, float]]], scores: dict[str, float]) -> dict[str, dict[str, float]]:
    """What the suites found by layer, the layer `network` with the objective's scores last. Raises ValueError where two
    of them measure the same."""
    layers: dict[str, dict[str, float]] = {}
    for values in [{NETWORK: scores}, *found]:
        for layer, own in values.items():
            held = layers.setdefault(layer, {})
            if twice := held.keys() & own.keys():
                raise ValueError(
                    f"metrics.suite: expected every metric once, got {layer}/{min(twice)} of two suites, or of one and "
                    "the loss"
                )
            held.update(own)
    return {**{layer: values for layer, values in layers.items() if layer != NETWORK}, NETWORK: layers[NETWORK]}


def _passes(
    stream: Pass,
    outside: Pass | None,
    suites: list[Metric],
    tally: "_Tally",
    settings: MetricsSettings,
    world: ProcessGroup,
) -> list[Tensor]:
    """All passes of all suites over a split, and of the tally in the first; one over what lies outside the classes for
    suites that read it; returns the last sums of every suite."""
    most = max((suite.passes for suite in suites), default=1)
    batches: Stream = stream if most == 1 else KeptPass(stream, suites, most, settings.memory_gib * GIB)
    sums: dict[int, Tensor] = {}  # of each suite's latest pass, by its place
    for n_pass in range(1, most + 1):
        working = {i: suite for i, suite in enumerate(suites) if suite.passes >= n_pass}
        for features, batch, out in batches:
            if n_pass == 1:
                tally.add(out, batch)
            for suite in working.values():
                suite.add(n_pass, features, batch, out)
        last = [suite for suite in working.values() if suite.outside and suite.passes == n_pass]
        for features, batch, out in outside or () if last else ():
            for suite in last:
                suite.add_outside(features, batch, out)
        for i, suite in working.items():
            sums[i] = world.sum(suite.sums())
            if n_pass < suite.passes:
                suite.next_pass(n_pass + 1, sums[i])
    return [sums[i] for i in range(len(suites))]


class _Tally:
    """The objective's scores, summed on the device."""

    def __init__(self, objective: Objective) -> None:
        self._scores = objective.scores
        self.samples = 0
        self.totals: dict[str, Tensor] = {}

    def add(self, out: Output, batch: Batch) -> None:
        self.samples += len(batch.targets)
        for name, each in self._scores(out, batch).items():
            total = each.sum(dtype=torch.float64)
            self.totals[name] = self.totals[name] + total if name in self.totals else total

    def compute(self, world: ProcessGroup) -> dict[str, float]:
        totals = list(self.totals.values())
        own = torch.stack([*totals, totals[0].new_full((), self.samples)])
        *sums, samples = world.sum(own).tolist()
        return {name: value / samples for name, value in zip(self.totals, sums, strict=True)}
