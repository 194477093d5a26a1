"""measure_model: collapse metrics of named layers of any network over a loader."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nclab.metrics.capture import REDUCTIONS, Capture, Reduction
from nclab.metrics.checks import class_count, tensor_of
from nclab.metrics.collapse import classifier_of
from nclab.metrics.geometry import ClassMeans
from nclab.metrics.meter import CollapseMeter
from nclab.metrics.precision import full_precision

GIB = 2**30
AUTO = "auto"
# Largest difference between the class means of two forward passes over the same samples, in units of the largest
# mean: above what the order of a sum or a half-precision kernel changes, below what random augmentation does.
SAME_MEANS = 1e-3
Batch = tuple[dict[str, Tensor], Tensor, Tensor | None]  # features (B, d) of every layer, labels (B,), logits (B, C)


class ModelMeasures(dict[str, dict[str, float]]):
    """layer -> column -> value; `pandas.DataFrame(measures).T` is a table with one row a layer.

    class_means: of every layer; what `measure_model(..., train=)` reads. classifier: the layer that was measured at its
    input, with the columns of its weight; None if there was none.
    """

    def __init__(
        self, values: Mapping[str, dict[str, float]], class_means: Mapping[str, ClassMeans], classifier: str | None
    ):
        super().__init__(values)
        self.class_means = dict(class_means)
        self.classifier = classifier


def measure_model(
    model: nn.Module,
    loader: Iterable[Any],
    layers: Sequence[str],
    num_classes: int,
    *,
    classifier: str | None = AUTO,
    train: ModelMeasures | None = None,
    reduce: Reduction | Mapping[str, Reduction] | None = None,
    prepare: Callable[[Any], tuple[Any, Tensor]] | None = None,
    device: torch.device | str | None = None,
    memory_gib: float = 2.0,
) -> ModelMeasures:
    """Collapse metrics of named layers of any `nn.Module`, in evaluation mode and full float32 precision.

    The model is not changed: training modes, hooks and the grad mode are afterwards what they were, also after an
    error. Formulas: `nclab.metrics.collapse`. Every layer is measured at its output, except the classifier: its row is
    measured at its *input*, the last features, where NC2 of the weight, NC3 and NC4 are defined (Papyan et al. 2020,
    arXiv 2008.08186), with the logits that it puts out.

    Args:
        model: any module; it stays where it is.
        loader: batches (inputs, labels), or mappings with the key `labels` as of Hugging Face. inputs: a tensor; a
            tuple or list of positional arguments; a mapping of keyword arguments. labels: (B,), integers in 0..C-1. It
            is passed over twice where the features exceed `memory_gib`, so that a generator is refused. It may shuffle;
            with random augmentation the numbers are those of one draw, and a second pass is refused.
        layers: module paths, as in `model.named_modules()`: "layer3", "encoder.layers.0".
        num_classes: C >= 2.
        classifier: path of the linear layer whose weight (C, d) reads the last features. "auto": the last of `layers`
            with `out_features` = C and such a weight, if there is one. None: there is none, all layers are measured at
            their output. It gets a row, also if `layers` does not name it.
        train: what this function returned for the train split, if this is another one: metrics are taken against its
            class means, and this split may lack classes (see `CollapseMeter`).
        reduce: how outputs of more than two dimensions become (B, d), for all layers or layer -> how.
            Default: (B, channels, height, width) is averaged over space. (B, T, d) needs a choice: "first" (the class
            token), "last", "mean" (over all tokens, padding included). Also "flatten"; "channels_last": the mean over
            the middle dimensions, as of (B, height, width, channels); or a callable output -> (B, d), e.g.
            `lambda out: out.mean(0)` where a module has batch_first=False.
        prepare: batch -> (inputs, labels), for a loader of anything else.
        device: where inputs go; by default where the model's first parameter is.
        memory_gib: features up to this size are kept, so that one forward pass serves both passes of the metrics.
            Larger ones cost a second forward pass.

    Returns:
        layer -> column -> value, with the class means beside it. Only the row of the classifier has the columns of W.

    Raises:
        ValueError: for an unknown layer (with the nearest names), one that a forward pass calls not once, a shape that
            needs `reduce`, a loader that is empty, exhausts itself or gives other samples in a second pass, and all
            that `CollapseMeter` refuses.

    >>> import torch
    >>> from nclab.metrics import measure_model
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    >>> labels = torch.arange(30) % 3
    >>> inputs = torch.eye(3, 4)[labels] + 0.1 * torch.randn(30, 4)
    >>> batches = list(zip(inputs.split(10), labels.split(10)))
    >>> values = measure_model(model, batches, layers=["0", "2"], num_classes=3)
    >>> print(list(values), values["0"]["rank"], "nc3" in values["0"], "nc3" in values["2"])
    ['0', '2'] 2.0 False True
    >>> test = measure_model(model, batches[:1], layers=["0", "2"], num_classes=3, train=values)
    >>> test["2"]["nc3"] == values["2"]["nc3"]
    True
    """
    num_classes = class_count(num_classes)
    names, head = _layers(model, layers, classifier, num_classes)
    _check_reduce(reduce, names)
    _check_train(train, names, head)
    if isinstance(loader, Iterator):  # iter() of a DataLoader would draw random numbers and start its workers
        raise ValueError(
            f"loader is a {type(loader).__name__}, which can be read only once; give a DataLoader or a list of batches"
        )
    if device is None:
        device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    weight, bias = (None, None) if head is None else classifier_of(model.get_submodule(head))

    def meters() -> dict[str, CollapseMeter]:
        return {layer: CollapseMeter(num_classes, train and train.class_means[layer]) for layer in names}

    with _evaluation(model), Capture(model, names, head, reduce) as capture:
        batches: Iterable[Batch] = _Forward(model, loader, capture, prepare or _inputs_and_labels, torch.device(device))
        own, again = meters(), None
        if train is None:
            kept = _means_pass(batches, own, memory_gib * GIB)
            batches, again = (batches, meters()) if kept is None else (kept, None)
        for features, labels, logits in batches:
            for layer, meter in own.items():
                y = labels.to(features[layer].device)
                meter.add_spread(features[layer], y, *((logits, weight) if layer == head else ()))
                if again is not None:
                    again[layer].add_means(features[layer], y)
    values = {layer: meter.compute(weight, bias) if layer == head else meter.compute() for layer, meter in own.items()}
    class_means = {layer: meter.class_means for layer, meter in own.items()}
    if again is not None:
        _check_same_features(class_means, {layer: meter.class_means for layer, meter in again.items()})
    return ModelMeasures(values, class_means, head)


class _Forward:
    """The forward passes over a loader, as often as it is iterated."""

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        capture: Capture,
        prepare: Callable[[Any], tuple[Any, Tensor]],
        device: torch.device,
    ):
        self.model, self.loader, self.capture, self.prepare, self.device = model, loader, capture, prepare, device

    def __iter__(self) -> Iterator[Batch]:
        seen = 0
        for batch in self.loader:
            inputs, labels = self.prepare(batch)
            labels = tensor_of(labels, "labels").to(self.device)
            inputs = _moved(inputs, self.device)
            with full_precision(self.device.type):
                features, logits = self.capture.of(lambda x=inputs: _call(self.model, x), len(labels))
            yield features, labels, logits
            seen += 1
        if not seen:
            raise ValueError("the loader gave no batch")


def _means_pass(batches: Iterable[Batch], meters: dict[str, CollapseMeter], budget: float) -> list[Batch] | None:
    """Pass 1; returns the batches with their features, or None where they exceed `budget` bytes."""
    kept, size = [], 0
    for features, labels, logits in batches:
        for layer, meter in meters.items():
            meter.add_means(features[layer], labels.to(features[layer].device))
        if kept is not None:
            tensors = (*features.values(), *(() if logits is None else (logits,)))
            size += sum(t.numel() * t.element_size() for t in tensors)
            kept.append((features, labels, logits))
            kept = kept if size <= budget else None
    return kept


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module has the mode that it had.

    The fast path of `nn.TransformerEncoder` is off: it computes layers without calling their modules, and hands padded
    batches on as nested tensors."""
    modes = [(module, module.training) for module in model.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        model.eval()
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        model.train(modes[0][1])  # some modules do more than set a flag
        for module, training in modes:
            module.training = training


def _layers(
    model: nn.Module, layers: Sequence[str], classifier: str | None, num_classes: int
) -> tuple[list[str], str | None]:
    """The layers to measure, and which of them is the classifier. Raises ValueError."""
    if isinstance(layers, str) or not layers:
        raise ValueError(f"layers must be a list of module paths, got {layers!r}")
    names = list(layers)
    modules = dict(model.named_modules())
    for name in (*names, *([classifier] if classifier not in (None, AUTO) else ())):
        if name not in modules or not name:
            near = difflib.get_close_matches(str(name), modules, n=5, cutoff=0.4) or [n for n in modules if n][:10]
            raise ValueError(f"the model has no layer {name!r}; it has {', '.join(near)} (see model.named_modules())")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"layers names {', '.join(twice)} more than once")
    if classifier == AUTO:
        linear = [name for name in names if getattr(modules[name], "out_features", None) == num_classes]
        classifier = next((n for n in reversed(linear) if _has_weight(modules[n], num_classes)), None)
    elif classifier is not None:
        if not _has_weight(modules[classifier], num_classes):
            weight = getattr(modules[classifier], "weight", None)
            came = f"a weight {tuple(weight.shape)}" if isinstance(weight, Tensor) else "no weight"
            raise ValueError(f"classifier '{classifier}' must have a weight ({num_classes}, d), it has {came}")
        names += [classifier] if classifier not in names else []
    return names, classifier


