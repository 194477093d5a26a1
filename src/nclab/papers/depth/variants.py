"""Variants of a depth study: runs that differ in seed, number of blocks and lambda alone, and what they are called."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from nclab.analysis.labels import BASELINE, dataset_label
from nclab.analysis.needs import Needs
from nclab.analysis.runs import MAY_DIFFER, AnalysisError, Run, choose, differences, refuse_twins

BLOCKS, L2 = "model.blocks", "loss.l2"
FREE = (BLOCKS, L2)
DEEP = Needs("networks of blocks", roles=frozenset({"block"}))


@dataclass(frozen=True)
class Variant:
    """One curve over the number of blocks; its lambda is constant, or proportional to 1 / blocks."""

    label: str
    runs: list[Run]

    @cached_property
    def by_blocks(self) -> dict[int, list[Run]]:
        """Number of blocks -> its runs, shallow to deep."""
        numbers = sorted({run.settings[BLOCKS] for run in self.runs})
        return {number: [run for run in self.runs if run.settings[BLOCKS] == number] for number in numbers}

    @property
    def orthogonal(self) -> bool:
        """Whether theory has its classifier end as an orthogonal frame, not as a simplex ETF: MSE without a bias."""
        settings = self.runs[0].settings
        return settings["loss.name"] == "mse" and settings.get("model.head_bias") is False


def depth_variants(runs: list[Run], policies: list[str] | None = None) -> list[Variant]:
    """The variants of runs of networks of blocks, by name. Raises AnalysisError where lambda is neither constant nor
    proportional to 1 / blocks within one, and where a seed of a depth is there twice."""
    groups: dict[tuple, list[Run]] = {}
    for run in choose(runs, policies) if policies else runs:
        groups.setdefault((str(run.config.get("experiment_name")), _kept(run)), []).append(run)
    for group in groups.values():
        refuse_twins(group, BLOCKS)
    labels = _distinct([(label_of(group), group) for group in groups.values()])
    # What has but a lambda to its name comes before what has further words: '!' sorts before all of them.
    return sorted((Variant(label, group) for label, group in labels), key=lambda v: v.label.replace("λ", "!"))


def label_of(runs: list[Run]) -> str:
    """'RN1, λ = 0.005', 'RN2, λ = 0.005/L', 'T11, pre-norm, λ = 0', 'RN1, MSE, no head bias, λ = 0.005' ..., of runs
    that differ in seed, blocks and lambda alone."""
    settings = runs[0].settings
    parts = [_network(settings)]
    if runs[0].policy != BASELINE:
        parts.append(runs[0].policy)
    if settings.get("model.norm") == "pre":
        parts.append("pre-norm")
    if settings["loss.name"] != "cross_entropy":
        parts.append({"mse": "MSE"}.get(settings["loss.name"], settings["loss.name"]))
    if settings.get("model.head_bias") is False:
        parts.append("no head bias")
    skip = settings.get("loss.l2_skip", "none")
    if skip != "none":
        parts.append({"head_bias": "head bias not in L2", "biases": "biases not in L2"}.get(skip, f"l2_skip {skip}"))
    return ", ".join([*parts, f"λ = {_strength(runs)}"])


def spread(values: dict[int, float]) -> dict[str, float]:
    """{seed: value} -> n, mean and sample standard deviation of the defined values, and of the log10 of the positive
    ones; std is nan with one seed."""
    there = np.array([value for value in values.values() if math.isfinite(value)])
    logs = np.log10(there[there > 0])
    return {
        "n": len(there),
        "mean": _mean(there),
        "std": _std(there),
        "log10_mean": _mean(logs),
        "log10_std": _std(logs),
    }


def colours_and_marks(variants: list[Variant]) -> dict[str, dict]:
    """Label -> colour, marker and line style: told apart by colour-blind readers, and in grey."""
    return {variant.label: dict(LOOKS[i % len(LOOKS)]) for i, variant in enumerate(variants)}


def about(variants: list[Variant]) -> str:
    """'MNIST, 1,000 train samples, 5,000 epochs', as far as the variants agree, for captions."""
    runs = [run for variant in variants for run in variant.runs]
    datasets, epochs = (
        {get(run) for run in runs} for get in (lambda run: dataset_label(run.config), lambda run: run.config["epochs"])
    )
    parts = [*datasets] if len(datasets) == 1 else []
    kept = {run.settings.get("dataset.train_size") for run in runs}
    parts += [f"{size:,} train samples" for size in kept if len(kept) == 1 and size is not None]
    return ", ".join(parts + ([f"{epochs.pop():,} epochs"] if len(epochs) == 1 else []))


def seeds_of(variants: list[Variant]) -> pd.Series:
    """Number of runs behind every point."""
    return pd.Series([len(runs) for variant in variants for runs in variant.by_blocks.values()])


LOOKS = [
    {"color": "#0072B2", "marker": "o", "ls": "-"},  # Okabe and Ito's colours
    {"color": "#D55E00", "marker": "s", "ls": (0, (5, 1.2))},
    {"color": "#009E73", "marker": "^", "ls": (0, (3, 1, 1, 1))},
    {"color": "#CC79A7", "marker": "D", "ls": (0, (1, 1))},
    {"color": "black", "marker": "v", "ls": (0, (7, 1))},
    {"color": "#E69F00", "marker": "P", "ls": (0, (5, 1, 1, 1, 1, 1))},
    {"color": "#56B4E9", "marker": "X", "ls": (0, (2, 1))},
]


def _kept(run: Run) -> frozenset:
    """All that may not differ within a variant."""
    kept = {key: value for key, value in run.settings.items() if key not in FREE and not MAY_DIFFER.match(key)}
    return frozenset((key, repr(value)) for key, value in (kept | {"policy": run.policy}).items())


def _network(settings: dict) -> str:
    """RN1, RN2, T11, T12 ... as arXiv 2505.15239 has them; other models by their name."""
    name = settings["model.name"]
    if name == "rn":
        return f"RN{settings.get('model.maps', '')}"
    if name == "tf":
        return f"T{settings.get('model.attention_maps', '')}{settings.get('model.mlp_maps', '')}"
    return name


def _strength(runs: list[Run]) -> str:
    """'0.005' or '0.005/L'."""
    found = sorted({(run.settings[BLOCKS], run.settings[L2]) for run in runs})
    values, products = [value for _, value in found], [blocks * value for blocks, value in found]
    if _equal(values):
        return f"{values[0]:g}"
    if _equal(products):
        return f"{products[0]:.6g}/L"
    got = ", ".join(f"{value:g} at {blocks}" for blocks, value in found[:6])
    raise AnalysisError(
        f"{runs[0].config.get('experiment_name')}: expected one {L2} at every {BLOCKS}, or one product of the two, got "
        f"{got}; choose, e.g. with --where {L2}={values[0]:g}"
    )


def _equal(values: list[float]) -> bool:
    return all(math.isclose(value, values[0], rel_tol=1e-6) for value in values)


def _distinct(labelled: list[tuple[str, list[Run]]]) -> list[tuple[str, list[Run]]]:
    """Equal labels get the settings in which their runs differ, at last the experiment's name; the data set is named
    where there are several."""
    if len({dataset_label(group[0].config) for _, group in labelled}) > 1:
        labelled = [(f"{label}, {dataset_label(group[0].config)}", group) for label, group in labelled]
    for add in (_settings, lambda run, _: str(run.config.get("experiment_name"))):
        same = {label: [group[0] for other, group in labelled if other == label] for label, _ in labelled}
        labelled = [
            (f"{label}, {add(group[0], same[label])}".removesuffix(", ") if len(same[label]) > 1 else label, group)
            for label, group in labelled
        ]
    return labelled


def _settings(run: Run, others: list[Run]) -> str:
    return ", ".join(f"{key}={run.settings.get(key)}" for key in differences(others) if key not in FREE)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _std(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan
