"""Which linear layers become fixed, and when: the interface of every ETF policy, and the switch itself."""

import hashlib
import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from nclab.etf.frame import FRAMES
from nclab.etf.layer import fix, replace
from nclab.etf.module_path import reads_weight, require_fit_at
from nclab.etf.nearest_head import alone
from nclab.etf.recipe import KINDS, RANKS, ROWS, Recipe, require_frame_of_kind
from nclab.interfaces.batch import Batch, Output
from nclab.interfaces.registry import Registry
from nclab.interfaces.valid import OutOfRange, no_choice

POLICIES = Registry("etf", "nclab.etf.policies")
LARGEST_SCALE = 1e30  # of a layer, and its inverse the smallest: weights are float32


@dataclass(frozen=True)
class Switch:
    """One linear layer became fixed: where (its module path), when (epoch 0 = before training), how, and how many
    parameters the optimizer lost."""

    site: str
    epoch: int
    recipe: Recipe
    scale: float
    parameters_freed: int

    @property
    def layer(self) -> str:
        """The layer's module path."""
        return self.site

    def record(self) -> dict[str, Any]:
        """Flat and JSON-ready."""
        recipe = asdict(self.recipe)
        return {
            "epoch": self.epoch,
            "site": self.site,
            **recipe,
            "scale": self.scale,
            "parameters_freed": self.parameters_freed,
        }


@dataclass(frozen=True)
class Measures:
    """What a policy may know after an epoch: accuracy of the network and NCC accuracy of every stage, by its layer in
    network order, both on the train split and in evaluation mode; and the layers that end in each stage."""

    accuracy: float
    ncc: dict[str, float] = field(default_factory=dict)
    stages: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass
class PolicySettings:
    """Keys common to all policies: the name."""

    name: str = "none"

    @property
    def label(self) -> str:
        """Short form for run names."""
        return self.name

    @property
    def needs_measures(self) -> bool:
        """True where the policy decides by the collapse metrics of a running training."""
        return False

    @property
    def needs_classes(self) -> bool:
        """True where the policy reads the targets of a batch as class numbers."""
        return False

    @property
    def fixed_rows(self) -> str | None:
        """Kind of the classifier's rows, `etf` or `orthogonal`, where they are fixed before training, have length 1 and
        come without bias; else None."""
        return None

    def complete(self, epochs: int, every: int) -> None:
        """Fill in what follows from the length of the training and the epochs between measurements; raise
        ValueError where the policy could never act."""


