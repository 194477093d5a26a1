"""measure_model on other people's networks, against a float64 reference on features that this file hooks itself."""

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from collapse_reference import reference
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import VisionTransformer, resnet18

from nclab.metrics import ModelMeasures, measure_model
from nclab.training.step import set_products

C = 4


def batches(*shape: int, n: int = 24, size: int = 7, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """n samples of C classes in batches of unequal size."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % C
    x = 2 * torch.randn(C, *shape, generator=torch.Generator().manual_seed(9))[y] + torch.randn(n, *shape, generator=g)
    return list(zip(x.split(size), y.split(size), strict=True))


def in_batches(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    return list(zip(*(t.split(7) for t in tensors), strict=True))


def hooked(model: nn.Module, loader: list, path: str, take: Any, inputs: bool = False) -> Tensor:
    """Features (N, d) in float64 of what goes into or comes out of a module; `take` makes (B, d) of it."""
    seen = []

    def hook(_module: nn.Module, args: tuple, output: Any) -> None:
        value = args[0] if inputs else output
        seen.append(take(value[0] if isinstance(value, tuple) else value).double().clone())

    handle = model.get_submodule(path).register_forward_hook(hook)
    model.eval()
    with torch.no_grad():
        for x, _ in loader:
            model(**x) if isinstance(x, dict) else model(x)
    handle.remove()
    return torch.cat(seen)


def check(values: dict[str, float], h: Tensor, loader: list, head: nn.Linear | None = None) -> None:
    y = torch.cat([labels for _, labels in loader])
    truth = reference(h, y, C, *(() if head is None else (head.weight.detach(), head.bias.detach())))
    assert set(values) == set(truth)
    for name, value in truth.items():
        assert values[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name


def network(*last: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(inplace=True), nn.Linear(12, 5), *last, nn.Linear(5, C))


def test_resnet18():
    torch.manual_seed(0)
    model, loader = resnet18(num_classes=C), batches(3, 32, 32)
    values = measure_model(model, loader, layers=["layer1.0.bn1", "layer3", "avgpool", "fc"], num_classes=C)
    assert list(values) == ["layer1.0.bn1", "layer3", "avgpool", "fc"]
    for path in ("layer1.0.bn1", "layer3", "avgpool"):  # a ReLU in place follows the first
        check(values[path], hooked(model, loader, path, lambda t: t.mean((2, 3))), loader)
    check(values["fc"], hooked(model, loader, "fc", lambda t: t, inputs=True), loader, model.fc)
    table = pd.DataFrame(values).T
    assert table.loc["fc", "nc1"] == pytest.approx(table.loc["avgpool", "nc1"], rel=1e-4)
    assert np.isnan(table.loc["layer3", "nc3"])


def test_vision_transformer():
    torch.manual_seed(0)
    model = VisionTransformer(16, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=C)
    nn.init.normal_(model.heads.head.weight)  # torchvision starts it at 0
    loader = batches(3, 16, 16)
    block = "encoder.layers.encoder_layer_0"
    layers = [block, f"{block}.self_attention", "heads.head"]  # the attention gives a tuple
    values = measure_model(model, loader, layers, C, reduce="first")
    for path in layers[:2]:
        check(values[path], hooked(model, loader, path, lambda t: t[:, 0]), loader)
    check(values["heads.head"], hooked(model, loader, "heads.head", lambda t: t, inputs=True), loader, model.heads.head)
    mean = measure_model(model, loader, [block, "heads.head"], C, reduce={block: "mean"})
    check(mean[block], hooked(model, loader, block, lambda t: t.mean(1)), loader)


class Encoder(nn.Module):
    def __init__(self, batch_first: bool = True):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=batch_first)
        self.head = nn.Linear(8, C)

    def forward(self, src: Tensor, pad: Tensor | None = None) -> Tensor:
        tokens = self.encoder(src, src_key_padding_mask=pad)
        return self.head(tokens[:, 0] if self.encoder.layers[0].self_attn.batch_first else tokens[0])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("padded", [False, True])
def test_transformer_encoder_and_its_fast_path(padded):
    """Hooks on a layer switch torch's fast path off, those on the head do not: both see the same numbers."""
    torch.manual_seed(0)
    model = Encoder()
    pad = torch.tensor([[False, False, False, True, True]])
    loader = [({"src": x, "pad": pad.expand(len(x), 5)} if padded else {"src": x}, y) for x, y in batches(5, 8)]

    def first_token(t: Tensor) -> Tensor:
        return (t.to_padded_tensor(0) if t.is_nested else t)[:, 0]

    values = measure_model(model, loader, ["encoder.layers.0", "encoder", "head"], C, reduce="first")
    fast = hooked(model, loader, "head", lambda t: t, inputs=True)  # no hook on the encoder
    check(values["head"], fast, loader, model.head)
    check(values["encoder"], fast, loader)
    check(values["encoder.layers.0"], hooked(model, loader, "encoder.layers.0", first_token), loader)
    assert torch.backends.mha.get_fastpath_enabled()


def test_batch_in_the_second_dimension():
    torch.manual_seed(0)
    model = Encoder(batch_first=False)
    loader = [(x.transpose(0, 1), y) for x, y in batches(5, 8, size=8)]
    with pytest.raises(ValueError, match=r"gives shape \(5, 8, 8\) for a batch of 8: the batch must come first"):
        measure_model(model, loader, ["encoder", "head"], C, reduce="mean")
    values = measure_model(model, loader, ["encoder", "head"], C, reduce={"encoder": lambda out: out.mean(0)})
    check(values["encoder"], hooked(model, loader, "encoder", lambda t: t.mean(0)), loader)


def test_hugging_face_bert():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    settings = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=C
    )
    model = transformers.BertForSequenceClassification(settings)
    tokens = torch.randint(0, 50, (24, 9), generator=torch.Generator().manual_seed(1))
    y = torch.arange(24) % C
    mask = (torch.arange(9) < 6).long().expand(24, 9)
    split = [dict(zip(("input_ids", "attention_mask", "labels"), b, strict=True)) for b in in_batches(tokens, mask, y)]
    layers = ["bert.encoder.layer.0", "bert.pooler", "classifier"]
    values = measure_model(model, split, layers, C, reduce="first")
    loader = [({k: v for k, v in b.items() if k != "labels"}, b["labels"]) for b in split]
    check(values[layers[0]], hooked(model, loader, layers[0], lambda t: t[:, 0]), loader)
    check(values["bert.pooler"], hooked(model, loader, "bert.pooler", lambda t: t), loader)
    head = model.classifier
    check(values["classifier"], hooked(model, loader, "classifier", lambda t: t, inputs=True), loader, head)


