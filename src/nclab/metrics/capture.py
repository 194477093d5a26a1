"""Capture: the features of named modules of any network, one row a sample, by forward hooks."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Reduction = str | Callable[[Tensor], Tensor]
REDUCTIONS = ("mean", "channels_last", "first", "last", "flatten")


class Capture:
    """Hooks on `layers` that keep, of one forward pass, features (B, d) of each. Use it as a context manager.

    A layer is captured at its output, `classifier` at its input; the classifier's output are the logits. An output that
    is a tuple, list or mapping counts by its first element. Features are copies: an operation in place that follows a
    layer does not change them. Half precision is widened to float32, which is exact.

    Args:
        layers: paths of modules, as in `model.named_modules()`.
        classifier: path of the layer that is captured at its input; None if there is none.
        reduce: how an output becomes (B, d), for all layers, or layer -> how. See `reduced`.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Iterable[str],
        classifier: str | None = None,
        reduce: Reduction | Mapping[str, Reduction] | None = None,
    ):
        self.layers, self.classifier = tuple(layers), classifier
        self._modules = {layer: model.get_submodule(layer) for layer in self.layers}
        self._reduce = reduce if isinstance(reduce, Mapping) else dict.fromkeys(self.layers, reduce)
        self._handles: list[RemovableHandle] = []
        self._batch = 0
        self._features: dict[str, Tensor] = {}
        self._logits: Tensor | None = None

    def __enter__(self) -> "Capture":
        for layer, module in self._modules.items():
            if layer == self.classifier:
                self._handles.append(module.register_forward_pre_hook(self._input_hook(layer), with_kwargs=True))
                self._handles.append(module.register_forward_hook(self._logits_hook(layer)))
            else:
                self._handles.append(module.register_forward_hook(self._output_hook(layer)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def of(self, forward: Callable[[], Any], batch: int) -> tuple[dict[str, Tensor], Tensor | None]:
        """Features (B, d) of every layer, and the classifier's logits (B, C), of one forward pass over `batch` samples.

        Raises ValueError for a layer that the pass does not call, or calls several times.
        """
        self._batch, self._features, self._logits = batch, {}, None
        forward()
        silent = [layer for layer in self.layers if layer not in self._features]
        if silent:
            raise ValueError(
                f"the forward pass did not call layer '{silent[0]}' as a module, so that it has no output to measure"
            )
        features, self._features = {layer: self._features[layer] for layer in self.layers}, {}
        return features, self._logits

    def _keep(self, layer: str, value: Any) -> None:
        if layer in self._features:
            raise ValueError(
                f"the forward pass calls layer '{layer}' several times, and which output counts is not defined; "
                "name a layer that is called once"
            )
        self._features[layer] = self._rows(layer, value)

    def _rows(self, layer: str, value: Any) -> Tensor:
        return reduced(first_tensor(value, layer), self._reduce.get(layer), layer, self._batch)

    def _output_hook(self, layer: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            self._keep(layer, output)

        return hook

    def _input_hook(self, layer: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._keep(layer, args if args else kwargs)

        return hook

    def _logits_hook(self, layer: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            self._logits = self._rows(layer, output)

        return hook


def first_tensor(value: Any, layer: str) -> Tensor:
    """The tensor of a module's output: itself, or the first element of a tuple, list or mapping. Raises ValueError."""
    while not isinstance(value, Tensor):
        elements = list(value.values()) if isinstance(value, Mapping) else value
        if not isinstance(elements, tuple | list) or not elements:
            raise ValueError(f"layer '{layer}' gives {type(value).__name__}: only tensors can be measured")
        value = elements[0]
    return value


def reduced(output: Tensor, how: Reduction | None, layer: str, batch: int) -> Tensor:
    """Features (B, d), float32 or float64, of a module's output for B = `batch` samples; a copy.

    Args:
        output: (B, d) counts as it is, with any name of `how`; else one of the shapes below.
        how: "mean": over space of (B, channels, height, width), over tokens of (B, T, d).
            "channels_last": the mean over all but the first and last dimension, as of (B, height, width, channels).
            "first", "last": that token of (B, T, d). "flatten": everything, (B, -1).
            A callable: output -> (B, d), for what else there is. None: the mean over space, and no choice of tokens.

    Raises:
        ValueError: for a shape that `how` does not cover.
    """
    shape = tuple(output.shape)
    if output.is_nested or not output.is_floating_point():
        raise ValueError(f"layer '{layer}' gives {output.dtype} {output.layout}: only dense floats can be measured")
    wide = output.detach() if output.dtype in (torch.float32, torch.float64) else output.detach().float()
    if callable(how):
        rows = how(wide)
        if not isinstance(rows, Tensor) or rows.ndim != 2 or len(rows) != batch:
            came = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise ValueError(f"reduce of layer '{layer}' must give ({batch}, d) of {shape}, it gave {came}")
    elif len(shape) < 2 or shape[0] != batch:
        raise ValueError(
            f"layer '{layer}' gives shape {shape} for a batch of {batch}: the batch must come first, (B, ...). For "
            f"another layout pass reduce={{'{layer}': callable}}, which makes (B, d) of it"
        )
    elif len(shape) == 2:
        rows = wide
    elif how == "flatten":
        rows = wide.flatten(1)
    elif how == "channels_last":
        rows = wide.flatten(1, -2).mean(1)
    elif len(shape) > 3 and how in (None, "mean"):
        rows = wide.flatten(2).mean(2)
    elif len(shape) == 3 and how in ("mean", "first", "last"):
        rows = wide.mean(1) if how == "mean" else wide[:, 0 if how == "first" else -1]
    else:
        problem = "(B, T, d) needs a choice of tokens" if how is None else f"which reduce={how!r} does not cover"
        valid = [name for name in REDUCTIONS if len(shape) == 3 or name not in ("first", "last")]
        raise ValueError(
            f"layer '{layer}' gives shape {shape}, {problem}; pass reduce={{'{layer}': ...}} with one of "
            f"{', '.join(valid)} or a callable"
        )
    shared = rows.untyped_storage().data_ptr() == output.untyped_storage().data_ptr()
    return rows.clone(memory_format=torch.contiguous_format) if shared else rows.contiguous()
