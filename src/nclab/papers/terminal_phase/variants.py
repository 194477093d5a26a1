"""Which runs of the terminal phase are one curve, and what it is called."""

from dataclasses import dataclass

import pandas as pd

from nclab.analysis.labels import dataset_label
from nclab.analysis.last_layer import series
from nclab.analysis.runs import Run, refuse_mixture
from nclab.papers.terminal_phase.phase import Phase, terminal_phase

LOSSES = {"cross_entropy": "cross-entropy", "mse": "squared error"}
DASHED = (0, (3.2, 1.8))
LOOKS = [  # Okabe and Ito's colours, and a dash each for readers of grey
    {"color": "#0072B2", "marker": "o"},
    {"color": "#D55E00", "marker": "s"},
    {"color": "#009E73", "marker": "^"},
    {"color": "#CC79A7", "marker": "D"},
]


@dataclass(frozen=True)
class Variant:
    """Runs that differ in their seed alone."""

    label: str
    runs: list[Run]

    def over_seeds(self, metric: str, split: str = "train", layer: str | None = None) -> pd.DataFrame:
        """`over_seeds` of a metric of these runs."""
        return over_seeds([series(run, metric, split, layer) for run in self.runs])

    @property
    def phases(self) -> list[Phase]:
        """Of the seeds that reach one."""
        return [phase for phase in map(terminal_phase, self.runs) if phase]

    @property
    def start(self) -> str:
        """'TPT from epoch 28 to 36 (100 %)' over seeds, or 'no TPT'."""
        if not self.phases:
            return "no TPT"
        first, last = (pick(phase.start for phase in self.phases) for pick in (min, max))
        levels = " or ".join(sorted({phase.label for phase in self.phases}))
        lacking = f", {len(self.phases)} of {len(self.runs)} seeds" if len(self.phases) < len(self.runs) else ""
        return f"TPT from epoch {first}{f' to {last}' if last > first else ''} ({levels}{lacking})"


def over_seeds(values: list[pd.Series]) -> pd.DataFrame:
    """Mean and sample standard deviation by epoch, of a series a seed: epoch, mean, std, low, high, n; low and high are
    the least and the greatest."""
    table = pd.concat(values, axis=1)
    numbers = {"mean": table.mean(axis=1), "std": table.std(axis=1), "low": table.min(axis=1)}
    return pd.DataFrame(numbers | {"high": table.max(axis=1), "n": table.count(axis=1)}).reset_index()


def variants_of(runs: list[Run]) -> list[Variant]:
    """The runs by experiment, in the order of their labels' kinds. Raises AnalysisError where the runs of one differ in
    more than their seed."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(str(run.config.get("experiment_name")), []).append(run)
    for group in groups.values():
        refuse_mixture(group)
    return sorted((Variant(label_of(group[0]), group) for group in groups.values()), key=lambda v: _order(v.label))


def label_of(run: Run) -> str:
    """'cross-entropy', 'squared error', 'cross-entropy, random labels', 'cross-entropy, imbalance 10:1'."""
    settings = run.settings
    parts = [LOSSES.get(settings["loss.name"], settings["loss.name"])]
    if noise := settings.get("dataset.label_noise"):
        parts.append("random labels" if noise == 1 else f"label noise {noise:g}")
    if imbalance := settings.get("dataset.imbalance"):
        parts.append(f"imbalance {imbalance:g}:1")
    if not settings.get("optimizer.weight_decay") and not settings.get("loss.l2"):
        parts.append("no weight decay")
    return ", ".join(parts)


def about(variants: list[Variant]) -> str:
    """'MNIST, 5,000 train samples, MLP of depth 3 and width 256, 200 epochs', of the first run, for captions."""
    run = variants[0].runs[0]
    settings = run.settings
    size = settings.get("dataset.train_size")
    model = settings["model.name"]
    if model == "linear":
        model = "linear classifier"
    if "model.depth" in settings:
        model = f"{model.upper()} of depth {settings['model.depth']} and width {settings['model.width']}"
    parts = [
        dataset_label(run.config),
        f"{size:,} train samples" if size else "",
        model,
        f"{run.config['epochs']:,} {'steps' if settings['model.name'] == 'linear' else 'epochs'}",
    ]
    return ", ".join(filter(None, parts))


def _order(label: str) -> tuple[int, str]:
    return label.count(","), label
