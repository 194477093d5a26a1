"""The vision transformer against torch's own blocks, its features, and the policies on it."""

import pytest
import torch
from torch.nn import functional
from torch_blocks import as_torch_block

from nclab.data import Dataset, Split
from nclab.etf import POLICIES, ETFLinear, FixedLinear, FrozenLinear, Measures
from nclab.etf.layer import Recipe, etf_weight, unit_scale
from nclab.interfaces.targets import Classes
from nclab.metrics.suite import Metric
from nclab.models.vit import ViT
from nclab.training.passes import KeptPass, Pass


def vit(shape=(1, 8, 8), **settings) -> ViT:
    torch.manual_seed(0)
    return ViT(shape, 5, **{"patch": 4, "width": 16, "heads": 2, "blocks": 3, "ratio": 2.0, **settings})


def policy(name: str, **settings):
    entry = POLICIES[name]
    return entry.build(entry.settings(**settings))


def fixed(model: ViT) -> list[str]:
    return [site for site, layer in model.etf_sites().items() if isinstance(layer, FixedLinear)]


@pytest.mark.fast
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_forward_equals_torchs_own_encoder(pool):
    """Also the last block, which makes its outputs for the classified token alone."""
    model = vit(pool=pool).double()
    x = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    p = model.patch
    patches = [x[:, :, i : i + p, j : j + p].flatten(1) for i in range(0, 8, p) for j in range(0, 8, p)]
    tokens = model.embed(torch.stack(patches, 1)) + model.position
    if pool == "cls":
        tokens = torch.cat([model.cls.expand(4, 1, 16), tokens], 1)
    logits, features = model(x)
    for i in (1, 2, 3):
        tokens = as_torch_block(getattr(model, f"block{i}"), 16, 2, functional.gelu)(tokens)
        seen = tokens[:, 0] if pool == "cls" else tokens.mean(1)
        torch.testing.assert_close(features[f"block{i}"], seen)
    h = model.norm(tokens)
    h = h[:, 0] if pool == "cls" else h.mean(1)
    torch.testing.assert_close(features["norm"], h)
    torch.testing.assert_close(logits, model.head(h))


def test_features_are_the_intermediates_of_the_feed_forward_part():
    model = vit(ffn_norm="layer")
    _, f = model(torch.rand(4, 1, 8, 8))
    parts = ("attn", "norm2", "ffn_in", "act", "ffn_out")
    assert list(f) == [*(n for b in (1, 2, 3) for n in (*(f"block{b}.{p}" for p in parts), f"block{b}")), "norm"]
    b = model.block2
    torch.testing.assert_close(f["block2.ffn_in"], b.ffn_in(f["block2.norm2"]))
    torch.testing.assert_close(f["block2.act"], functional.gelu(b.ffn_norm(f["block2.ffn_in"])))
    torch.testing.assert_close(f["block2.ffn_out"], b.ffn_out(f["block2.act"]))
    torch.testing.assert_close(f["block2"], f["block1"] + f["block2.attn"] + f["block2.ffn_out"])
    assert f["block2.ffn_in"].shape == (4, 32)


@pytest.mark.parametrize(("shape", "patch", "tokens"), [((1, 28, 28), 4, 49), ((3, 32, 32), 4, 64), ((1, 8, 8), 2, 16)])
def test_every_image_size_of_the_house(shape, patch, tokens):
    model = vit(shape, patch=patch)
    assert model.position.shape == (1, tokens, 16)
    logits, _ = model(torch.rand(2, *shape))
    logits.sum().backward()
    assert logits.shape == (2, 5)
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("kind", ["linear", "activation"])
@pytest.mark.parametrize("ratio", [2.0, 0.0])
def test_probes_and_inputs_name_real_features(kind, ratio):
    model = vit(ratio=ratio)
    _, features = model(torch.rand(3, 1, 8, 8))
    probes = model.probes(kind)
    assert [p.site for p in probes if p.site] == list(model.etf_roles()) == list(model.inputs())
    assert all(p.feature in features for p in probes[:-1])
    assert all(f in features for f in model.inputs().values())
    assert (probes[-2].feature, probes[-1].feature, model.classifier) == ("norm", "logits", "head")
    stages = {p.layer: p.stage for p in probes if p.stage is not None}
    assert list(stages) == ["block1", "block2", "block3", "head"]
    assert stages["block2"] == (("block2.ffn_in", "block2.ffn_out") if ratio else ())
    first = {"linear": "block1.ffn_in", "activation": "block1.act"}[kind]
    assert (first in [p.layer for p in probes]) == bool(ratio)


