"""Convolutional classifiers: their features, their images, and policies, metrics, resume, seeds and compile on them."""

import json
import subprocess
import sys

import pytest
import torch
import torchvision
from run_folders import assert_same_run, events, killed_after, rows
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional

from nclab.etf import POLICIES as POLICY
from nclab.models import MODELS
from nclab.models.cnn import CNN, CNNSettings
from nclab.models.resnet import ResNetSettings
from nclab.models.vgg import VGGSettings
from nclab.run.execute import train
from nclab.run.trained import load_trained

MODEL_KEYS = {name: (f"model={name}",) for name in ("cnn", "resnet", "vgg")}  # of a size that tests/conftest.py gives
SMALL = {
    "cnn": (CNNSettings(channels=[4, 6]), (2, 12, 9)),
    "resnet": (ResNetSettings(depth=8, width=4, stem="cifar"), (2, 12, 9)),
    "resnet50": (ResNetSettings(depth=50, width=2), (3, 33, 32)),
    "vgg": (VGGSettings(depth=13, width=2), (2, 32, 33)),
}


def built(name: str, **changed):
    settings, shape = SMALL[name]
    torch.manual_seed(0)
    settings = type(settings)(**{**vars(settings), **changed})
    return MODELS[settings.name].build(settings, shape, 5), torch.rand(6, *shape)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("kind", ["linear", "activation"])
@pytest.mark.parametrize("tau", [None, 5.0])
def test_probes_are_the_pooled_stages_and_the_last_is_the_classifiers_input(name, kind, tau):
    model, x = built(name, tau=tau)
    logits, features = model.eval()(x)
    probes, stages = model.probes(kind), list(model.stages())
    assert list(features) == [*stages, *([] if tau is None else ["scaled"])]
    h = model.prepared(x)
    for stage, module in model.stages().items():
        h = module(h)
        torch.testing.assert_close(features[stage], h.flatten(2).mean(2))
    read = h.mean((2, 3))
    read = read if tau is None else tau * read / read.norm(dim=1, keepdim=True)
    torch.testing.assert_close(logits, read @ model.fc.weight.T + model.fc.bias)
    assert model.inputs() == {"fc": list(features)[-1]}
    assert [p.layer for p in probes] == [*features, "fc"]
    assert (probes[-2].role, probes[-1].feature, probes[-1].stage) == ("classifier_input", "logits", ("fc",))
    assert [p.layer for p in probes if p.stage == ()] == stages
    assert (model.classifier, list(model.etf_sites())) == ("fc", ["fc"])


@pytest.mark.parametrize("name", SMALL)
def test_the_last_stage_has_a_channel_a_class(name):
    model, x = built(name, features="classes")
    logits, features = model(x)
    assert model.fc.weight.shape == (5, 5)
    assert features[list(model.stages())[-1]].shape == (6, 5)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_the_layout_of_the_images_changes_no_number(name):
    """Channels last on their own, contiguous where many models are one: the same gradients in float64."""
    model, x = built(name)
    model, x = model.double(), x.double()
    assert model.prepared(x).stride(1) == 1
    torch.testing.assert_close(model.prepared(x), x, rtol=0, atol=0)
    parameters, buffers = dict(model.named_parameters()), {k: b.clone() for k, b in model.named_buffers()}
    stacked = [{k: t.detach().expand(2, *t.shape).clone() for k, t in of.items()} for of in (parameters, buffers)]
    both = vmap(lambda p, b, x: functional_call(model, (p, b), (x,)).prediction)(*stacked, torch.stack([x, x.flip(0)]))
    torch.testing.assert_close(both[0], model(x).prediction)
    torch.testing.assert_close(both[1], both[0].flip(0))
    for key, buffer in model.named_buffers():
        torch.testing.assert_close(stacked[1][key][0], buffer)  # running statistics too


def test_cnn_is_convolution_norm_relu_and_pooling():
    """Against the formula, in evaluation mode with statistics that are not 0 and 1."""
    model, x = built("cnn")
    model(x)
    model = model.double().eval()
    h = x.double()
    for stage in model.stages().values():
        conv, norm = stage[0], stage[1]
        h = functional.conv2d(h, conv.weight, padding=1)
        mean, var = norm.running_mean[:, None, None], norm.running_var[:, None, None]
        h = functional.max_pool2d(((h - mean) / (var + norm.eps).sqrt()).relu(), 2)
    torch.testing.assert_close(model(x.double()).prediction, model.fc(h.mean((2, 3))))


