"""Names of runs stay, whatever keys come later; runs of before are read with what they had."""

import doctest

import pytest
import yaml
from conftest import composed
from omegaconf import OmegaConf

from nclab.config import keys
from nclab.config.schema import typed
from nclab.config.stored import stored_config, to_yaml
from nclab.etf import POLICIES

# Run names as they were before the configuration had plug-ins, samplers and phases.
NAMES = {
    "": "digits-mlp5x400-none-e60-s0-3c733b84",
    "experiment=simplex_etf/figure1 etf=last_k etf.k=2 seed=3": "fashion_mnist-mlp5x400-last2-e400-s3-036ec5e6",
    "etf=adaptive epochs=30 metrics.every=2 model.width=128": "digits-mlp5x128-adaptive-e30-s0-526239c7",
    "model=vit dataset=mnist optimizer=adamw etf=transformer_ffn etf.blocks=[1,3] model.blocks=3": (
        "mnist-vit3x64-ffn_1+3-e60-s0-3740aa64"
    ),
    "experiment=depth/rn1_mse model.blocks=8": "mnist-rn1_8x64-none-e5000-s0-ee44444c",
    "dataset=phrases model=tf loss.l2=0.001 optimizer.weight_decay=0 schedule=cosine": (
        "phrases-t11_5x64-none-e60-s0-9d6e8325"
    ),
    "experiment=unconstrained/nearest_etf seed=1": "free_features-ufm1x512_tau5-nearest-e100-s1-9a225be9",
    "etf=nearest etf.gradient=false": "digits-mlp5x400-nearest_constant-e60-s0-322c923a",
    "etf=last_k etf.bias=true": "digits-mlp5x400-last1-e60-s0-8414a152",
}


@pytest.mark.parametrize("line", NAMES)
def test_names_of_runs_stay(line):
    assert composed(*line.split()).run_name == NAMES[line]


def test_a_key_that_is_set_makes_another_run():
    plain = composed()
    assert composed("plugins=[json]").run_name != plain.run_name
    assert composed("plugins=[]").run_name == plain.run_name


@pytest.fixture
def later(monkeypatch):
    monkeypatch.setattr(keys, "LATER", {"group": {"name": "a"}, "group.inner": 1, "metrics.new": [2], "plain": None})


def test_later_keys_leave_the_identity_where_they_change_nothing(later):
    before = {"seed": 0, "metrics": {"every": 1}}
    now = {"plain": None, "group": {"name": "a", "inner": 1}, "seed": 0, "metrics": {"every": 1, "new": [2]}}
    assert keys.before_later_keys(now) == before
    assert keys.before_later_keys(before) == before
    changed = {**now, "group": {"name": "a", "inner": 2}, "plain": 0}
    assert keys.before_later_keys(changed) == {**before, "group": {"name": "a", "inner": 2}, "plain": 0}


def test_what_was_stored_before_a_key_is_read_with_its_value(later):
    stored = {"metrics": {"every": 3}, "other": {}}
    expected = {"plain": None, "group": {"name": "a", "inner": 1}, "metrics": {"every": 3, "new": [2]}, "other": {}}
    assert keys.with_later_keys(stored) == expected
    assert keys.with_later_keys(expected) == expected
    assert stored == {"metrics": {"every": 3}, "other": {}}


def test_a_later_key_of_one_option_leaves_the_others_alone(monkeypatch):
    monkeypatch.setattr(keys, "LATER", {"group.inner": 1})
    monkeypatch.setattr(keys, "LATER_OF", {"group.inner": {"a"}})
    assert keys.with_later_keys({"group": {"name": "a"}}) == {"group": {"inner": 1, "name": "a"}}
    assert keys.before_later_keys({"group": {"name": "a", "inner": 1}}) == {"group": {"name": "a"}}
    for tree in ({"group": {"name": "b", "inner": 1}}, {"group": {"name": "b"}}, {"inner": 1}):
        assert keys.before_later_keys(tree) == tree
        assert keys.with_later_keys(tree) == tree


def test_a_configuration_from_before_the_later_keys_is_the_same_run(tmp_path):
    config = composed()
    tree = yaml.safe_load(to_yaml(config))
    assert keys.with_later_keys(tree) == tree  # a run of today has them all
    before = keys.before_later_keys(tree)
    assert before.keys() < tree.keys()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(before))
    assert typed_stored(tmp_path) == config


def typed_stored(folder):
    return typed(OmegaConf.create(stored_config(folder / "config.yaml")))


def test_runs_of_one_figure_may_differ_in_the_machine_alone():
    for key in (*keys.MACHINE_KEYS, "tracker.mode", "seed", "etf.name"):
        assert keys.MAY_DIFFER.match(key), key
    for key in ("epochs", "metrics.every", "etf.k", "dataset.name", "seeding", "loss.l2"):
        assert not keys.MAY_DIFFER.match(key), key


def test_policies_that_ignore_measures_are_those_that_need_none():
    ignore = {name for name in POLICIES.names() if not POLICIES[name].settings(name=name).needs_measures}
    assert ignore == keys.IGNORE_MEASURES


def test_examples_are_right():
    assert doctest.testmod(keys).attempted > 2
    assert doctest.testmod(keys).failed == 0