def test_an_operation_in_place_behind_a_layer_changes_nothing():
    model, loader = network(), batches(6)
    h = hooked(model, loader, "0", lambda t: t)
    assert (h < 0).any()  # not what the ReLU leaves
    check(measure_model(model, loader, ["0"], C)["0"], h, loader)


def test_two_forward_passes_give_the_numbers_of_one():
    model, loader = network(), batches(6)
    once = measure_model(model, loader, ["0", "2", "3"], C)
    twice = measure_model(model, loader, ["0", "2", "3"], C, memory_gib=0)
    assert once == twice
    shuffled = DataLoader(TensorDataset(*(torch.cat(t) for t in zip(*loader, strict=True))), 5, shuffle=True)
    for gib in (2, 0):
        values = measure_model(model, shuffled, ["0", "2", "3"], C, memory_gib=gib)
        assert values["3"] == pytest.approx(once["3"], rel=1e-4)


class Augmented:
    """A loader that draws its samples anew at every pass."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        return iter(batches(6, seed=self.passes))


def test_random_augmentation_needs_the_features_of_one_pass():
    model = network()
    assert measure_model(model, Augmented(), ["3"], C) == measure_model(model, batches(6, seed=1), ["3"], C)
    with pytest.raises(ValueError, match="second pass over the loader gave other features at layer '3'"):
        measure_model(model, Augmented(), ["3"], C, memory_gib=0)


def test_test_split_against_the_train_means():
    model, train_loader, test_loader = network(), batches(6), batches(6, seed=5)
    train = measure_model(model, train_loader, ["0", "3"], C)
    train = pickle.loads(pickle.dumps(train))
    test = measure_model(model, test_loader, ["0", "3"], C, train=train)
    h, means = hooked(model, test_loader, "3", lambda t: t, inputs=True), train.class_means["3"].means.numpy()
    y = torch.cat([labels for _, labels in test_loader])
    truth = reference(h, y, C, model[3].weight.detach(), model[3].bias.detach(), means)
    assert test["3"] == pytest.approx(truth, rel=2e-4)
    assert test["0"]["nc2_gram"] == train["0"]["nc2_gram"]
    some = [(x[y != 2], y[y != 2]) for x, y in test_loader]
    assert np.isfinite(measure_model(model, some, ["0", "3"], C, train=train)["3"]["cdnv"])
    with pytest.raises(ValueError, match="class 2 has no sample"):
        measure_model(model, some, ["0", "3"], C)
    for wrong, message in (
        (dict(train), "train must be what measure_model returned for the train split, got dict"),
        (
            measure_model(model, train_loader, ["3"], C),
            "train has no class means of layer 0; measure both splits alike",
        ),
        (
            measure_model(model, train_loader, ["0", "3"], C, classifier=None),
            "measured with classifier=None, this split",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            measure_model(model, test_loader, ["0", "3"], C, train=wrong)


def test_which_layer_is_the_classifier():
    model, loader = network(nn.Linear(5, C), nn.Linear(C, 5)), batches(6)
    with_weight = {
        call: [layer for layer, columns in values.items() if "nc3" in columns]
        for call, values in {
            "last named": measure_model(model, loader, ["3", "5", "0"], C),
            "none named": measure_model(model, loader, ["0", "1"], C),
            "given": measure_model(model, loader, ["0", "5"], C, classifier="3"),
            "switched off": measure_model(model, loader, ["0", "5"], C, classifier=None),
        }.items()
    }
    assert with_weight == {"last named": ["5"], "none named": [], "given": ["3"], "switched off": []}
    logits = measure_model(model, loader, ["5"], C, classifier=None)["5"]
    check(logits, hooked(model, loader, "5", lambda t: t), loader)
    with pytest.raises(ValueError, match=r"classifier '0' must have a weight \(4, d\), it has a weight \(12, 6\)"):
        measure_model(model, loader, ["0"], C, classifier="0")
    with pytest.raises(ValueError, match=r"classifier '1' must have a weight \(4, d\), it has no weight"):
        measure_model(model, loader, ["0"], C, classifier="1")


def state(model: nn.Module) -> tuple:
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    return (
        [m.training for m in model.modules()],
        hooks,
        torch.is_grad_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_afterwards_as_before(training, fails):
    model, loader = network(nn.BatchNorm1d(5), nn.Dropout(0.5)), batches(6)
    model.train(training)
    model[3].eval()  # a frozen batch norm stays in evaluation mode while the rest trains
    before, weights = state(model), {k: v.clone() for k, v in model.state_dict().items()}
    if fails:
        loader = [*loader, (torch.randn(3, 7), torch.arange(3))]
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            measure_model(model, loader, ["0", "5"], C)
    else:
        measure_model(model, loader, ["0", "5"], C)
    assert state(model) == before
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


def test_autocast_of_the_caller_and_half_precision():
    model, loader = network(), batches(6)
    plain = measure_model(model, loader, ["0", "3"], C)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert measure_model(model, loader, ["0", "3"], C) == plain
    half = measure_model(model.bfloat16(), [(x.bfloat16(), y) for x, y in loader], ["0", "3"], C)
    assert half["0"]["nc1"] == pytest.approx(plain["0"]["nc1"], rel=0.05)


class Precisions(nn.Linear):
    """Notes what matrix products, convolutions and RNNs are computed in while it runs."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = [flag.fp32_precision for flag in FLAGS]
        return super().forward(x)


