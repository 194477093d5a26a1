"""metrics.suite=[curvature]: gradient and least curvature of the whole objective at the present weights."""

import torch
from torch import Tensor, distributed
from torch.func import functional_call

from nclab.interfaces.batch import Batch, Output
from nclab.metrics.suite import METRICS, Context, Metric, SuiteSettings, require_classes
from nclab.theory.curvature import gradient_norm, least_eigenvalue


@METRICS.add("curvature", SuiteSettings)
class Curvature(Metric):
    """Of the network, train split: `gradient_norm`, |gradient|, and `hessian_least`, the least eigenvalue of the
    Hessian, of the loss and its own penalty, over all parameters that learn.

    A critical point has gradient_norm 0; it is a strict saddle where hessian_least is below 0. At a minimum
    hessian_least is 0 up to rounding: turning features and weights together changes nothing. Needs precision=float64.
    """

    def __init__(self, settings: SuiteSettings | None = None):
        self.context: Context | None = None

    def start(self, context: Context) -> None:
        require_classes("curvature", context)
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            raise ValueError(f"metrics.suite: curvature expects one process, got {distributed.get_world_size()}")
        for name, p in context.model.named_parameters():
            if p.dtype != torch.float64:
                raise ValueError(f"metrics.suite: curvature needs precision=float64, got {name} of {p.dtype}")
        self.context = context
        self.batches: list[Batch] = []

    def wanted(self, n_pass: int) -> set[str]:
        return {"input"}

    def names(self, split: str) -> set[str]:
        return {"gradient_norm", "hessian_least"} if split == "train" else set()

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        if self.context.train is None:
            self.batches.append(batch)

    def sums(self) -> Tensor:
        return torch.zeros(1, dtype=torch.float64)

    def compute(self, reduced: Tensor) -> dict[str, float]:
        if self.context.train is not None:
            return {}
        parts = zip(*((b.inputs, b.targets, b.index) for b in self.batches), strict=True)
        inputs, targets, index = map(torch.cat, parts)
        whole = Batch(inputs, targets, index, len(inputs))
        model, penalties = self.context.model, self.context.penalties
        point = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

        def objective(parameters: dict[str, Tensor]) -> Tensor:
            loss = self.context.loss(functional_call(model, parameters, (inputs,)), whole)
            return loss + sum(rate / 2 * parameters[name].square().sum() for name, rate in penalties.items())

        return {"gradient_norm": gradient_norm(objective, point), "hessian_least": least_eigenvalue(objective, point)}
