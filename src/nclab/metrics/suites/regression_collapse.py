"""metrics.suite=[regression_collapse]: NRC1 to NRC3 at the head's input, R^2 and the squared error of every target."""

import torch
from torch import Tensor

from nclab.interfaces.batch import Batch, Output
from nclab.interfaces.targets import Values
from nclab.metrics.precision import full_precision
from nclab.metrics.regression import leading, outside_of, row_axes, shares
from nclab.metrics.rows import SampledRows
from nclab.metrics.suite import METRICS, NETWORK, Context, Metric, SuiteSettings, last_layer
from nclab.theory.regression import best_g, nrc3

COMPONENTS = 5  # whose share of the variance is logged


@METRICS.add("regression_collapse", SuiteSettings)
class RegressionCollapse(Metric):
    """Andriopoulos et al. 2024 (arXiv 2409.04180), of a network with n values as its targets.

    At the head's input: `nrc1`, `nrc2` (`nclab.metrics.regression`) of every split; other splits take the principal
    components of the train split. Of the train split also

    - `nrc3` (`nclab.theory.regression`) at the g that is best for the W of this epoch, and that g as `nrc3_g`; nan of
      one target. The paper takes the g of the last W for all epochs: from the next two it can be had.
    - `weight_gram_i_j`, `target_covariance_i_j`, i <= j from 1: the entries of W W^T and of the covariance S of the
      targets, divided by M.
    - `explained_variance_1` to `_5`: shares of the variance of the features along their first principal components.

    In the layer `network`, of every split: `mse`, the mean over targets of the mean squared error; `r2`, the mean over
    targets of 1 - sum (y - f)^2 / sum (y - mean y)^2 with the mean of that split, as scikit-learn's `r2_score`; and
    both by target, `mse_target_1`, `r2_target_1` ... R^2 is nan where a target is constant.

    Three passes over the train split: means; second moments about them, of the features (d, d) or where M < d the rows
    themselves; distances from the two spans. One pass over the others. All sums are float64.
    """

    def __init__(self, settings: SuiteSettings | None = None):
        self.context: Context | None = None

    def start(self, context: Context) -> None:
        if not isinstance(context.targets, Values):
            raise ValueError("metrics.suite: regression_collapse needs targets that are values, got classes")
        self.context = context
        self.feature, self.layer = last_layer(context)
        self.n, self.d = self._weight().shape
        first = context.train is None
        self.passes, self.axes, self.rows = (3 if first else 1), None, None
        self.few = first and context.samples < self.d
        self.total = torch.zeros(1 + self.n + self.d if first else self._size_of_scores(), dtype=torch.float64)

    def names(self, split: str) -> set[str]:
        return {"mse", "r2", *(f"{name}_target_{i}" for name in ("mse", "r2") for i in range(1, self.n + 1))}

    def wanted(self, n_pass: int) -> set[str]:
        return {self.feature, "logits"}

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        h, y = features[self.feature], batch.targets.double()
        with full_precision(h.device.type, products_only=True):
            if self.passes == 1:
                own = self._scores(features["logits"], y, self.context.train.mean) + self._distances(h)
            elif n_pass == 1:
                own = [y.new_full((1,), len(y)), y.sum(0), h.double().sum(0)]
            elif n_pass == 2:
                own = [*self._scores(features["logits"], y, self.mean), *self._moments(h, y, batch)]
            else:
                own = self._distances(h)
            self.total = self.total.to(h.device) + torch.cat([part.flatten() for part in own])

    def sums(self) -> Tensor:
        rows = [] if self.rows is None else [self.rows.sums()]
        return torch.cat([self.total, *rows]).cpu()

    def next_pass(self, n_pass: int, reduced: Tensor) -> None:
        reduced = reduced.cpu()
        if n_pass == 2:
            self.mean, self.feature_mean = (part / reduced[0] for part in reduced[1:].split([self.n, self.d]))
            size = self._size_of_scores() - 2 + self.n**2
            self.total = torch.zeros(size if self.few else size + self.d**2, dtype=torch.float64)
            self.rows = SampledRows(self.context.samples, self.context.samples) if self.few else None
            if self.few:  # in a process without a batch, too
                self.rows.add({"h": torch.zeros(0, self.d, dtype=torch.float64)}, torch.zeros(0, dtype=torch.int64))
            return
        sizes = [self._size_of_scores() - 2, self.n**2, len(reduced) - self._size_of_scores() + 2 - self.n**2]
        self.scored, covariance, second = reduced.split(sizes)
        self.covariance = covariance.view(self.n, self.n) / self.scored[0]
        self.axes, self.variances = leading(second.view(-1, self.d), self.n, moment=not self.few)
        self.weight_axes, self.rows = row_axes(self._weight()).cpu(), None
        self.total = torch.zeros(2, dtype=torch.float64)

    def compute(self, reduced: Tensor) -> dict[str, float]:
        reduced, train = reduced.cpu(), self.context.train
        scored, distances = (self.scored, reduced) if train is None else reduced.split([len(reduced) - 2, 2])
        count, shifted, squares, errors = scored.split([1, self.n, self.n, self.n])
        mse, total = errors / count, squares - shifted.square() / count
        rounding = (4 * torch.finfo(torch.float64).eps * (train or self).mean) ** 2 * count
        r2 = torch.where(total > rounding, 1 - errors / total, float("nan"))
        found = {f"{NETWORK}/{name}": float(each.mean()) for name, each in (("mse", mse), ("r2", r2))}
        for i in range(self.n):
            found |= {f"{NETWORK}/mse_target_{i + 1}": float(mse[i]), f"{NETWORK}/r2_target_{i + 1}": float(r2[i])}
        own = dict(zip(("nrc1", "nrc2"), (distances / count).tolist(), strict=True))
        if train is None:
            own |= self._of_weight()
        return found | {f"{self.layer}/{name}": value for name, value in own.items()}

    def _of_weight(self) -> dict[str, float]:
        w = self._weight().detach().double().cpu()
        gram, s = (w @ w.T).numpy(), self.covariance.numpy()
        found = {"nrc3": nrc3(gram, s), "nrc3_g": best_g(gram, s)}
        for i in range(self.n):
            for j in range(i, self.n):
                found[f"weight_gram_{i + 1}_{j + 1}"] = float(gram[i, j])
                found[f"target_covariance_{i + 1}_{j + 1}"] = float(s[i, j])
        of_axes = shares(self.variances, COMPONENTS)
        return found | {f"explained_variance_{i}": share for i, share in enumerate(of_axes, 1)}

    def _size_of_scores(self) -> int:
        return 1 + 3 * self.n + 2

    def _scores(self, prediction: Tensor, y: Tensor, mean: Tensor) -> list[Tensor]:
        """Samples, sums of y - mean, of its squares and of squared errors, by target."""
        z, error = y - mean.to(y.device), prediction.double() - y
        return [y.new_full((1,), len(y)), z.sum(0), z.square().sum(0), error.square().sum(0)]

    def _moments(self, h: Tensor, y: Tensor, batch: Batch) -> list[Tensor]:
        """Of the targets (n, n) and, unless the rows are kept instead, of the features (d, d), about their means."""
        z, own = y - self.mean.to(y.device), h.double() - self.feature_mean.to(h.device)
        if self.few:
            self.rows.add({"h": own}, batch.index)
            return [z.T @ z]
        return [z.T @ z, own.T @ own]

    def _distances(self, h: Tensor) -> list[Tensor]:
        """Sums of the distances behind NRC1 and NRC2."""
        of = self.context.train or self
        return [outside_of(h, axes.to(h.device)).sum().view(1) for axes in (of.axes, of.weight_axes)]

    def _weight(self) -> Tensor:
        """W (n, d)."""
        model = self.context.model
        return model.etf_sites()[model.classifier].weight
