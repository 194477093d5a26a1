"""Fix linear layers of a model that is not ours: `convert` at once, `AdaptiveETF` while it trains."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from torch import nn
from torch.optim import Optimizer

from nclab.etf.depth_rule import DepthRule, check_rule, may_become_fixed
from nclab.etf.layer import replace
from nclab.etf.module_path import check_layer, linear_names
from nclab.etf.policy import Measures, Switch, site_seed, switch
from nclab.etf.recipe import ROWS, Recipe
from nclab.etf.state import fixed_layers, pack, unpack


def convert(
    model: nn.Module,
    names: str | Iterable[str],
    *,
    frame: str = "random",
    seed: int = 0,
    rank: str = "full",
    scale: float | None = None,
    kind: str = "etf",
    bias: bool = True,
    classifier: str | None = None,
    num_classes: int | None = None,
    optimizer: Optimizer | None = None,
) -> list[Switch]:
    """Fix linear layers of any model to simplex ETFs, in place: W = s E, E of unit vectors at cosine -1/(K-1).

    Every layer gets a frame of its own, drawn from `seed` and its name. All names are checked first: after an error the
    model is as it was. The state dict keeps its keys (see `FixedLinear`). Convert before wrapping the model in DDP,
    FSDP or torch.compile.

    Args:
        names: module paths of nn.Linear layers, such as "encoder.layers.0.linear1".
        frame: `random` (Haar), `nearest` (to the present weight), `canonical`, `block`, `signed_permutation` or
            `hadamard`. The last four are applied without a stored matrix, but where torch's fused transformer kernels
            read the matrix itself (out_proj of nn.MultiheadAttention, linear1 and linear2 of
            nn.TransformerEncoderLayer).
        seed: of the frames.
        rank: `full`, min(d_in, d_out) vertices, or `classes`, a product of two ETFs on `num_classes` vertices.
        scale: factor on the weight; None: the least-squares one for `nearest`, else the one that keeps the variance.
        kind: `etf`, or a control: `frozen`, the layers frozen as they stand; `frozen_scaled`, that at the norm of the
            ETF; `orthogonal`, orthonormal vectors at the norm of the ETF.
        bias: True: the bias stays the same learnable Parameter; False: it is dropped.
        classifier: the one of `names` whose rows must be the simplex. At rank `full` that is so for every layer with
            out_features < in_features, as nearly all classifiers, so that None fits these; name it where
            out_features >= in_features, or beside rank `classes`.
        num_classes: C, for rank `classes`.
        optimizer: forgets what is no longer learnable; give it where it already exists.

    Returns: one Switch a layer, in the order of `names`, with the recipe and the number of parameters freed.
    Raises ValueError for an unknown path, a module that is no nn.Linear, a layer that is already fixed, a frame that
    does not fit, and a weight shared with another module.

    >>> model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 10))
    >>> [switch.parameters_freed for switch in convert(model, ["0", "2"], seed=1)]
    [1280, 640]
    >>> model[2]
    ETFLinear(64, 10, frame=random, rank=full, scale=1)
    """
    names = [names] if isinstance(names, str) else list(names)
    if kind == "frozen" and (frame, rank, scale) != ("random", "full", None):
        raise ValueError(f"frame, rank and scale have no effect with kind='frozen'; got {frame}, {rank}, {scale}")
    recipes = _recipes(names, frame, seed, rank, scale, kind, bias, classifier, num_classes)
    for name, recipe in recipes.items():
        check_layer(model, name, recipe)
    return [switch(model, name, recipe, 0, optimizer) for name, recipe in recipes.items()]


class AdaptiveETF:
    """Fix the layers beyond the effective depth while a model trains, in a training loop of one's own: etf=adaptive of
    nclab for any model (arXiv 2412.00884, Figure 2; the paper's threshold and patience are not published).

    Effective depth = the first stage from which on the train NCC accuracy of every stage has stayed at or above the
    threshold for `patience` epochs. The layers of later stages become fixed; the first stage never.

    Args:
        model: any nn.Module; its layers are replaced in place.
        stages: the points where NCC accuracy is measured, from input to output. A list of module names: a stage is then
            every linear layer in that module (none in a block of convolutions, which counts for the depth only). Or a
            mapping from the names of the measures to lists of module paths.
        threshold: on train NCC accuracy, in (0, 1]; with `relative`, times the network's train accuracy.
        patience, start, pause: epochs that a stage must stay above it; first epoch that may switch; least number of
            epochs between two switches.
        order: `deepest_first`, one stage at a time from the output, or `at_once`.
        frame, rank, scale, kind, bias, seed, classifier, num_classes: as in `convert`; `nearest` moves the function
            least.

    Raises ValueError as `convert`, for every layer that may become fixed.

    >>> model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> optimizer = __import__("torch").optim.SGD(model.parameters(), lr=0.1)
    >>> adaptive = AdaptiveETF(model, ["0", "2"], patience=2)
    >>> for epoch in (1, 2):  # train, then measure
    ...     switches = adaptive.update({"0": 0.95, "2": 0.99}, optimizer, epoch)
    >>> switches[0].layer, switches[0].epoch
    ('2', 2)
    """

    def __init__(
        self,
        model: nn.Module,
        stages: Sequence[str] | Mapping[str, Sequence[str]],
        *,
        threshold: float = 0.9,
        relative: bool = False,
        patience: int = 5,
        start: int = 1,
        pause: int = 1,
        order: str = "deepest_first",
        frame: str = "nearest",
        rank: str = "full",
        scale: float | None = None,
        kind: str = "etf",
        bias: bool = True,
        seed: int = 0,
        classifier: str | None = None,
        num_classes: int | None = None,
    ):
        settings = SimpleNamespace(
            threshold=threshold, relative=relative, patience=patience, start=start, pause=pause, order=order
        )
        check_rule(settings)
        if kind == "frozen" and frame == "nearest":
            frame = "random"  # the default; a frozen layer has none
        if isinstance(stages, str) or len(stages) < 2:
            raise ValueError(f"expected at least 2 stages, from input to output, got {stages!r}")
        self.model = model
        self.stages: dict[str, list[str]] = (
            {stage: list(names) for stage, names in stages.items()}
            if isinstance(stages, Mapping)
            else {name: self._inside(name) for name in stages}
        )
        if len(self.stages) != len(stages):
            raise ValueError(f"a stage is named twice: {', '.join(stages)}")
        later = [name for names in list(self.stages.values())[1:] for name in names]
        if not later:
            raise ValueError(f"no stage after '{next(iter(self.stages))}' has a linear layer that could become fixed")
        self._recipes = _recipes(later, frame, seed, rank, scale, kind, bias, classifier, num_classes)
        for name, recipe in self._recipes.items():
            if name not in fixed_layers(model):
                check_layer(model, name, recipe)
        self._rule = DepthRule(settings)

    def _inside(self, name: str) -> list[str]:
        try:
            return linear_names(self.model.get_submodule(name), name)
        except AttributeError:
            valid = ", ".join(child for child, _ in self.model.named_children())
            raise ValueError(
                f"the model has no module '{name}'; its parts: {valid}. For measures with names of their own give a "
                "mapping from these to the layers"
            ) from None

    def update(
        self, measures: Measures | Mapping[str, Any] | None, optimizer: Optimizer | None, epoch: int
    ) -> list[Switch]:
        """Decide after an epoch, and fix the layers that are due.

        Args:
            measures: stage -> train NCC accuracy, or -> a mapping with "ncc_accuracy", as `nclab.metrics.measure_model`
                gives with `classifier=None` (a classifier is measured at its input, which is the output of the stage
                before it); other layers are ignored. With `relative` the network's train accuracy must be in it as
                ["network"]["accuracy"]. None: not measured, nothing happens.
            optimizer: forgets the weights that are no longer learnable.
            epoch: its number; patience and pause count with it.

        Returns: the switches of this epoch. Raises ValueError where the NCC accuracy of a stage is missing or that of
        its input.
        """
        if measures is None:
            return []
        ncc, accuracy = self._read(measures)
        names = self._rule.choose(ncc, accuracy, epoch, self._candidates)
        return [switch(self.model, name, self._recipes[name], epoch, optimizer) for name in names]

    def _read(self, measures: Measures | Mapping[str, Any]) -> tuple[dict[str, float], float]:
        """NCC accuracy of every stage in network order, and the accuracy of the network."""
        ours = isinstance(measures, Measures)
        values = measures.ncc if ours else measures
        missing = [stage for stage in self.stages if stage not in values]
        if missing:
            raise ValueError(
                f"no NCC accuracy of stage {', '.join(missing)}; measured: {', '.join(values) or 'nothing'}"
            )
        if (at_input := getattr(measures, "classifier", None)) in self.stages:
            raise ValueError(
                f"expected the NCC accuracy behind stage '{at_input}', got that of its input, where measure_model "
                "measures a classifier; give it classifier=None"
            )
        ncc = {}
        for stage in self.stages:
            value = values[stage]
            if isinstance(value, Mapping) and "ncc_accuracy" not in value:
                raise ValueError(f"stage '{stage}' has no ncc_accuracy; measured: {', '.join(value)}")
            ncc[stage] = float(value["ncc_accuracy"] if isinstance(value, Mapping) else value)
        if ours:
            return ncc, measures.accuracy
        network = values.get("network", {})
        if self._rule.settings.relative and "accuracy" not in network:
            raise ValueError("relative=True needs the train accuracy as measures['network']['accuracy']")
        return ncc, float(network.get("accuracy", 1.0))

    def _candidates(self, stage: str) -> list[str]:
        return [name for name in self.stages[stage] if may_become_fixed(self.model.get_submodule(name))]

    def state_dict(self) -> dict[str, Any]:
        """What the next decision depends on, and the layers that are fixed; `torch.load` reads it with weights_only."""
        layers = fixed_layers(self.model)
        return {
            **self._rule.state_dict(),
            "fixed": {name: pack(layers[name]) for name in self._recipes if name in layers},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken: also fixes the layers that were fixed then, in a freshly built model.

        Call it before the optimizer is built; the model's own state may be loaded before or after. Raises ValueError,
        before anything changes, where the state knows other layers, or the model has a fixed one that the state leaves
        learnable.
        """
        strange = [name for name in state["fixed"] if name not in self._recipes]
        if strange:
            raise ValueError(f"the state fixes {', '.join(strange)}, which no stage holds: {', '.join(self._recipes)}")
        ahead = [name for name in self._recipes if name in fixed_layers(self.model) and name not in state["fixed"]]
        if ahead:
            raise ValueError(f"the state leaves {', '.join(ahead)} learnable; load it into a freshly built model")
        self._rule.load_state_dict(state)
        for name, packed in state["fixed"].items():
            replace(self.model, name, unpack(self.model.get_submodule(name), packed))


def _recipes(
    names: Sequence[str],
    frame: str,
    seed: int,
    rank: str,
    scale: float | None,
    kind: str,
    bias: bool,
    classifier: str | None,
    num_classes: int | None,
) -> dict[str, Recipe]:
    """Name -> recipe. Raises ValueError for a name given twice and arguments that do not go together."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"a layer can be fixed only once, got {', '.join(repeated)} twice")
    if classifier is not None and classifier not in names:
        raise ValueError(f"classifier must be one of the layers to fix ({', '.join(names)}), got '{classifier}'")
    if rank == "classes" and kind != "frozen" and num_classes is None:
        raise ValueError("rank 'classes' needs num_classes, the number of vertices; got None")
    if scale is not None and not scale > 0:
        raise ValueError(f"scale must be above 0, or None for the default, got {scale}")
    seed = operator.index(seed)  # a generator, say, would be hashed by its address
    return {
        name: Recipe(
            kind=kind,
            frame=frame,
            rank=ROWS if name == classifier else rank,
            scale=scale,
            seed=site_seed(seed, name),
            num_classes=num_classes or 0,
            bias=bias,
        )
        for name in names
    }
