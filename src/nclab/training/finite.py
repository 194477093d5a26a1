"""Where numbers stopped being numbers: the first layer of a network whose weights or output are not finite."""

import torch
from torch import Tensor, nn

from nclab.models import Classifier


def is_finite(tensors: list[Tensor]) -> bool:
    """Whether all floating-point numbers are finite and their squares too, which sums of them need. Waits for the
    device once."""
    sums = [t.detach().square().sum() for t in tensors if t.is_floating_point()]
    return bool(torch.stack(sums).isfinite().all()) if sums else True


@torch.no_grad()
def first_not_finite(model: Classifier, x: Tensor | None = None) -> str | None:
    """The first layer in network order whose weight or, for the inputs x (B, ...), output is not finite: "weight of
    fc2", "output of block1.attn". Without x only weights are looked at; None if all is finite.

    Layers count in the order in which a model registers its modules, which is that of its forward pass.
    """
    outputs: dict[str, Tensor] = {}
    if x is not None:
        logits, features = model(x)
        outputs = {**features, model.classifier: logits}
    return _first(model, "", outputs)


def _first(module: nn.Module, name: str, outputs: dict[str, Tensor]) -> str | None:
    """A module's own numbers come before those of its parts, its output after them."""
    for key, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        if not is_finite([tensor]):
            return f"{key} of {name or 'the model'}"
    for key, part in module.named_children():
        if found := _first(part, f"{name}.{key}" if name else key, outputs):
            return found
    return f"output of {name}" if name in outputs and not outputs[name].isfinite().all() else None
