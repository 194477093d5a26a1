"""Many command lines are composed by sharing what they choose: the same configurations, the same errors."""

import shlex
from dataclasses import dataclass, field

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ReadonlyConfigError

from nclab.config import composing as module
from nclab.config.checks import ConfigError, checked
from nclab.config.composing import Composer, composed, composing, run_config
from nclab.config.place import CONF

LINES = [
    "dataset=digits etf=last_k etf.k=2",
    "dataset=digits etf=last_k etf.k=3 epochs=4",
    "etf=last_k etf.k=1 dataset=digits dataset.train_size=200",
    "model=mlp model.width=16 model.depth=3 epochs=2 optimizer.lr=0.5 optimizer.lr=0.25",
    "experiment=simplex_etf/figure1 model.width=32 model.depth=4",
    "experiment=depth/rn1 model.blocks=3 loss.l2=0.01",
    "'metrics.suite=[collapse]' metrics.every=3",
    "metrics.every=3 metrics={every:2}",
    "metrics={every:2} metrics.every=3",
    "++metrics.every=2 +dataset.train_size=100 ~metrics.suite",
    "hydra.job.name=other metrics.every=2",
    "plugins=[] seed=3 model.width=3 output_root=\"'a b'\"",
]
WRONG = [
    "etf=last_k etf.kk=2",
    "etf=none etf.k=2",
    "model.width=broad",
    "model.width.more=2",
    "optimizer.lr=0.1,0.2",
    "+model.width2=3",
    "epochs=0 model.width=3",
    "model.widht=3 epochs=0",
    "etf@model.x=3",
    "dataset=mnits model.width=3",
    "metrics.every={a:1}",
]


def run_config_of(line: str):
    with composing(CONF):
        return run_config(composed(line.split()))


def outcome(make, line: str):
    words = shlex.split(line)
    try:
        whole = make(words)
        return run_config(whole), OmegaConf.to_container(whole.hydra.runtime.choices)
    except ConfigError as error:
        return str(error)


def test_configurations_share_no_object():
    with composing(CONF):
        composer = Composer()
        one, two = (run_config(composer(["dataset=digits", "metrics.suite=[collapse]"])) for _ in range(2))
    assert one == two
    one.metrics.suite.append("probe")
    one.model.width = 3
    assert two.metrics.suite == ["collapse"]
    assert two.model.width == run_config_of("dataset=digits").model.width


def test_settings_ask_the_environment_anew(monkeypatch):
    for project in ("one", "two"):
        monkeypatch.setenv("WANDB_PROJECT", project)
        assert run_config_of("tracker=wandb tracker.mode=offline").tracker.project == project


def test_settings_may_hold_settings():
    @dataclass
    class Inner:
        a: int = 1

    @dataclass
    class Outer:
        name: str = "outer"
        inner: Inner = field(default_factory=Inner)

    for _ in range(2):
        made = checked("model", Outer, OmegaConf.create({"name": "outer", "inner": {"a": 2}}))
        assert made == Outer(inner=Inner(2))


def test_values_of_another_type_are_another_configuration():
    """1 and true are equal to Python, and one of them is no width."""
    assert run_config_of("dataset=digits model.width=1").model.width == 1
    with pytest.raises(ConfigError, match=r"model\.width: .*expected int, got True"):
        run_config_of("dataset=digits model.width=true")


@pytest.mark.parametrize("line", LINES + WRONG)
def test_a_line_that_shares_its_choices_is_what_it_is_alone(line):
    with composing(CONF):
        composer = Composer()
        alone = outcome(composed, line)
        assert outcome(composer, "dataset=digits epochs=4 model.width=77 metrics.every=7")  # leaves nothing behind
        assert outcome(composer, line) == alone
        assert outcome(composer, line) == alone
    assert isinstance(alone, str) == (line in WRONG)


def of_hydra(whole):
    """What depends on the words of the line, through Hydra's node and in it."""
    config, node = run_config(whole), whole.hydra
    return config.data_root, node.sweep.dir, OmegaConf.to_container(node.overrides), node.job.override_dirname


def test_hydras_node_is_that_of_its_own_line():
    """The first is read after the second was made."""
    both = [
        ["output_root=/a", "experiment_name=one", "dataset=digits", "data_root=${hydra:sweep.dir}"],
        ["output_root=/b", "experiment_name=two", "dataset=digits", "data_root=${hydra:sweep.dir}"],
    ]
    with composing(CONF):
        composer = Composer()
        shared = [composer(words) for words in both]
        assert [of_hydra(whole) for whole in shared] == [of_hydra(composed(words)) for words in both]
    assert [whole.hydra.sweep.dir for whole in shared] == ["/a/one", "/b/two"]


@pytest.mark.parametrize(
    ("part", "key"), [("runtime", "cwd"), ("sweep", "dir"), ("job", "name"), ("launcher", "_target_")]
)
def test_what_lines_share_is_read_only(part, key):
    with composing(CONF):
        composer = Composer()
        for _ in range(2):
            with pytest.raises(ReadonlyConfigError):
                composer(["dataset=digits"]).hydra[part][key] = "elsewhere"


def test_choices_are_composed_once(monkeypatch):
    made = []
    monkeypatch.setattr(module, "composed", lambda words, name: made.append(words) or composed(words, name))
    with composing(CONF):
        composer = Composer()
        widths = [run_config(composer(["dataset=digits", f"model.width={width}"])).model.width for width in (8, 9, 10)]
        words = ["dataset=digits", "epochs=4", "output_root=elsewhere"]
        seeds = [run_config(composer([*words, f"seed={seed}"])).seed for seed in (3, 4)]
    assert (widths, seeds) == ([8, 9, 10], [3, 4])
    assert made == [("dataset=digits",)]