def _has_weight(module: nn.Module, num_classes: int) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2 and len(weight) == num_classes


def _check_reduce(reduce: Reduction | Mapping[str, Reduction] | None, names: list[str]) -> None:
    by_layer = reduce if isinstance(reduce, Mapping) else {names[0]: reduce}
    for layer, how in by_layer.items():
        if layer not in names:
            raise ValueError(f"reduce names layer '{layer}', which is not measured; layers: {', '.join(names)}")
        if how is not None and not callable(how) and how not in REDUCTIONS:
            raise ValueError(f"reduce must be one of {', '.join(REDUCTIONS)} or a callable, got {how!r}")


def _check_train(train: ModelMeasures | None, names: list[str], classifier: str | None) -> None:
    if train is None:
        return
    if not isinstance(train, ModelMeasures):
        raise ValueError(f"train must be what measure_model returned for the train split, got {type(train).__name__}")
    missing = [name for name in names if name not in train.class_means]
    if missing:
        raise ValueError(f"train has no class means of layer {', '.join(missing)}; measure both splits alike")
    if train.classifier != classifier:
        raise ValueError(f"train was measured with classifier={train.classifier!r}, this split with {classifier!r}")


def _check_same_features(first: Mapping[str, ClassMeans], second: Mapping[str, ClassMeans]) -> None:
    for layer, means in first.items():
        difference = (second[layer].means - means.means).abs().max()
        if difference > SAME_MEANS * means.means.abs().max():
            raise ValueError(
                f"the second pass over the loader gave other features at layer '{layer}' (class means moved by "
                f"{float(difference):.2g}): switch random augmentation and sampling off, or keep the features of the "
                "first pass with a larger memory_gib"
            )


def _inputs_and_labels(batch: Any) -> tuple[Any, Tensor]:
    """Inputs and labels of a usual batch. Raises ValueError for others."""
    if isinstance(batch, Mapping):
        if "labels" in batch:
            return {key: value for key, value in batch.items() if key != "labels"}, batch["labels"]
        came = f"a mapping with keys {', '.join(map(str, batch))}"
    elif isinstance(batch, tuple | list):
        if len(batch) == 2:
            return batch[0], batch[1]
        came = f"{len(batch)} elements"
    else:
        came = type(batch).__name__
    raise ValueError(f"a batch must be (inputs, labels), or a mapping with `labels`, got {came}; pass prepare=")


def _moved(value: Any, device: torch.device) -> Any:
    """The tensors in nested tuples, lists and mappings, on the device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(element, device) for key, element in value.items()}
    if isinstance(value, tuple | list):
        return [_moved(element, device) for element in value]
    return value


def _call(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)