def test_cnn_has_its_parameters():
    model = MODELS["cnn"].build(CNNSettings(), (1, 28, 28), 10)
    # 9 (1*16 + 16*32 + 32*64) weights of convolutions, 2 (16 + 32 + 64) of norms, 64*10 + 10 of the classifier
    assert sum(p.numel() for p in model.parameters()) == 9 * 2576 + 224 + 650


def test_images_are_padded_by_their_border_and_repeated_in_channels():
    settings = CNNSettings(channels=[4], image_side=7, image_channels=3)
    model = CNN(settings, settings.seen((1, 4, 5)), 3)
    x = torch.rand(2, 1, 4, 5)
    seen = model.prepared(x)
    assert seen.shape == (2, 3, 7, 7)
    for channel in seen.unbind(1):
        torch.testing.assert_close(channel[:, 1:5, 1:6], x[:, 0])
        torch.testing.assert_close(channel[:, 0, 1:6], x[:, 0, 0])
        torch.testing.assert_close(channel[:, 5:, 6], x[:, 0, -1, -1:].expand(2, 2))
    assert model(x).prediction.shape == (2, 3)


@pytest.mark.parametrize(
    ("changed", "shape", "message"),
    [
        ({"name": "resnet", "depth": 20}, (3, 32, 32), "unknown model.depth '20'; valid: 8, 18, 34, 50"),
        ({"name": "resnet", "stem": "mnist"}, (3, 32, 32), "unknown model.stem 'mnist'; valid: imagenet, cifar"),
        ({"name": "resnet", "width": 0}, (3, 32, 32), "model.width must be at least 1, got 0"),
        ({"name": "resnet"}, (1, 8, 8), "model=resnet expects images of at least 17 x 17 with these keys, got 8 x 8"),
        ({"name": "vgg", "depth": 16}, (3, 32, 32), "unknown model.depth '16'; valid: 11, 13"),
        ({"name": "vgg"}, (1, 28, 28), "model=vgg expects images of at least 32 x 32 with these keys, got 28 x 28"),
        ({"channels": []}, (1, 8, 8), r"model.channels must be numbers of at least 1, got \[\]"),
        ({"channels": [4, 0]}, (1, 8, 8), r"model.channels must be numbers of at least 1, got \[4, 0\]"),
        ({"channels": [4] * 4}, (1, 8, 8), "model=cnn expects images of at least 16 x 16 with these keys, got 8 x 8; "
                                           "pad them with model.image_side=16"),
        ({"features": "512"}, (1, 8, 8), "unknown model.features '512'; valid: full, classes"),
        ({"tau": 0.0}, (1, 8, 8), "model.tau must be above 0 and finite, or null; got 0"),
        ({"image_side": 7}, (1, 8, 8), "model.image_side must be at least 8, got 7"),
        ({"image_channels": 0}, (1, 8, 8), "model.image_channels must be at least 1, got 0"),
        ({"image_channels": 4}, (3, 8, 8), "model.image_channels=4 repeats grey images: expected 1 channel, or null "
                                           "for images of 3"),
    ],
)  # fmt: skip
def test_networks_that_fit_nothing_are_refused(changed, shape, message):
    entry = MODELS[changed.get("name", "cnn")]
    with pytest.raises(ValueError, match=message):
        entry.build(entry.settings(**changed), shape, 3)


def test_the_run_name_says_what_is_not_the_usual_network():
    keys = {"features": "classes", "image_side": 32, "image_channels": 3, "tau": 5.0}
    assert CNNSettings().label == "cnn16x32x64"
    assert CNNSettings(channels=[8], **keys).label == "cnn8_dK_side32_ch3_tau5"
    assert ResNetSettings().label == "resnet18"
    assert ResNetSettings(depth=8, width=16, stem="cifar", features="classes").label == "resnet8x16_cifar_dK"
    assert [VGGSettings().label, VGGSettings(depth=11, width=8).label] == ["vgg13", "vgg11x8"]


