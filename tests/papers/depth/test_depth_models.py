"""model=rn and model=tf: their formulas by hand, torch's own encoder, padding, probes, and policies on them."""

import pytest
import torch
from run_folders import events, rows
from torch import nn
from torch.nn import functional
from torch_blocks import as_torch_block

from nclab.config.schema import ConfigError
from nclab.etf.policy import learnable
from nclab.interfaces.shapes import TokenShape
from nclab.models import PROBES
from nclab.models.mlp import MLPSettings, build_mlp
from nclab.papers.depth.parts.rn import ResNet
from nclab.papers.depth.parts.tf import TFSettings, Transformer
from nclab.run.execute import train

IMAGES = torch.rand(4, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TEXTS = torch.tensor([[5, 3, 9, 0, 0, 0], [2, 1, 4, 8, 7, 3]], dtype=torch.int32)


def rn(**settings) -> ResNet:
    torch.manual_seed(0)
    return ResNet((1, 8, 8), 5, **{"blocks": 3, "width": 16, **settings}).double()


def tf(shape=(1, 8, 8), **settings) -> Transformer:
    torch.manual_seed(0)
    return Transformer(TFSettings(**{"blocks": 3, "width": 16, "heads": 2, **settings}), shape, 5).double()


def normalised(x):
    """LayerNorm without gain and shift, by its formula."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


@pytest.mark.fast
@pytest.mark.parametrize("maps", [1, 2])
def test_residual_blocks_by_hand(maps):
    model = rn(maps=maps)
    logits, features = model(IMAGES)
    x = normalised(IMAGES.flatten(1) @ model.embed.weight.T + model.embed.bias)
    for i in (1, 2, 3):
        block = getattr(model, f"block{i}")
        added = (x @ block.map1.weight.T + block.map1.bias).clamp(min=0)
        if maps == 2:
            added = added @ block.map2.weight.T + block.map2.bias
        x = normalised(x + added)
        torch.testing.assert_close(features[f"block{i}"], x)
    torch.testing.assert_close(logits, x @ model.head.weight.T + model.head.bias)
    assert list(features)[-1] == "block3" == model.inputs()["head"]
    torch.testing.assert_close(x.norm(dim=1), torch.full((4,), 4.0, dtype=torch.float64), rtol=1e-3, atol=0)


def test_choices_of_the_residual_network():
    assert rn(head_bias=False).head.bias is None
    assert isinstance(rn(embed_norm=False).embed_norm, nn.Identity)
    assert learnable(rn(affine=True).parameters()) - learnable(rn().parameters()) == 4 * 2 * 16  # 3 blocks and embed
    assert learnable(rn(maps=2).parameters()) - learnable(rn().parameters()) == 3 * (16 * 16 + 16)


@pytest.mark.fast
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_t22_equals_torchs_own_encoder(norm, pool):
    """Also the last block, which makes its output for the class token alone."""
    model = tf(norm=norm, pool=pool, attention_maps=2, mlp_maps=2, affine=True)
    patches = [IMAGES[:, :, i : i + 4, j : j + 4].flatten(1) for i in (0, 4) for j in (0, 4)]
    tokens = model.embed(torch.stack(patches, 1)) + model.position
    if pool == "cls":
        tokens = torch.cat([model.cls.expand(4, 1, 16), tokens], 1)
    logits, features = model(IMAGES)
    for i in (1, 2, 3):
        tokens = as_torch_block(getattr(model, f"block{i}"), 16, 2, functional.relu, norm == "pre")(tokens)
        torch.testing.assert_close(features[f"block{i}"], tokens[:, 0] if pool == "cls" else tokens.mean(1))
    tokens = model.norm(tokens)
    torch.testing.assert_close(logits, model.head(tokens[:, 0] if pool == "cls" else tokens.mean(1)))


def test_t11_by_hand():
    """One head, no map after the values, one map with ReLU: one block, post-norm, of the class token."""
    model = tf(blocks=1, heads=1)
    x = torch.cat([model.cls, model.embed(IMAGES[:1, :, :, :].unfold(2, 4, 4).unfold(3, 4, 4).reshape(1, 4, 16))
                   + model.position], 1)  # fmt: skip
    attn = model.block1.attn
    q, (k, v) = attn.q(x), attn.kv(x).chunk(2, -1)
    weights = (q @ k.mT / 4).softmax(-1)
    x = normalised(x + weights @ v)
    x = normalised(x + model.block1.ffn_in(x).clamp(min=0))
    torch.testing.assert_close(model(IMAGES[:1])[0], model.head(x[:, 0]))


@pytest.mark.parametrize("pool", ["cls", "mean"])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_padding_has_no_say(pool, norm):
    """A text gives the same alone, without padding, and among longer ones."""
    model = tf(TokenShape(6, 10), pool=pool, norm=norm)
    together, features = model(TEXTS)
    shorter = tf(TokenShape(3, 10), pool=pool, norm=norm)
    with torch.no_grad():
        model.position[:, 3:] += 7  # of padding alone
        for name, p in shorter.named_parameters():
            p.copy_(model.state_dict()[name][:, :3] if name == "position" else model.state_dict()[name])
    alone, of_shorter = shorter(TEXTS[:1, :3])
    torch.testing.assert_close(alone, together[:1])
    torch.testing.assert_close(of_shorter["block3"], features["block3"][:1])
    assert not torch.allclose(model(TEXTS.flip(1))[0][1:], together[1:])  # places count


@pytest.mark.parametrize("kind", PROBES)
@pytest.mark.parametrize(
    "model", [rn(), rn(maps=2), tf(), tf(mlp_maps=2), tf(norm="pre"), tf(pool="mean", attention_maps=2)]
)
def test_every_block_is_a_probe_and_every_map_has_one(model, kind):
    probes = model.probes(kind)
    logits, features = model(IMAGES)
    assert [p.layer for p in probes if p.role == "block"] == ["block1", "block2", "block3"]
    assert all(p.feature in {**features, "logits": logits} for p in probes)
    assert {p.site for p in probes if p.site} == set(model.etf_roles())
    after = {"linear": {"map1", "ffn_in"}, "activation": {"act1", "act"}}[kind]
    assert {p.layer.rpartition(".")[2] for p in probes if p.site in ("block2.map1", "block2.ffn_in")} <= after
    if kind == "activation" and getattr(model, "pool", "cls") == "cls":  # the mean over tokens comes after the ReLU
        for p in (p for p in probes if p.layer.rpartition(".")[2] in after):
            torch.testing.assert_close(features[p.feature], features[p.site].clamp(min=0))
    assert [site for p in probes for site in p.stage or ()] == list(model.etf_roles())
    assert model.inputs()[model.classifier] == list(features)[-1]
    assert all(f in features for f in model.inputs().values())
    assert all(t.shape == (4, 16) for t in features.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": 0}, "model.blocks must be at least 1, got 0"),
        ({"width": 1}, "model.width must be at least 2, got 1"),
        ({"heads": 3}, "model.heads must divide model.width, got 3 heads and width 16"),
        ({"patch": 3}, "model.patch must divide the image of 8 x 8: 1, 2, 4, 8; got 3"),
        ({"attention_maps": 3}, "model.attention_maps must be at most 2, got 3"),
        ({"mlp_maps": 0}, "model.mlp_maps must be at least 1, got 0"),
        ({"norm": "none"}, "unknown model.norm 'none'; valid: post, pre"),
        ({"pool": "max"}, "unknown model.pool 'max'; valid: cls, mean"),
    ],
)
def test_wrong_settings_of_the_transformer_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tf(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": 0}, "model.blocks must be at least 1"),
        ({"maps": 3}, "model.maps must be at most 2, got 3"),
        ({"width": 1}, "model.width must be at least 2"),
    ],
)
def test_wrong_settings_of_the_residual_network_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        rn(**settings)


def test_texts_have_no_patches():
    with pytest.raises(ValueError, match=r"model\.patch cuts images, .* holds texts; leave out model\.patch=2"):
        tf(TokenShape(6, 10), patch=2)


def test_words_start_small_and_padding_is_nothing():
    model = tf(TokenShape(6, 200))
    assert model.embed.weight[1:].std().item() == pytest.approx(0.02, rel=0.1)
    assert not model.embed.weight[0].any()


def test_a_head_without_bias_cannot_spare_it(tiny):
    with pytest.raises(
        ConfigError, match=r"loss\.l2_skip=head_bias needs a head with a bias; got model\.head_bias=false"
    ):
        train(tiny("model=rn", "model.head_bias=false", "loss.l2=0.1", "loss.l2_skip=head_bias",
                   "optimizer.weight_decay=0"))  # fmt: skip


def test_models_of_images_refuse_texts():
    with pytest.raises(ValueError, match="model=rn reads images, and the dataset holds texts; model=tf reads both"):
        ResNet(TokenShape(6, 10), 5)
    with pytest.raises(ValueError, match="model=mlp reads images"):
        build_mlp(MLPSettings(), TokenShape(6, 10), 5)


@pytest.mark.parametrize("keys", [("model=rn", "model.maps=2"), ("model=tf", "model.patch=2")])
def test_policies_fix_their_maps(tiny, keys):
    folder = train(tiny(*keys, "model.blocks=2", "model.width=16", "etf=last_k", "etf.k=3", "epochs=1"))
    fixed = [e["site"] for e in events(folder, "switch")]
    assert len(fixed) == 3
    assert "head" in fixed
    layers = list(dict.fromkeys(r[2] for r in rows(folder)))
    assert [layer for layer in layers if layer in ("block1", "block2")] == ["block1", "block2"]
    at_head = {r[3] for r in rows(folder) if r[2] == "block2"}
    assert {"nc1_trace_ratio", "nc2_weight_gram", "nc2_weight_orthogonal", "nc3_cosine", "ncc_accuracy"} <= at_head