def test_without_feed_forward_part_a_block_is_attention_alone():
    model = vit(ratio=0)
    _, f = model(torch.rand(3, 1, 8, 8))
    assert list(f) == ["block1.attn", "block1", "block2.attn", "block2", "block3.attn", "block3", "norm"]
    assert list(model.etf_roles()) == ["head"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch": 3}, r"model.patch must divide the image of 8 x 8: 1, 2, 4, 8; got 3"),
        ({"patch": 0}, "model.patch must be at least 1, got 0"),
        ({"blocks": 0}, "model.blocks must be at least 1"),
        ({"heads": 3}, "model.heads must divide model.width, got 3 heads and width 16"),
        ({"ratio": -1.0}, "model.ratio must be 0"),
        ({"ratio": 0.01}, "model.ratio must be 0 .* or give at least one unit, got 0.01"),
        ({"pool": "max"}, "unknown model.pool 'max'; valid: cls, mean"),
        ({"ffn_norm": "batch"}, "unknown model.ffn_norm 'batch'; valid: none, layer"),
    ],
)
def test_settings_that_fit_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        vit(**settings)


@pytest.mark.parametrize(
    ("blocks", "numbers"), [("all", [1, 2, 3]), ("first2", [1, 2]), ("last1", [3]), ([3, 1], [1, 3]), ([2, 2], [2])]
)
def test_transformer_ffn_fixes_both_maps_of_the_chosen_blocks(blocks, numbers):
    model = vit()
    before = sum(p.numel() for p in model.parameters())
    switches = policy("transformer_ffn", blocks=blocks).setup(model, seed=0)
    assert fixed(model) == [f"block{n}.{role}" for n in numbers for role in ("ffn_in", "ffn_out")]
    assert [s.site for s in switches] == fixed(model)
    assert before - sum(p.numel() for p in model.parameters()) == sum(s.parameters_freed for s in switches) > 0
    assert model(torch.rand(2, 1, 8, 8))[0].shape == (2, 5)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 4.0])
def test_both_maps_are_simplex_etfs_whatever_the_ratio(ratio):
    model = vit(ratio=ratio).double()
    policy("transformer_ffn", classifier=True).setup(model, seed=0)
    scales = max(1, ratio) ** 0.5, max(1, 1 / ratio) ** 0.5, 1.0  # rows of mean square 1
    for site, scale in zip(("block1.ffn_in", "block1.ffn_out", "head"), scales, strict=True):
        layer = model.etf_sites()[site]
        assert isinstance(layer, ETFLinear)
        w = layer.weight / scale
        vectors = w if w.shape[0] < w.shape[1] else w.T  # the smaller side holds the vertices
        k = len(vectors)
        expected = (torch.eye(k, dtype=w.dtype) * k - 1) / (k - 1)
        torch.testing.assert_close(vectors @ vectors.T, expected, atol=1e-12, rtol=0)


def test_scale_sets_both_maps():
    model = vit()
    policy("transformer_ffn", scale=3.0, blocks="first1").setup(model, 0)
    assert (model.block1.ffn_in.scale, model.block1.ffn_out.scale) == (3.0, 3.0)
    model = vit()
    policy("transformer_ffn", out_scale=0.5, classifier=True, classifier_scale=4.0).setup(model, 0)
    layers = model.block2.ffn_in, model.block2.ffn_out, model.head
    assert [layer.scale for layer in layers] == [2**0.5, 0.5, 4.0]
    assert layers[0].weight.square().sum(1).mean().item() == pytest.approx(1)


def test_frozen_feed_forward_maps_keep_their_initial_weights():
    model = vit()
    weights = {site: layer.weight.detach().clone() for site, layer in model.etf_sites().items()}
    policy("transformer_ffn", kind="frozen", blocks="last2").setup(model, 0)
    assert fixed(model) == ["block2.ffn_in", "block2.ffn_out", "block3.ffn_in", "block3.ffn_out"]
    assert isinstance(model.block2.ffn_in, FrozenLinear)
    assert all(torch.equal(layer.weight, weights[site]) for site, layer in model.etf_sites().items())


