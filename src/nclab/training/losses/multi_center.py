"""loss=multi_center: features are regressed to several fixed centres a class, the more the rarer the class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, linalg

from nclab.data import Dataset
from nclab.interfaces.batch import Batch, Output
from nclab.interfaces.valid import OutOfRange, no_choice
from nclab.models import Classifier
from nclab.training.losses.dot_regression import SMALLEST, last_feature, own_cosine
from nclab.training.objective import LOSSES, CrossEntropy, LossSettings
from nclab.training.optim import at_least

CHOICES = {
    "allocation": ("class_aware", "equal", "reversed"),
    "weights": ("sum", "mean", "equal", "class_aware"),
    "scale": ("own", "class_aware"),
}


@dataclass
class MultiCenterSettings(LossSettings):
    name: str = "multi_center"
    centres: int = 20  # f, rows of the frame a class, its classifier row among them; f C at most d
    # angle: a centre is cos(theta) times a row of its own plus sin(theta) times the row of the classifier
    theta: float = 0.2
    # of the (f-1) C centres: class_aware (CAL: the rarer a class the more) | equal (AL: f-1 each) | reversed (control)
    allocation: str = "class_aware"
    # of the classes: sum (over centres: m_k rho_k) | mean (over centres: rho_k) | equal (1) | class_aware (m_k rho_k of
    # allocation=class_aware, whatever the allocation is); all but sum are controls
    weights: str = "sum"
    # own | class_aware (the weights times one number, so that their mean over the train samples is that of class_aware:
    # the same step for the same learning rate)
    scale: str = "own"
    length: float = 6e-4  # weight of (|h| - 1)^2

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, valid in CHOICES.items():
            if getattr(self, key) not in valid:
                raise no_choice(f"loss.{key}", getattr(self, key), valid)
        at_least("loss.centres", self.centres, 2)
        at_least("loss.length", self.length, 0)
        if not 0 < self.theta < math.pi / 2:
            said = f"loss.theta must be between 0 and pi/2, both excluded; got {self.theta:g}"
            raise OutOfRange(said, "loss.theta")


def allocated(counts: Sequence[int], per_class: int, allocation: str = "class_aware") -> list[int]:
    """Centres m_k of every class, (f-1) C in all.

    equal: f-1 each. class_aware: classes sorted by their train samples n_k, the most first, get c_k =
    floor((f-2) C n_k / N) + 1, what is left is dealt one by one from the first on, and the list is reversed, so that
    the rarest class gets most. reversed: the same list, not reversed. Of equal n_k the smaller number comes first.

    counts (C,): n_k. per_class: f.

    >>> allocated([1000, 599, 359, 215, 129, 77, 46, 27, 16, 10], 20)
    [1, 2, 2, 4, 6, 11, 17, 28, 45, 74]
    """
    classes, total = len(counts), sum(counts)
    if allocation == "equal":
        return [per_class - 1] * classes
    order = sorted(range(classes), key=lambda k: -counts[k])  # stable
    dealt = [(per_class - 2) * classes * counts[k] // total + 1 for k in order]
    for i in range((per_class - 1) * classes - sum(dealt)):
        dealt[i] += 1
    if allocation == "class_aware":
        dealt.reverse()
    found = [0] * classes
    for k, own in zip(order, dealt, strict=True):
        found[k] = own
    return found


def rho(centres: Tensor, theta: float) -> Tensor:
    """rho_k = sqrt(cos^2 theta / m_k + sin^2 theta): the length of the mean of the m_k centres of a class."""
    return (math.cos(theta) ** 2 / centres + math.sin(theta) ** 2).sqrt()


def rows_beside(weight: Tensor, count: int, seed: int) -> Tensor:
    """`count` orthonormal rows (count, d), float64, that are orthogonal to the orthonormal rows of a weight (C, d)."""
    w = weight.detach().to(device="cpu", dtype=torch.float64)
    drawn = torch.randn(w.shape[1], count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    for _ in range(2):  # twice is enough for orthogonality up to rounding
        drawn = torch.linalg.qr(drawn - w.T @ (w @ drawn)).Q
    return drawn.T


@LOSSES.add("multi_center", MultiCenterSettings)
class MultiCenter(CrossEntropy):
    """a_y / m_y sum_{j <= m_y} (1 - <h/|h|, V_yj>)^2 + length (|h| - 1)^2, h the classifier's input, a_k = m_k rho_k.

    V_kj = cos(theta) q_kj + sin(theta) w_k: w_k the fixed rows of the classifier, q_kj rows of their own, all of one
    orthonormal frame of f C rows; m_k of `allocated`, rho_k of `rho`. a_k = m_k rho_k is the sum over
    centres, of weight rho_k each; `weights` and `scale` put other weights of the classes in its place. A sample is
    predicted by the largest <h, w_k>, which no division by |h| changes.

    With unconstrained features h_k ends along the mean centre, cos(h_k, w_k) = sin(theta) / rho_k, and the means of
    classes are orthogonal. `centre_cosine`, a score: the cosine of h and the mean centre of its class; 1 at this
    collapse (NCMC). Yan et al. 2024, whose formulas are read off code that matches the paper in every named number and
    not off its text; that h is batch-normalised (model.head_norm=batch) is taken from there too.

    The rows are fixed before training, orthonormal and without bias: etf=last_k etf.kind=orthogonal etf.bias=false.
    """

    rows = ("orthogonal",)
    stackable = False  # every seed has a frame of its own

    def check(self, model: Classifier, dataset: Dataset) -> None:
        super().check(model, dataset)
        dim, needed = model.etf_sites()[model.classifier].in_features, self.settings.centres * dataset.targets.dim
        if dim < needed:
            raise ValueError(
                f"loss=multi_center needs loss.centres={self.settings.centres} times {dataset.targets.dim} orthogonal "
                f"rows: expected a classifier of {needed} inputs or more, got {dim}"
            )

    def setup(self, model: Classifier, dataset: Dataset) -> None:
        super().setup(model, dataset)
        s, targets = self.settings, dataset.train.targets
        counts = targets.bincount(minlength=dataset.targets.dim).tolist()
        given = {"dtype": dataset.floats, "device": targets.device}
        allocation = allocated(counts, s.centres, s.allocation)
        self.centres = torch.tensor(allocation, **given)  # m_k (C,)
        self.rho = rho(self.centres, s.theta)
        m = torch.tensor(allocated(counts, s.centres), **given)
        aware = m * rho(m, s.theta)
        weight = {
            "sum": self.centres * self.rho,
            "mean": self.rho,
            "equal": torch.ones_like(aware),
            "class_aware": aware,
        }[s.weights]
        if s.scale == "class_aware":
            samples = torch.tensor(counts, **given)
            weight = weight * ((samples @ aware) / (samples @ weight))
        self.factor = weight / self.centres  # a_k / m_k (C,)
        owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(allocation))
        self.owner = owner.to(targets.device)  # class of every q, ((f-1) C,)

    def follow(self, model: Classifier) -> None:
        layer = model.get_submodule(model.classifier)
        self.q = rows_beside(layer.weight, len(self.owner), layer.recipe.seed + 1).to(layer.weight)  # ((f-1) C, d)

    def _cosines(self, out: Output, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """<h/|h|, q_j> of all q (B, (f-1) C), which of them are of the sample's class, <h/|h|, w_y> and |h| (B,)."""
        h = last_feature(out)
        length = linalg.vector_norm(h, dim=1).clamp_min(SMALLEST)
        beside = (h @ self.q.T) / length[:, None]
        return beside, self.owner == batch.targets[:, None], own_cosine(out, batch, length), length

    def each(self, out: Output, batch: Batch) -> Tensor:
        s = self.settings
        beside, own, along, length = self._cosines(out, batch)
        gap = 1 - math.cos(s.theta) * beside - math.sin(s.theta) * along[:, None]
        return self.factor[batch.targets] * (gap.square() * own).sum(1) + s.length * (length - 1).square()

    def scores(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        beside, own, along, _ = self._cosines(out, batch)
        theta, y = self.settings.theta, batch.targets
        mean = math.cos(theta) * (beside * own).sum(1) / self.centres[y] + math.sin(theta) * along
        return super().scores(out, batch) | {"centre_cosine": mean / self.rho[y]}

    def score_names(self, targets: Tensor) -> set[str]:
        return {"loss", "accuracy", "centre_cosine"}
