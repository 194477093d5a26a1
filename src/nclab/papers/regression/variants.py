"""Which runs of a regression are one curve, and what it is called."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from nclab.analysis.labels import setting_label
from nclab.analysis.runs import Run, refuse_mixture

COLOURS = ("0.45", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito's
DASHES = ((0, (1, 1)), "-", (0, (5, 1.2)), (0, (3, 1, 1, 1)), (0, (7, 1, 1, 1, 1, 1)), (0, (2, 2)), (0, (9, 2)))
MARKERS = ("x", "o", "s", "^", "D", "v", "P")


@dataclass(frozen=True)
class Variant:
    """Runs that differ in their seed alone. decay: lambda of weight decay or of the loss's penalty."""

    label: str
    decay: float
    runs: list[Run]
    look: dict

    @property
    def steps(self) -> int:
        """Steps of an epoch of full batches, with sampler=repeated; 1: the epoch is the unit."""
        settings = self.runs[0].settings
        return settings.get("sampler.repeats", 1) if settings.get("batch_size") is None else 1

    def over_seeds(self, values: Callable[[Run], pd.Series]) -> pd.DataFrame:
        """Of a series by epoch: variant, epoch, mean, std, low, high (least and greatest seed) and n.

        nan from where a seed has no number: the mean of the others would jump to that of other networks."""
        table = pd.concat([values(run) for run in self.runs], axis=1)
        numbers = {"mean": table.mean(axis=1), "std": table.std(axis=1), "low": table.min(axis=1)}
        numbers |= {"high": table.max(axis=1)}
        whole = pd.DataFrame(numbers).where(table.notna().all(axis=1)).assign(n=table.count(axis=1))
        return whole.rename_axis("epoch").reset_index().assign(variant=self.label)


def decay_of(run: Run) -> float:
    """lambda: of the loss's own penalty where there is one, else of the optimizer's weight decay."""
    return float(run.settings.get("loss.l2") or run.settings.get("optimizer.weight_decay") or 0.0)


def permuted(run: Run) -> bool:
    """Whether the train targets are in a random order: the control."""
    return bool(run.settings.get("dataset.permute_targets"))


def variants_of(runs: list[Run]) -> list[Variant]:
    """The runs by decay, the control last. Raises AnalysisError where runs of one differ in more than their seed."""
    groups: dict[tuple[bool, float], list[Run]] = {}
    for run in runs:
        groups.setdefault((permuted(run), decay_of(run)), []).append(run)
    found = []
    for i, ((control, decay), group) in enumerate(sorted(groups.items())):
        refuse_mixture(group)
        label = f"λ = {decay:g}" + (", permuted targets" if control else "")
        look = {"color": COLOURS[i % 7], "ls": DASHES[i % 7], "marker": MARKERS[i % 7]}
        found.append(Variant(label, decay, group, look))
    return found


def about(variants: list[Variant]) -> str:
    """'teacher, MLP of 4 layers, width 64, SGD at 1, 16,000 steps', for captions; epochs without sampler=repeated."""
    run = variants[0].runs[0]
    size = run.settings.get("dataset.train_size")
    rows = f", {size:,} train samples" if size else ""
    rate = f"SGD at {run.settings['optimizer.lr']:g}"
    steps = variants[0].steps
    length = f"{run.config['epochs'] * steps:,} {'steps' if steps > 1 else 'epochs'}"
    return f"{setting_label(run.config | {'schedule': None})}{rows}, {rate}, {length}"
