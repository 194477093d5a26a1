"""metrics.suite=[spectra]: effective and stable rank of class means, features and weights; how evenly means lie."""

import torch
from torch import Tensor

from nclab.interfaces.batch import Batch, Output
from nclab.metrics.meter import CollapseMeter
from nclab.metrics.rows import MOST_ROWS, SampledRows
from nclab.metrics.spectra import (
    effective_rank,
    feature_spectrum,
    gnc2,
    hyperspherical_uniformity,
    spectrum,
    stable_rank,
)
from nclab.metrics.suite import METRICS, Context, Metric, SuiteSettings, require_classes


@METRICS.add("spectra", SuiteSettings)
class SpectraSuite(Metric):
    """One pass. effective_rank_* and stable_rank_* at every probe point: `_features` of the features minus mu_G of the
    train split, of at most 2000 samples (`nclab.metrics.rows.chosen_rows`), from the smaller Gram matrix of that block;
    and of the train split `_means` of the centred class means, `_weight` of the layer's weight, fixed or not, and
    `gnc2` and `hyperspherical_uniformity` of the class means."""

    def __init__(self, settings: SuiteSettings | None = None):
        pass

    def start(self, context: Context) -> None:
        require_classes("spectra", context)
        self.context = context
        self.features = list(dict.fromkeys(probe.feature for probe in context.probes))
        self.rows = SampledRows(context.samples, MOST_ROWS)
        self.precision = torch.float32
        first = context.train is None
        self.meters = {f: CollapseMeter(context.targets.dim) for f in self.features} if first else {}

    def names(self, split: str) -> set[str]:
        return set()

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        self.rows.add({f: features[f] for f in self.features}, batch.index)
        self.precision = features[self.features[0]].dtype
        for f, meter in self.meters.items():
            meter.add_means(features[f], self.context.targets.groups(batch.targets))

    def sums(self) -> Tensor:
        return torch.cat([self.rows.sums(), *(meter.sums() for meter in self.meters.values())])

    def compute(self, reduced: Tensor) -> dict[str, float]:
        sizes = [self.rows.size, *(len(meter.sums()) for meter in self.meters.values())]
        rows, *sums = reduced.split(sizes)
        self.rows.accept(rows)
        for meter, total in zip(self.meters.values(), sums, strict=True):
            meter.accept(total)
        values, layers, train = {}, self.context.model.etf_sites(), self.context.train or self
        for probe in self.context.probes:
            means = train.meters[probe.feature].class_means
            found = _ranks("features", feature_spectrum(self.rows[probe.feature], means, self.precision))
            if train is self:
                found |= _ranks("means", means.eigenvalues[: means.rank])
                found |= {"gnc2": gnc2(means), "hyperspherical_uniformity": hyperspherical_uniformity(means)}
                if probe.site in layers:
                    found |= _ranks("weight", spectrum(layers[probe.site].weight))
            values |= {f"{probe.layer}/{name}": value for name, value in found.items()}
        return values


def _ranks(what: str, squares: Tensor) -> dict[str, float]:
    return {
        f"effective_rank_{what}": effective_rank(squares) if len(squares) else float("nan"),
        f"stable_rank_{what}": stable_rank(squares) if len(squares) else float("nan"),
    }
