"""Passes over a split: forward passes of a network, and what is kept of the first for those after it."""

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from nclab.data import Dataset, Split
from nclab.interfaces.batch import Batch, Output
from nclab.metrics import full_precision
from nclab.metrics.suite import Metric
from nclab.models import Classifier
from nclab.parallel.group import SINGLE, ProcessGroup

Stream = Iterable[tuple[dict[str, Tensor], Batch, Output]]
Check = Callable[[], None]  # called often; it may raise to end what is under way


def go_on() -> None:
    """Nobody asks to stop."""


class Pass:
    """Forward passes over this process's share of one split in evaluation mode: yields (features incl. `input` and
    `logits`, batch, output). `check` is called before every batch and may raise."""

    def __init__(
        self,
        model: Classifier,
        dataset: Dataset,
        split: Split,
        batch_size: int,
        check: Check = go_on,
        world: ProcessGroup = SINGLE,
    ):
        self.model, self.dataset, self.split, self.batch_size, self.check = model, dataset, split, batch_size, check
        self.own = world.share(len(split))
        self.most = world.largest_share(len(split))  # samples that a process passes over

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Batch, Output]]:
        model, size, split = self.model, self.batch_size, self.split
        training = model.training
        model.eval()
        try:
            index = torch.arange(self.own.start, self.own.stop, device=split.targets.device)
            for start in range(self.own.start, self.own.stop, size):
                rows = slice(start, min(start + size, self.own.stop))
                self.check()
                samples = split.samples[rows]
                with full_precision(samples.device.type):
                    x = self.dataset.inputs(samples)
                    out = Output(*model(x))
                batch = Batch(x, split.targets[rows], index[start - self.own.start :][: len(samples)], len(samples))
                yield {"input": x.reshape(len(x), -1), **out.features, "logits": out.prediction}, batch, out
            passed = self.own.stop - self.own.start
            for _ in range(math.ceil(self.most / size) - math.ceil(passed / size)):
                self.check()  # as often as every other process
        finally:
            model.train(training)


class KeptPass:
    """A stream that is passed over several times: of the first pass it keeps what later ones want, where that fits
    `budget` bytes; else every pass runs the model again."""

    def __init__(self, stream: Pass, suites: list[Metric], passes: int, budget: float):
        self.stream, self.budget = stream, budget
        wanted = [suite.wanted(n) for suite in suites for n in range(2, suite.passes + 1)]
        self.wanted = None if None in wanted else set().union(*wanted)
        self.kept: list[tuple[dict[str, Tensor], Batch, Output]] | None = None

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Batch, Output]]:
        if self.kept:
            yield from self.kept
            return
        kept, fits = [], None
        for features, batch, out in self.stream:
            yield features, batch, out
            if fits is None:
                names = features.keys() if self.wanted is None else self.wanted
                row = sum(features[f][0].numel() * features[f].element_size() for f in names)
                fits = row * self.stream.most <= self.budget  # the same answer in every process
            if fits:
                kept.append(self._reduced(features, batch, out))
        self.kept = kept

    def _reduced(
        self, features: dict[str, Tensor], batch: Batch, out: Output
    ) -> tuple[dict[str, Tensor], Batch, Output]:
        """What later passes want, without the rest of the tensors that it may be views of."""
        own = {f: _own(t) for f, t in features.items() if self.wanted is None or f in self.wanted}
        inputs = batch.inputs if "input" in own else batch.inputs[:0]
        prediction = own.get("logits", out.prediction[:0])
        return own, Batch(inputs, batch.targets, batch.index, batch.of), Output(prediction, own)


def _own(feature: Tensor) -> Tensor:
    """The feature without the rest of what it is a view of: a class token would keep all the tokens of its layer."""
    whole = feature.untyped_storage().nbytes() == feature.numel() * feature.element_size()
    return feature if whole else feature.clone()