def test_the_residual_network_with_d_equal_k_has_the_parameters_of_the_paper():
    """Of 2105.02375: 20.70 % fewer parameters with d = K and a fixed ETF, of which W itself is 100."""
    settings = [ResNetSettings(features=features) for features in ("full", "classes")]
    full, narrow = (MODELS["resnet"].build(s, (3, 32, 32), 10) for s in settings)
    count = lambda model: sum(p.numel() for p in model.parameters())  # noqa: E731
    assert (count(full), count(narrow)) == (11_181_642, 8_867_542)
    policy = POLICY["last_k"].build(POLICY["last_k"].settings(k=1))
    policy.setup(narrow, 0)
    assert count(narrow) == 8_867_442
    assert round(100 * (1 - count(narrow) / count(full)), 2) == 20.70


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_residual_networks_are_torchvisions(name):
    """The same weights by name, the same logits and running statistics; and drawn alike from one seed."""
    theirs = getattr(torchvision.models, name)(num_classes=4)
    ours = MODELS["resnet"].build(ResNetSettings(depth=int(name[6:])), (3, 33, 32), 4)
    state = {key.replace("stem.0", "conv1").replace("stem.1", "bn1"): key for key in ours.state_dict()}
    theirs_by_ours = {state[key]: tensor for key, tensor in theirs.state_dict().items()}
    for key, tensor in ours.named_parameters():
        if tensor.ndim == 4:
            assert tensor.std().item() == pytest.approx(theirs_by_ours[key].std().item(), rel=0.2), key
    ours.load_state_dict(theirs_by_ours)
    x = torch.rand(2, 3, 33, 32)
    torch.testing.assert_close(ours(x).prediction, theirs(x), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ours.layer2[0].bn2.running_mean, theirs.layer2[0].bn2.running_mean)
    torch.testing.assert_close(ours.eval()(x).features["layer4"].shape, theirs.fc.weight[:2].shape)


def test_other_models_do_not_wait_for_torchvision():
    """Every start looks into the registry of models; the import takes more than a second."""
    code = "import sys; from nclab.models import MODELS; MODELS.names(); sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("depth", [11, 13])
def test_vgg_has_the_blocks_of_torchvisions(depth):
    theirs = getattr(torchvision.models, f"vgg{depth}_bn")(num_classes=4).features
    convolutions = [m for m in theirs if isinstance(m, nn.Conv2d)]
    for conv in convolutions:
        nn.init.zeros_(conv.bias)
    ours = MODELS["vgg"].build(VGGSettings(depth=depth), (3, 32, 32), 4)
    mine = [m for stage in ours.stages().values() for m in stage if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        for conv, other in zip(mine, convolutions, strict=True):
            assert conv.weight.std().item() == pytest.approx(other.weight.std().item(), rel=0.2)
            conv.weight.copy_(other.weight)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(ours(x).features["block5"], theirs(x).flatten(1), rtol=1e-3, atol=1e-4)


POLICIES = [
    ("etf=none",),
    ("etf=last_k", "etf.k=1"),
    ("etf=adaptive", "etf.start=2", "etf.patience=1", "etf.threshold=0.01", "etf.relative=false"),
    ("etf=nearest", "model.tau=5"),
]


@pytest.mark.parametrize("model", MODEL_KEYS)
@pytest.mark.parametrize("policy", POLICIES, ids=lambda keys: keys[0])
def test_policies_and_metrics_as_on_other_networks(tiny, model, policy):
    suites = "metrics.suite=[collapse,spectra,margin]"
    folder = train(tiny(*MODEL_KEYS[model], *policy, suites, "epochs=3"))
    network, _, _ = load_trained(folder)
    stages = list(network.stages())
    last = {layer for epoch, split, layer, *_ in rows(folder) if split == "train" and epoch == 3}
    assert last == {*stages, "fc", "network", *(["scaled"] if network.tau else [])}
    found = {(layer, metric) for _, _, layer, metric, _ in rows(folder)}
    assert {(stages[0], "nc1"), (network.inputs()["fc"], "nc3"), ("fc", "ncc_accuracy")} <= found
    switches = [(e["site"], e["epoch"]) for e in events(folder, "switch")]
    assert (
        switches
        == {"none": [], "last_k": [("fc", 0)], "adaptive": [("fc", 2)], "nearest": [("fc", 0)]}[
            policy[0].partition("=")[2]
        ]
    )
    memory = json.loads((folder / "summary.json").read_text())["memory"]
    assert memory["activations_bytes"] > 0
    assert memory["optimizer_bytes"] == memory["gradients_bytes"] == memory["weights_learnable_bytes"]


@pytest.mark.parametrize("model", MODEL_KEYS)
def test_a_resumed_run_is_the_same_to_the_bit(tiny, tmp_path, model):
    """Running statistics and momentum are in the checkpoint."""
    keys = (*MODEL_KEYS[model], "etf=nearest", "dataset.augment=crop_flip", "dataset.label_noise=0.2", "epochs=3")
    whole = train(tiny(*keys, root=tmp_path / "whole"))
    config = tiny(*keys, root=tmp_path / "cut")
    killed_after(1, config)
    assert_same_run(whole, train(config))


@pytest.mark.parametrize("model", MODEL_KEYS)
def test_bf16_lowers_the_training_step_alone(tiny, model):
    folder = train(tiny(*MODEL_KEYS[model], "precision=bf16", "epochs=2"))
    network, _, _ = load_trained(folder)
    assert {t.dtype for t in network.state_dict().values() if t.is_floating_point()} == {torch.float32}
