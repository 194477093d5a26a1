"""Label smoothing and focal loss: against torch's own, formulas in float64, limits, stacked seeds and wrong keys."""

import pytest
import torch
from conftest import composed
from torch.func import vmap
from torch.nn import functional

from nclab.config.schema import ConfigError
from nclab.data import load_dataset
from nclab.data.free_features import FreeFeaturesSettings
from nclab.interfaces.batch import Batch, Output
from nclab.interfaces.targets import Values
from nclab.training.objective import LOSSES

LOGITS = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1])


def loss(name, **settings):
    entry = LOSSES[name]
    return entry.build(entry.settings(name=name, **settings))


def given(logits=LOGITS):
    return Output(logits, {}), Batch(logits, LABELS, torch.arange(7), 7)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_label_smoothing_is_torchs_and_its_formula(smoothing):
    own = loss("label_smoothing", smoothing=smoothing)
    torch.testing.assert_close(
        own.mean(*given()), functional.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing), rtol=1e-14, atol=0
    )
    log_p = LOGITS - LOGITS.exp().sum(1, keepdim=True).log()
    wanted = smoothing / 5 + (1 - smoothing) * functional.one_hot(LABELS, 5)
    torch.testing.assert_close(own.each(*given()), -(wanted * log_p).sum(1))


def test_smoothed_labels_are_best_at_a_finite_margin():
    """At logits m e_y the loss is least where p_y = 1 - s + s / C: m = log(1 + C (1 - s) / s)."""
    own, best = loss("label_smoothing", smoothing=0.1), float(torch.tensor(1 + 5 * 9.0).log())
    at = [float(own.mean(*given(m * functional.one_hot(LABELS, 5).double()))) for m in (best - 0.1, best, best + 0.1)]
    assert at[1] < min(at[0], at[2])


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
def test_focal_loss_is_its_formula(gamma):
    p = torch.softmax(LOGITS, 1)[torch.arange(7), LABELS]
    torch.testing.assert_close(loss("focal", gamma=gamma).each(*given()), -((1 - p) ** gamma) * p.log())


def test_focal_loss_of_sure_predictions_has_a_gradient():
    """At margin m it is log(1 + r) (r / (1 + r))^gamma, r = 4 exp(-m); where rounding makes p_y 1, both are 0."""
    for margin, size in ((10.0, 1.0), (60.0, 0.0)):
        logits = (margin * functional.one_hot(LABELS, 5).double()).requires_grad_()
        found = loss("focal", gamma=2.0).each(*given(logits))
        rest = 4 * torch.tensor(-margin, dtype=torch.float64).exp()
        expected = size * rest.log1p() * (rest / (1 + rest)) ** 2
        torch.testing.assert_close(found, expected.expand(7), rtol=1e-9, atol=0)
        (gradient,) = torch.autograd.grad(found.sum(), logits)
        torch.testing.assert_close(gradient[0, 0], -3 * size * rest**3, rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", ["label_smoothing", "focal"])
def test_gradients_against_differences_and_many_seeds_at_once(name):
    own = loss(name)
    assert torch.autograd.gradcheck(lambda z: own.mean(*given(z)), LOGITS.clone().requires_grad_())
    both = torch.stack([LOGITS, LOGITS.flip(1)])
    torch.testing.assert_close(
        vmap(lambda z: own.mean(*given(z)))(both), torch.stack([own.mean(*given(z)) for z in both])
    )
    assert own.scores(*given()).keys() == {"loss", "accuracy"}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("label_smoothing", {"smoothing": 1.0}, r"loss\.smoothing must be in \[0, 1\), got 1"),
        ("label_smoothing", {"smoothing": -0.1}, r"loss\.smoothing must be in \[0, 1\), got -0\.1"),
        ("focal", {"gamma": 0.5}, r"loss\.gamma must be 0 or at least 1, and finite; got 0\.5"),
        ("focal", {"gamma": float("inf")}, r"loss\.gamma must be 0 or at least 1, and finite; got inf"),
    ],
)
def test_wrong_settings_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        loss(name, **settings)


@pytest.mark.parametrize("name", ["label_smoothing", "focal"])
def test_values_have_no_labels(name):
    dataset = load_dataset(FreeFeaturesSettings(classes=3, per_class=2), "data")
    object.__setattr__(dataset, "targets", Values(1))
    with pytest.raises(ValueError, match=f"loss={name} needs classes, and the dataset holds values"):
        loss(name).check(torch.nn.Linear(1, 1), dataset)


def test_they_are_chosen_and_named_on_the_command_line():
    assert composed("loss=label_smoothing", "loss.smoothing=0.2").loss.smoothing == 0.2
    assert composed("loss=focal").run_name != composed("loss=focal", "loss.gamma=1").run_name
    with pytest.raises(ConfigError, match=r"loss\.smoothing must be in"):
        composed("loss=label_smoothing", "loss.smoothing=2")
