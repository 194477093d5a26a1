"""metrics.suite=projection: a few features, class means and classifier rows of three classes in the plane of the means.

What the best-known picture of neural collapse is drawn from (the animation of Papyan, Han, Donoho 2020). The numbers
are rows of metrics.csv, so that they are cut back and continued on a resume as every other measurement is:
(POINTS + 2) * 3 * 2 = 102 of them an epoch, in six digits.
"""

import torch
from torch import Tensor

from nclab.interfaces.batch import Batch, Output
from nclab.metrics.suite import METRICS, Context, Metric, SuiteSettings, last_layer, require_classes
from nclab.papers.terminal_phase.parts.alone import require_one_process, weight_and_bias

SHOWN = 3  # classes 0, 1 and 2
POINTS = 15  # the first samples of each in the split
DIGITS = 6


@METRICS.add("projection", SuiteSettings)
class Projection(Metric):
    """At the classifier's input, train split: `plane_sample_CLASS_NUMBER_x` and `_y`, `plane_mean_CLASS_x`,
    `plane_row_CLASS_x` ..., in the units of features and of W.

    The plane is that of the means of the three classes, the origin of features and means their centre, of rows the
    centre of the three rows. In the plane the axes are turned (and mirrored, if need be) so that the means come
    nearest to the target, the simplex ETF with vertex 0 on top: pictures of different epochs and seeds agree.
    nan where the three means lie on one line.
    """

    def __init__(self, settings: SuiteSettings | None = None):
        self.context: Context | None = None

    def start(self, context: Context) -> None:
        require_classes("projection", context, SHOWN)
        require_one_process("projection")
        self.context = context
        self.feature, self.layer = last_layer(context)
        self.samples: list[list[Tensor]] = [[] for _ in range(SHOWN)]
        self.counts = torch.zeros(SHOWN, dtype=torch.float64)
        self.totals: list[Tensor] = [torch.zeros(()) for _ in range(SHOWN)]

    def wanted(self, n_pass: int) -> set[str]:
        return {self.feature}

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        if self.context.train is not None:
            return
        for label in range(SHOWN):
            own = features[self.feature][batch.targets == label].double().cpu()  # (n, d)
            self.counts[label] += len(own)
            self.totals[label] = self.totals[label] + own.sum(0)
            self.samples[label] += own[: POINTS - len(self.samples[label])]

    def sums(self) -> Tensor:
        return torch.zeros(1, dtype=torch.float64)  # one process: nothing to add up

    def compute(self, reduced: Tensor) -> dict[str, float]:
        if self.context.train is not None:
            return {}
        means = torch.stack(self.totals) / self.counts[:, None]  # (3, d)
        weight, _ = weight_and_bias(self.context)
        plane = plane_of(means)  # (d, 2)
        rows = weight[:SHOWN]
        points = {f"mean_{c}": means[c] - means.mean(0) for c in range(SHOWN)}
        points |= {f"row_{c}": rows[c] - rows.mean(0) for c in range(SHOWN)}
        for c, kept in enumerate(self.samples):
            points |= {f"sample_{c}_{i}": sample - means.mean(0) for i, sample in enumerate(kept)}
        return {
            f"{self.layer}/plane_{name}_{axis}": float(f"{value:.{DIGITS}g}")
            for name, point in points.items()
            for axis, value in zip("xy", (point @ plane).tolist(), strict=True)
        }


def triangle() -> Tensor:
    """The simplex ETF of three vectors in the plane (3, 2): unit vectors 120 degrees apart, the first on top."""
    angles = torch.pi / 2 + 2 * torch.pi / SHOWN * torch.arange(SHOWN, dtype=torch.float64)
    return torch.stack([angles.cos(), angles.sin()], 1)


def plane_of(means: Tensor) -> Tensor:
    """Orthonormal basis (d, 2) of the plane of three means (3, d), turned towards `triangle`; nan where they lie on
    one line, float64 rounding apart."""
    centred = means - means.mean(0)
    _, scale, right = torch.linalg.svd(centred, full_matrices=False)
    if not torch.isfinite(scale).all() or not scale[1] > 1e-10 * scale[0]:
        return torch.full((means.shape[1], 2), float("nan"), dtype=torch.float64)
    basis = right[:2].T  # (d, 2)
    left, _, back = torch.linalg.svd((centred @ basis).T @ triangle())  # orthogonal Procrustes
    return basis @ (left @ back)
