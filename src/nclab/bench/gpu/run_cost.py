"""What a run of a plan costs: a training step, the steps of an epoch, a measurement, each timed on the device."""

import math
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import torch

from nclab.bench.gpu.stand_in import stand_in, train_size
from nclab.bench.harness import Call, seconds, wait
from nclab.config.schema import RunConfig
from nclab.data import Dataset
from nclab.parallel.group import SINGLE
from nclab.run.build import built, fit_of
from nclab.training.evaluate import evaluate
from nclab.training.fit import Fit
from nclab.training.observer import Observer
from nclab.training.passes import go_on
from nclab.training.progress import Part
from nclab.training.step import set_products

WARM, LOOK = 4, 8  # steps before the clock starts; between two looks at it
LEAST = 0.4  # seconds of training that are timed
WARM_SECONDS = 3.0  # a measurement that takes longer is made once


class Enough(Exception):
    """The clock has seen enough steps."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a step, with its share of what an epoch needs beside its steps; steps an epoch; seconds of a
    measurement of all splits."""

    step: float
    steps: int
    measurement: float

    def run(self, config: RunConfig) -> float:
        """Seconds of a run: its epochs and its measurements."""
        return config.epochs * self.steps * self.step + measurements(config) * self.measurement


def measurements(config: RunConfig) -> int:
    """How many times a run is measured: untrained, every few epochs, and at its end."""
    every = config.metrics.every
    return 1 + math.ceil(config.epochs / every) if every else 1


def key_of(config: RunConfig) -> str:
    """What the cost depends on: runs of one key differ in seeds, rates, penalties and policies."""
    dataset = replace(config.dataset, class_split=0)
    named = (config.sampler, config.phases, config.model, config.batch_size, config.precision, config.metrics.suite)
    return repr((dataset, *named, config.optimizer.name, config.loss.name, bool(config.metrics.every)))


def steps_guessed(config: RunConfig) -> int:
    """About how many steps an epoch has, without building the dataset."""
    size = train_size(config.dataset)
    return getattr(config.sampler, "repeats", 1) * math.ceil(size / (config.batch_size or size))


def fit_for(config: RunConfig, dataset: Dataset, device: str) -> Fit:
    """The fit of a run, without a folder, which nobody watches."""
    torch.manual_seed(config.seed)
    parts = built(config, dataset)
    parts.model.to(device)
    fit, _ = fit_of(parts, config.seed, None, Observer(), lambda: None, SINGLE)
    return fit


def step_seconds(fit: Fit, device: str, least: float = LEAST) -> float:
    """Seconds a step of several epochs, or of a part of one where it is long."""
    steps, began = 0, time.perf_counter()

    def look() -> None:
        nonlocal steps, began
        if steps == WARM or (steps > WARM and (steps - WARM) % LOOK == 0):
            wait(device)
            now = time.perf_counter()
            if steps > WARM and now - began >= least:
                raise Enough
            if steps == WARM:
                began = now
        steps += 1

    fit.check = look
    with suppress(Enough):
        for epoch in range(fit.epochs):
            fit.progress.epoch, fit.progress.part = epoch, Part()
            fit.begin_epoch()
            fit.train_epoch()
            fit.progress.steps += fit.progress.part.batches
    wait(device)
    return (time.perf_counter() - began) / (steps - WARM if steps > WARM else steps)


def cost_of(config: RunConfig, device: str, dataset: Dataset | None = None) -> Cost:
    """Timed on the device; the dataset is of noise where it would be read from files."""
    dataset = stand_in(config, device) if dataset is None else dataset
    set_products(config.tf32)
    fit = fit_for(config, dataset, device)
    step = step_seconds(fit, device)
    feed, metrics = fit.feed, fit.settings.metrics
    of_phase = fit.learner.objective, feed.phase(0).splits, feed.seen(0)
    measured = partial(evaluate, fit.model, dataset, metrics, metrics.every > 0, go_on, SINGLE, *of_phase)
    return Cost(step, math.ceil(feed.samples(0) / feed.batch_size), warm_seconds(measured, device))


def warm_seconds(call: Call, device: str, most: float = WARM_SECONDS) -> float:
    """Seconds of a second call: in the first one kernels are loaded and memory is got. Of the first one where that took
    more than `most`: it is a small part of it."""
    cold = seconds(call, device)
    return cold if cold > most else seconds(call, device)