CUDNN, MKLDNN = torch.backends.cudnn, torch.backends.mkldnn
FLAGS = (torch.backends.cuda.matmul, CUDNN.conv, CUDNN.rnn, MKLDNN.matmul, MKLDNN.conv, MKLDNN.rnn)


def test_no_tf32_in_the_forward_pass():
    found = [flag.fp32_precision for flag in FLAGS]
    try:
        for flag in FLAGS[1:3]:
            flag.fp32_precision = "tf32"  # as torch starts, and a run leaves them
        before = [flag.fp32_precision for flag in FLAGS]
        model = Precisions(6, C)
        measure_model(nn.Sequential(model), batches(6), ["0"], C)
        assert model.seen == ["ieee"] * 6
        assert before[1:3] == ["tf32", "tf32"]
        assert [flag.fp32_precision for flag in FLAGS] == before
    finally:
        for flag, precision in zip(FLAGS, found, strict=True):
            flag.fp32_precision = precision


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.unused, self.relu, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, C)
        self.words, self.numbers = Words(), nn.Identity()

    def forward(self, x: Tensor, factor: float = 1.0) -> Tensor:
        self.words(x)
        self.numbers(x.argmax(1))
        return self.head(factor * self.relu(self.body(self.relu(x))))


class Words(nn.Module):
    def forward(self, _: Tensor) -> str:
        return "words"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": ["bdy"]}, r"the model has no layer 'bdy'; it has body.* \(see model.named_modules\(\)\)"),
        ({"layers": [""]}, "the model has no layer ''"),
        ({"layers": ["body"], "classifier": "hed"}, "the model has no layer 'hed'; it has head"),
        ({"layers": "body"}, "layers must be a list of module paths, got 'body'"),
        ({"layers": []}, r"layers must be a list of module paths, got \[\]"),
        ({"layers": ["body", "body"]}, "layers names body more than once"),
        ({"layers": ["relu"]}, "calls layer 'relu' several times"),
        ({"layers": ["unused"]}, "did not call layer 'unused'"),
        ({"layers": ["words"]}, "layer 'words' gives str: only tensors can be measured"),
        ({"layers": ["numbers"]}, "layer 'numbers' gives torch.int64"),
        ({"num_classes": 1}, "at least 2 classes, got 1"),
        ({"num_classes": 3}, r"labels must lie in 0..2, got 0..3"),
        ({"loader": iter(batches(6))}, "loader is a list_iterator, which can be read only once"),
        ({"loader": []}, "the loader gave no batch"),
        (
            {"loader": [torch.randn(4, 6)]},
            r"must be \(inputs, labels\), or a mapping with `labels`, got Tensor",
        ),
        ({"loader": [(1, 2, 3)]}, "got 3 elements; pass prepare="),
        ({"loader": [{"x": 1, "y": 2}]}, "got a mapping with keys x, y; pass prepare="),
        ({"reduce": "max"}, "reduce must be one of mean, channels_last, first, last, flatten or a callable, got 'max'"),
        ({"reduce": {"relu": "mean"}}, "reduce names layer 'relu', which is not measured; layers: body, head"),
        ({"reduce": lambda out: out[0]}, r"reduce of layer 'body' must give \(7, d\) of \(7, 6\), it gave \(6,\)"),
    ],
)
def test_what_is_refused(change, message):
    arguments = {"loader": batches(6), "layers": ["body", "head"], "num_classes": C, **change}
    with pytest.raises(ValueError, match=message):
        measure_model(Twice(), **arguments)


