"""Models of torch, torchvision and Hugging Face, converted: trained a step, saved, loaded, compared, exported."""

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from nclab.etf import ETFLinear, FixedLinear, FrozenLinear, ImplicitETFLinear, convert, fixed_layers

FUSED_LAYER, FUSED_ATTENTION = "aten::_transformer_encoder_layer_fwd", "aten::_native_multi_head_attention"


@dataclass
class Case:
    build: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]
    names: list[str]  # the last is a classifier
    logits: Callable[[nn.Module, Tensor], Tensor] = lambda model, x: model(x)


class Encoder(nn.Module):
    """nn.TransformerEncoder with a head on the first token."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(x, src_key_padding_mask=padding)[:, 0])


def bert() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=4,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return transformers.BertForSequenceClassification(config)


def vit_b_16() -> nn.Module:
    """torchvision's own class of ViT-B/16, at a sixteenth of its width and depth."""
    return torchvision.models.VisionTransformer(32, 16, 2, 4, 48, 96, num_classes=5)


OF_BERT = "bert.encoder.layer.1"
OF_ENCODER = "encoder.layers.1"
CASES = {
    "resnet18": Case(lambda: torchvision.models.resnet18(num_classes=6), lambda: torch.randn(4, 3, 32, 32), ["fc"]),
    "vit": Case(
        vit_b_16,
        lambda: torch.randn(4, 3, 32, 32),
        [f"encoder.layers.encoder_layer_1.{name}" for name in ("self_attention.out_proj", "mlp.0", "mlp.3")]
        + ["heads.head"],
    ),
    "encoder": Case(
        Encoder,
        lambda: torch.randn(4, 5, 16),
        [f"{OF_ENCODER}.{name}" for name in ("self_attn.out_proj", "linear1", "linear2")] + ["head"],
    ),
    "bert": Case(
        bert,
        lambda: torch.randint(50, (4, 7)),
        [f"{OF_BERT}.{name}" for name in ("attention.self.query", "intermediate.dense", "output.dense")]
        + ["classifier"],
        lambda model, x: model(input_ids=x).logits,
    ),
}
ALL = pytest.mark.parametrize("name", CASES)


def built(name: str, seed: int, **settings) -> nn.Module:
    torch.manual_seed(seed)
    model = CASES[name].build()
    if settings.pop("convert", True):
        convert(model, CASES[name].names, seed=seed, **settings)
    return model


def inputs(name: str) -> Tensor:
    torch.manual_seed(9)
    return CASES[name].inputs()