@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (16, 16)])
@pytest.mark.parametrize("rank", ["full", "classes"])
def test_the_default_scale_keeps_the_variance(shape, rank):
    """Rows of mean square 1, so that unit-variance inputs give unit-variance outputs: exactly in the mean over rows."""
    recipe = Recipe(rank=rank, num_classes=6, seed=1)
    weight, scale = etf_weight(*shape, recipe)
    assert weight.square().sum(1).mean().item() == pytest.approx(1)
    assert scale == pytest.approx(unit_scale(*shape, recipe))


def test_one_choice_of_blocks_has_one_name():
    settings = POLICIES["transformer_ffn"].settings
    assert {settings(blocks=b).stem for b in ([1, 3], [3, 1], [3, 1, 3])} == {"ffn_1+3"}
    for key in ("classifier_scale", "classifier_frame"):
        value = {"classifier_scale": 2.0, "classifier_frame": "canonical"}[key]
        settings(classifier=True, **{key: value})
        with pytest.raises(ValueError, match=f"etf.{key} has no effect with etf.classifier=false"):
            settings(**{key: value})


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_kept_features_own_no_more_than_themselves(pool):
    """A view of the class token would keep all tokens alive, tens of times what metrics.memory_gib counts."""
    images = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
    labels = torch.arange(40) % 5
    dataset = Dataset({"train": Split(images, labels)}, Classes(5), (1, 8, 8))
    model = vit(pool=pool)
    stream = Pass(model, dataset, dataset.train, 10)
    wanted = {"block1", "block1.ffn_in", "norm", "logits"}
    suite = Metric()
    suite.passes, suite.wanted = 2, lambda n_pass: wanted
    batches = KeptPass(stream, [suite], 2, budget=1e9)
    plain = list(batches)
    assert len(batches.kept) == 4
    for (features, batch, out), (expected, whole, _) in zip(batches, plain, strict=True):
        assert set(features) == wanted
        assert torch.equal(out.prediction, expected["logits"])
        assert torch.equal(batch.targets, whole.targets)
        for name, value in features.items():
            assert torch.equal(value, expected[name])
            assert value.untyped_storage().nbytes() == value.numel() * value.element_size(), name
    small = KeptPass(stream, [suite], 2, budget=10)
    assert [list(features) for features, *_ in small] == [list(features) for features, *_ in small]
    assert small.kept == []


def test_blocks_that_are_not_there_are_refused_before_anything_is_fixed():
    model = vit()
    for blocks, asked in (("first4", 4), ("last9", 9), ([1, 7], 7)):
        with pytest.raises(ValueError, match=f"asks for block {asked}; the model has 3: block1, block2, block3"):
            policy("transformer_ffn", blocks=blocks).setup(model, 0)
    with pytest.raises(ValueError, match="needs a model with feed-forward layers"):
        policy("transformer_ffn").setup(vit(ratio=0), 0)
    with pytest.raises(ValueError, match="'nearest' follows a learnt weight, and etf=transformer_ffn"):
        policy("transformer_ffn", frame="nearest").setup(model, 0)
    assert fixed(model) == []


def measures(model: ViT, *ncc: float) -> Measures:
    stages = {p.layer: p.stage for p in model.probes("linear") if p.stage is not None}
    return Measures(1.0, dict(zip(stages, ncc, strict=True)), stages)


def test_adaptive_fixes_the_feed_forward_parts_beyond_the_effective_depth():
    """Effective depth 1 (block1): the head, then block by block from the output, both maps of a block together."""
    model = vit()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    p = policy("adaptive", patience=1, start=1)
    p.setup(model, 0)
    seen = measures(model, 0.95, 0.96, 0.97, 0.98)
    log = [[s.site for s in p.after_epoch(model, optimizer, seen, epoch)] for epoch in range(1, 5)]
    assert log == [["head"], ["block3.ffn_in", "block3.ffn_out"], ["block2.ffn_in", "block2.ffn_out"], []]
    assert sum(q.numel() for g in optimizer.param_groups for q in g["params"]) == sum(
        q.numel() for q in model.parameters()
    )


def test_adaptive_passes_over_blocks_without_maps():
    model = vit(ratio=0)
    p = policy("adaptive", patience=1, start=1, order="at_once")
    p.setup(model, 0)
    switches = p.after_epoch(model, torch.optim.SGD(model.parameters(), lr=0.1), measures(model, 1.0, 1.0, 1.0, 1.0), 1)
    assert [s.site for s in switches] == ["head"]