def test_shapes_and_reductions():
    class Shaped(nn.Module):
        def __init__(self, *shape: int):
            super().__init__()
            self.shape, self.out, self.head = shape, nn.Identity(), nn.Linear(48, C)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.out(x.reshape(len(x), *self.shape)).flatten(1))

    loader = batches(48)
    expected = {
        ((6, 8), "first"): lambda t: t[:, :8],
        ((6, 8), "last"): lambda t: t[:, -8:],
        ((6, 8), "mean"): lambda t: t.reshape(-1, 6, 8).mean(1),
        ((6, 8), "flatten"): lambda t: t,
        ((2, 3, 8), None): lambda t: t.reshape(-1, 2, 24).mean(2),
        ((2, 3, 8), "mean"): lambda t: t.reshape(-1, 2, 24).mean(2),
        ((2, 3, 8), "channels_last"): lambda t: t.reshape(-1, 6, 8).mean(1),
        ((2, 3, 8), "flatten"): lambda t: t,
    }
    for (shape, how), take in expected.items():
        values = measure_model(Shaped(*shape), loader, ["out"], C, reduce=how)
        check(values["out"], take(torch.cat([x for x, _ in loader])), loader)
    for shape, how, message in (
        (
            (6, 8),
            None,
            r"gives shape \(7, 6, 8\), \(B, T, d\) needs a choice of tokens; pass reduce={'out': ...}",
        ),
        (
            (2, 3, 8),
            "first",
            r"gives shape \(7, 2, 3, 8\), which reduce='first' does not cover; .* of mean, channels_last, fl",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            measure_model(Shaped(*shape), loader, ["out"], C, reduce=how)


def test_ways_to_call_a_model():
    torch.manual_seed(0)
    model, loader = Twice(), batches(6)
    plain = measure_model(model, loader, ["body", "head"], C)
    forms = {
        "positional": [((x, 1.0), y) for x, y in loader],
        "keywords": [({"x": x, "factor": 1.0}, y) for x, y in loader],
        "mapping": [{"x": x, "labels": y} for x, y in loader],
        "numpy labels": [(x, y.numpy()) for x, y in loader],
    }
    for name, form in forms.items():
        assert measure_model(model, form, ["body", "head"], C) == plain, name
    other = [{"image": x, "target": y, "id": 3} for x, y in loader]
    assert measure_model(model, other, ["body", "head"], C, prepare=lambda b: (b["image"], b["target"])) == plain
    assert isinstance(plain, ModelMeasures)


@pytest.mark.parametrize("tf32", [False, True])
def test_a_run_leaves_flags_that_torch_can_tell(tf32):
    """Torch raises where its flags of cuDNN's convolutions and RNNs differ, and its compiler asks for them."""
    found, legacy = [flag.fp32_precision for flag in FLAGS], CUDNN.allow_tf32
    try:
        set_products(tf32=tf32)
        assert CUDNN.allow_tf32 is tf32
        assert [flag.fp32_precision for flag in FLAGS[:4]] == [*["tf32" if tf32 else "ieee"] * 3, "ieee"]
    finally:
        CUDNN.allow_tf32 = legacy
        for flag, precision in zip(FLAGS, found, strict=True):
            flag.fp32_precision = precision