def outputs(name: str, model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return CASES[name].logits(model.eval(), x)


def step(name: str, model: nn.Module, x: Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    labels = torch.arange(len(x)) % 4
    functional.cross_entropy(CASES[name].logits(model.train(), x), labels).backward()
    optimizer.step()


def dense(layer: FixedLinear) -> nn.Linear:
    """The plain layer with the same weight and bias."""
    linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    linear.load_state_dict(layer.state_dict())
    return linear


@pytest.mark.parametrize("frame", ["random", "hadamard"])
@ALL
def test_converted_trained_a_step_saved_and_loaded_it_computes_the_same(name, frame):
    model, x = built(name, 0, frame=frame), inputs(name)
    assert list(fixed_layers(model)) == CASES[name].names
    weights = {layer: fixed.weight.clone() for layer, fixed in fixed_layers(model).items()}
    before = outputs(name, model, x)
    step(name, model, x)
    assert all(torch.equal(fixed.weight, weights[layer]) for layer, fixed in fixed_layers(model).items())
    after = outputs(name, model, x)
    assert not torch.allclose(before, after)  # the rest learns
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    for other in (built(name, 0, frame=frame), built(name, 1, convert=False)):
        other.load_state_dict(state, strict=True)
        torch.testing.assert_close(outputs(name, other, x), after, atol=1e-5, rtol=1e-5)
    another = built(name, 1, frame=frame)
    if frame == "random":
        another.load_state_dict(state, strict=True)
        torch.testing.assert_close(outputs(name, another, x), after, atol=1e-5, rtol=1e-5)
    else:
        with pytest.raises(RuntimeError, match="is not the matrix of the fixed layer"):
            another.load_state_dict(state, strict=True)


@pytest.mark.parametrize("name", [name for name in CASES if name != "resnet18"])  # 11 million weights take seconds
def test_a_plain_layer_of_the_same_weight_gives_the_same_outputs_and_gradients(name):
    x = inputs(name)
    for frame in ("random", "hadamard"):
        model = built(name, 0, frame=frame).eval()
        twin = copy.deepcopy(model)
        for path, layer in fixed_layers(model).items():
            parent, _, last = path.rpartition(".")
            setattr(twin.get_submodule(parent), last, dense(layer))
        for one in (model, twin):
            CASES[name].logits(one, x).square().sum().backward()
        theirs = dict(twin.named_parameters())
        for key, parameter in model.named_parameters():
            if parameter.grad is not None:
                torch.testing.assert_close(parameter.grad, theirs[key].grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("frame", ["random", "hadamard"])
@ALL
def test_a_converted_model_exports(name, frame):
    model, x = built(name, 0, frame=frame).eval(), inputs(name)
    exported = torch.export.export(model, (x,), strict=False).module()
    out = exported(x)
    torch.testing.assert_close(out if torch.is_tensor(out) else out["logits"], outputs(name, model, x))


def fused_and_not(kernel: str, model: nn.Module, *args: Tensor) -> tuple[Tensor, Tensor, int]:
    """Outputs by torch's fused kernel and without it, and how often the kernel ran."""
    model.eval()
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as prof:
        fast = model(*args)
    calls = sum(event.count for event in prof.key_averages() if event.key == kernel)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            slow = model(*args)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return fast, slow, calls


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    "settings", [{}, {"frame": "hadamard"}, {"rank": "classes", "num_classes": 4}, {"kind": "frozen"}]
)
def test_the_fused_encoder_computes_what_the_layers_compute(settings, padded):
    model, x = built("encoder", 0, **settings), inputs("encoder")
    kind = FrozenLinear if settings.get("kind") == "frozen" else ETFLinear  # the kernel reads a stored weight
    assert all(type(layer) is kind for path, layer in fixed_layers(model).items() if path != "head")
    if "frame" in settings:
        assert type(model.head) is ImplicitETFLinear
    mask = torch.arange(5).expand(4, 5) >= torch.tensor([[5], [3], [4], [2]])
    fast, slow, calls = fused_and_not(FUSED_LAYER, model, x, *([mask] * padded))
    assert calls == 2
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-4)
    again, _, _ = fused_and_not(FUSED_LAYER, built("encoder", 0, convert=False), x, *([mask] * padded))
    assert settings.get("kind") == "frozen" or not torch.allclose(fast, again)  # the conversion counts on both


@pytest.mark.parametrize("frame", ["random", "hadamard"])
def test_fused_attention_computes_what_the_layers_compute(frame):
    class Attention(nn.MultiheadAttention):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x, x, x, need_weights=False)[0]

    torch.manual_seed(0)
    model, x = Attention(16, 2, batch_first=True), torch.randn(3, 5, 16)
    plain, _, _ = fused_and_not(FUSED_ATTENTION, model, x)
    convert(model, ["out_proj"], frame=frame)
    fast, slow, calls = fused_and_not(FUSED_ATTENTION, model, x)
    assert calls == 1
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(fast, plain)


def test_the_real_sizes_of_vit_b_16_fit():
    with torch.device("meta"):
        model = torchvision.models.vit_b_16()
    last = "encoder.layers.encoder_layer_11"
    names = [f"{last}.mlp.0", f"{last}.mlp.3", f"{last}.self_attention.out_proj"]
    switches = convert(model, names, frame="block")
    assert [s.parameters_freed for s in switches] == [768 * 3072, 768 * 3072, 768**2]
    with pytest.raises(ValueError, match=r"'heads.head' \(768 -> 1000\): 1000 vectors .* dimension 999 or more"):
        convert(model, ["heads.head"], classifier="heads.head")


@pytest.mark.parametrize("frame", ["random", "hadamard"])
def test_bert_comes_back_from_save_pretrained(frame, tmp_path):
    model, x = built("bert", 0, frame=frame), inputs("bert")
    step("bert", model, x)
    model.save_pretrained(tmp_path)
    again, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not fixed_layers(again)  # the same numbers in plain layers
    torch.testing.assert_close(outputs("bert", again, x), outputs("bert", model, x))
    convert(again, CASES["bert"].names, kind="frozen")
    torch.testing.assert_close(outputs("bert", again, x), outputs("bert", model, x))
    assert list(fixed_layers(again)) == CASES["bert"].names


def test_tied_embeddings_are_refused():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(vocab_size=20, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    model = transformers.BertForMaskedLM(config)
    with pytest.raises(ValueError, match=r"tied to bert\.embeddings\.word_embeddings\.weight"):
        convert(model, ["cls.predictions.decoder"])