@dataclass
class FixSettings(PolicySettings):
    """How a layer is fixed. See `nclab.etf.etf_weight` for frame, rank and scale.

    The other kinds are controls: the same layers at the same time, frozen without an ETF. `frozen` keeps them as they
    stand, at the scale of their initialisation; frames, rank and scales then mean nothing. `frozen_scaled` and
    `orthogonal` have the Frobenius norm of the ETF that the same keys give, so that they differ from it in one thing:
    the directions.
    The classifier has keys of its own: over ReLU features a canonical frame reads C of d units and those die.
    """

    # etf | controls, the same layers at the same time: frozen (as they stand) | frozen_scaled (of the ETF's norm) |
    # orthogonal (random orthonormal vectors of the ETF's norm)
    kind: str = "etf"
    # of hidden layers: random (Haar) | without a stored weight: canonical, block, signed_permutation, hadamard
    frame: str = "random"
    classifier_frame: str = "random"  # of the classifier, likewise
    rank: str = "full"  # of hidden layers: full (min(d_in, d_out) vertices) | classes (C vertices, rank C - 1)
    scale: float | None = None  # factor on hidden layers; null: rows of mean square 1, or least squares for nearest
    classifier_scale: float | None = None  # factor on the classifier; null: 1, or least squares for nearest
    bias: bool = True  # biases stay learnable; false: fixed layers have none

    def __post_init__(self) -> None:
        of_frames = (("frame", FRAMES), ("classifier_frame", FRAMES), ("rank", RANKS))
        for key, valid in (("kind", KINDS), *of_frames):
            if getattr(self, key) not in valid:
                raise no_choice(f"etf.{key}", getattr(self, key), valid)
        scales = [f.name for f in fields(self) if f.name.endswith("scale")]
        for key in scales:
            value = getattr(self, key)
            if value is not None and not (value > 0 and math.isfinite(value)):
                said = f"etf.{key} must be above 0 and finite, or null for the default, got {value}"
                raise OutOfRange(said, f"etf.{key}")
            if value is not None and not 1 / LARGEST_SCALE <= value <= LARGEST_SCALE:
                said = f"etf.{key} must be a factor that float32 holds, 1e-30 to 1e+30; got {value}"
                raise OutOfRange(said, f"etf.{key}")
        for key in ("frame", "classifier_frame"):
            require_frame_of_kind(self.kind, getattr(self, key), f"etf.{key}")
        if self.kind == "frozen":
            self._refuse_idle({*scales, *(key for key, _ in of_frames)}, "etf.kind=frozen")

    def _refuse_idle(self, keys: Collection[str], because: str) -> None:
        """Raise ValueError where a key that has no effect is set: it would give one run two names."""
        for f in fields(self):
            if f.name in keys and getattr(self, f.name) != f.default:
                came = getattr(self, f.name)
                raise ValueError(f"etf.{f.name} has no effect with {because}; leave it out (got {came})")

    @property
    def label(self) -> str:
        owner = next(c for c in type(self).__mro__ if "stem" in vars(c))  # a subclass under a name of its own shows it
        inherited = owner.name != self.name and not self.stem.startswith(self.name)
        stem = f"{self.name}_{self.stem}" if inherited else self.stem
        return stem if self.kind == "etf" else f"{self.kind}_{stem}"

    @property
    def stem(self) -> str:
        """Short form of which layers are fixed, for run names."""
        return self.name

    def scale_of(self, role: str) -> float | None:
        """Factor on the weight of a layer of this role; None: that of `etf_weight`."""
        return self.classifier_scale if role == "classifier" else self.scale

    def recipe(self, model: nn.Module, site: str, seed: int) -> Recipe:
        """The recipe for `site`; the rows of a classifier are the simplex ETF."""
        role = model.etf_roles()[site]
        classifier = role == "classifier"
        return Recipe(
            kind=self.kind,
            frame=self.classifier_frame if classifier else self.frame,
            rank=ROWS if classifier else self.rank,
            scale=self.scale_of(role),
            seed=site_seed(seed, site),
            num_classes=model.num_classes,
            bias=self.bias,
        )


