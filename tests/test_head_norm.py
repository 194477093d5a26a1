"""model.head_norm: batch norm of what the classifier reads."""

import pytest
import torch
from conftest import composed
from run_folders import rows

from nclab.config.keys import with_later_keys
from nclab.interfaces.shapes import ImageShape
from nclab.models import MODELS
from nclab.run.execute import train
from nclab.run.trained import load_trained

KEYS = {"mlp": {"depth": 3, "width": 12}, "cnn": {"channels": [4, 12], "tau": 2.0}}


def made(name, head_norm, seed=0):
    torch.manual_seed(seed)
    entry = MODELS[name]
    return entry.build(entry.settings(name=name, head_norm=head_norm, **KEYS[name]), ImageShape(1, 8, 8), 5)


@pytest.mark.parametrize("name", KEYS)
def test_the_classifier_reads_the_batch_norm_of_the_last_feature(name):
    x = torch.rand(30, 1, 8, 8)
    plain, model = made(name, "none"), made(name, "batch")
    assert all(map(torch.equal, plain.parameters(), list(model.parameters())[: len(list(plain.parameters()))]))
    out, before = model(x), plain(x)
    last = "act2" if name == "mlp" else "conv2"
    h = out.features["normed"]
    torch.testing.assert_close(out.features[last], before.features[last])
    torch.testing.assert_close(h, torch.nn.functional.batch_norm(before.features[last], None, None, training=True))
    assert (h < 0).any()
    assert h.mean(0).abs().max() < 1e-5
    read = h if name == "mlp" else 2 * torch.nn.functional.normalize(h, dim=1)
    torch.testing.assert_close(out.prediction, model.get_submodule(model.classifier)(read))
    assert model.inputs()[model.classifier] == list(out.features)[-1] == ("normed" if name == "mlp" else "scaled")
    for kind in ("linear", "activation"):
        assert [p.layer for p in model.probes(kind) if p.role == "classifier_input"] == [list(out.features)[-1]]


def test_an_unknown_one_is_refused():
    for name in KEYS:
        with pytest.raises(ValueError, match=r"unknown model\.head_norm 'layer'; valid: none, batch"):
            made(name, "layer")


def test_names_of_runs_without_it_stay_and_old_runs_are_read_with_it():
    for model in ("mlp", "cnn", "vit"):
        config = composed(f"model={model}")
        assert "head_norm" not in config.identity()["model"]
        stored = with_later_keys({"model": {"name": model}})["model"]
        assert stored == ({"name": "vit"} if model == "vit" else {"name": model, "head_norm": "none"})
    assert composed("model.head_norm=batch").run_name != composed().run_name
    assert "mlp5x400_batch_head" in composed("model.head_norm=batch").run_name
    assert "cnn16x32x64_batch_head" in composed("model=cnn", "model.head_norm=batch").run_name


def test_it_is_measured_in_a_run(tiny):
    folder = train(tiny("model.head_norm=batch", "epochs=1"))
    assert {layer for _, _, layer, metric, _ in rows(folder) if metric == "nc3"} == {"normed"}
    model, data, _ = load_trained(folder)
    assert "normed" in model(data.inputs(data.train.samples[:4])).features