def site_seed(seed: int, site: str) -> int:
    """Seed of one site's frame: frames of different sites and runs are independent."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{site}".encode()).digest()[:4], "big")


def learnable(parameters: Iterable[nn.Parameter]) -> int:
    """How many numbers the optimizer may change."""
    return sum(p.numel() for p in parameters if p.requires_grad)


def forget(optimizer: Optimizer, gone: Iterable[nn.Parameter]) -> None:
    """Remove exactly these parameters and their state from the optimizer; all others keep their momentum."""
    ids = {id(p) for p in gone}
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if id(p) not in ids]
    for parameter in [p for p in optimizer.state if id(p) in ids]:
        del optimizer.state[parameter]


class ETFPolicy:
    """Base of all policies: fixes nothing. Subclasses override `setup`, `before_loss`, `after_step`, `after_epoch`.

    setup(model, seed): once, before training. before_loss(model, batch, out, total): in every training step, between
    the model's forward pass and the loss; for a head that is set by the batch at hand. It returns the output that the
    loss reads, and gradients flow through it: `out` itself, or another `Output`. total(tensor) is the sum over the
    processes of the run, gradients likewise; all call it at the same moments. after_step(model, batch, out, step):
    after every optimizer step; `step` counts the steps of the run from 0, `batch` and `out` are those of the step; for
    layers that follow the training without a switch. after_epoch(model, optimizer, measures, epoch): after every epoch
    but the last; `measures` is None for an epoch that was not measured. setup and after_epoch replace layers in place
    and return the switches. What a policy remembers is in `state_dict()` (plain numbers and strings) or in buffers of
    the layers it made, so that a resumed run decides as if it had never stopped.
    """

    def __init__(self, settings: PolicySettings):
        self.settings = settings
        self.seed = 0

    @property
    def stackable(self) -> bool:
        """True where many seeds may train as one batched model: neither `before_loss` nor `after_step` has to see each
        model by itself."""
        return not self.acts_in_steps

    @property
    def acts_in_steps(self) -> bool:
        """True where `before_loss` or `after_step` does something."""
        own = type(self)
        return own.before_loss is not ETFPolicy.before_loss or own.after_step is not ETFPolicy.after_step

    @property
    def may_switch(self) -> bool:
        """True where `after_epoch` may fix a layer, so that the model before it is worth keeping for a comparison."""
        return type(self).after_epoch is not ETFPolicy.after_epoch

    def may_switch_after(self, model: nn.Module, epoch: int) -> bool:
        """True where `after_epoch` may fix a layer after this epoch: the model is then copied before it. A policy that
        knows its epochs should override this; by default every epoch is one of them."""
        return self.may_switch

    def candidates(self, model: nn.Module) -> dict[str, int]:
        """Layers that `after_epoch` may fix later on -> the first epoch after which it may. For what is said at the
        start of a run; a policy that overrides `after_epoch` should override this too."""
        return {}

    def check(self, model: nn.Module) -> None:
        """Raise ValueError where the settings cannot be met by the model; changes nothing."""

    def setup(self, model: nn.Module, seed: int) -> list[Switch]:
        self.check(model)
        self.seed = seed
        return []

    def before_loss(
        self, model: nn.Module, batch: Batch, out: Output, total: Callable[[Tensor], Tensor] = alone
    ) -> Output:
        return out

    def after_step(self, model: nn.Module, batch: Batch, out: Output, step: int) -> None:
        """Nothing."""

    def after_epoch(
        self, model: nn.Module, optimizer: Optimizer, measures: Measures | None, epoch: int
    ) -> list[Switch]:
        return []

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.seed = state["seed"]


def check_before_training(settings: FixSettings) -> None:
    """Raise ValueError for frame `nearest`: before training there is nothing learnt to be near to."""
    if settings.kind != "frozen" and "nearest" in (settings.frame, settings.classifier_frame):
        valid = ", ".join(frame for frame in FRAMES if frame != "nearest")
        raise ValueError(
            f"frame 'nearest' follows a learnt weight, and etf={settings.name} fixes layers before training; "
            f"valid here: {valid}"
        )


def switch(model: nn.Module, site: str, recipe: Recipe, epoch: int, optimizer: Optimizer | None = None) -> Switch:
    """Fix the layer at `site` now; with an optimizer, make it forget what is no longer learnable."""
    linear = model.get_submodule(site)
    fixed = fix(linear, recipe, dense=reads_weight(model, site))
    kept = {id(p) for p in fixed.parameters()}
    gone = [p for p in linear.parameters() if id(p) not in kept]
    replace(model, site, fixed)
    if optimizer is not None:
        forget(optimizer, gone)
    return Switch(site, epoch, fixed.recipe, fixed.scale, learnable(gone))


def check_fits(model: nn.Module, sites: Iterable[str], settings: FixSettings) -> None:
    """Raise ValueError, naming the layer, where a frame does not fit a layer; changes nothing."""
    for site in sites:
        require_fit_at(site, model.etf_sites()[site], settings.recipe(model, site, seed=0))
