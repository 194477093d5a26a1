"""Sweeps: every way into one has the same checks, and impossible runs are refused or left out.

They run inside this process, as `tests/test_bad_input.py` does; training is replaced by a list of the runs.
"""

import logging
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from nclab import train
from nclab.config.place import CONF
from nclab.config.schema import RunConfig

TINY = "dataset.train_size=200 dataset.test_size=100 model.depth=3 model.width=16 epochs=20 device=cpu threads=1"


@pytest.fixture
def command(tmp_path, monkeypatch, capfd) -> Callable[[str], tuple[int, list[RunConfig], str, str]]:
    """command("-m seed=0,1") -> exit code, the runs that were to be trained, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    trained: list[RunConfig] = []

    def run(line: str) -> tuple[int, list[RunConfig], str, str]:
        trained.clear()
        before = logging.root.handlers[:], logging.root.level
        monkeypatch.setattr("nclab.run.task.train", lambda config, tell: trained.append(config) or config.folder)
        monkeypatch.setattr(sys, "argv", ["nclab-train", *shlex.split(TINY), *shlex.split(line)])
        code = 0
        try:
            train.main()
        except SystemExit as end:
            code = end.code or 0
        GlobalHydra.instance().clear()
        logging.root.handlers[:], logging.root.level = before  # --info logs to the stdout of its time
        return code, list(trained), *capfd.readouterr()

    return run


def yaml_file(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


GLOBAL = "# @package _global_\n"
WAYS = {
    "-m seed=0,1": "",
    "seed=0,1 --multirun": "",
    "seed=0,1 -m optimizer.lr=0.1": "",
    "hydra.mode=MULTIRUN seed=0,1": "",
    "-m 'hydra.sweeper.params={seed: \"0,1\"}'": "",
    "-m hydra.sweeper.params.seed=0,1": "",
    "-m '+hydra.sweeper.params.seed=\"0,1\"'": "",
    "-m --config-dir own experiment=swept": "hydra:\n  sweeper:\n    params:\n      seed: 0,1\n",
    "--config-dir own experiment=swept": "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 0,1\n",
    "--config-dir own experiment=swept seed=0,1 -m": "epochs: 3\n",
    "hydra.searchpath=[file://own] experiment=swept seed=0,1 -m": "epochs: 3\n",
}


@pytest.mark.parametrize("line", WAYS)
def test_every_way_into_a_sweep_checks_all_runs_before_the_first(command, line):
    yaml_file("own/experiment/swept.yaml", GLOBAL + WAYS[line])
    code, trained, _, err = command(line)
    assert (code, [config.seed for config in trained]) == (0, [0, 1]), err
    if "epochs" in WAYS[line]:
        assert {config.epochs for config in trained} == {20}  # as the command line says
    code, trained, _, err = command(f"{line} batch_size=128,999")
    assert (code, trained, err.count("\n")) == (2, [], 1), err
    assert "batch_size must be at most 200, the train split; got 999 (in " in err
    assert "seed=0 batch_size=999; skip_invalid=true leaves out such runs" in err
    assert not Path("outputs").exists()


def test_a_plain_run_has_no_use_for_the_values_of_a_sweep(command):
    yaml_file("own/experiment/swept.yaml", GLOBAL + "hydra:\n  sweeper:\n    params:\n      seed: 0,1\n")
    code, trained, _, err = command("--config-dir own experiment=swept")
    assert (code, [config.seed for config in trained]) == (0, [0]), err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "-m hydra.mode=RUN seed=0,1",
            "-m asks for a sweep and hydra.mode=RUN for a single run",
        ),
        ("-m --run", "expected one of --run, --multirun, --cfg, --info; got --run and --multirun"),
        ("-m --cfg job", "expected one of --run, --multirun, --cfg, --info; got --multirun and --cfg"),
        ("--resolve", "--resolve goes with --cfg or --help; leave it out"),
        ("--package etf", "--package goes with --cfg; leave out --package etf"),
        ("--config-path=there", "--config-dir FOLDER adds YAML files of yours; leave out --config-path there"),
        ("--config-dir nowhere", "--config-dir must be a folder, got 'nowhere'"),
        (
            "--config-name nonsense",
            "no configuration 'nonsense': expected --config-name to name a YAML file",
        ),
        ("--cfg job -p nonsense", "package 'nonsense' not found in config"),
        ("--cfg job foo=1", "unknown key 'foo'; valid: "),
        ("--info nonsense", "argument --info/-i: invalid choice: 'nonsense'"),
        ("-sc", "Expecting one subcommand"),
        ("-sc install=nonsense", "No completion plugin for 'nonsense' found"),
        ("hydra.mode=nonsense", "Invalid value 'nonsense', expected one of [RUN, MULTIRUN]"),
        ("hydra.verbose=1", "of Hydra's own keys hydra/launcher, .*mean something here; leave out hydra.verbose=1"),
        ("hydra.verbose=true", "mean something here; leave out hydra.verbose=true"),
        ("hydra.job.name=x", "mean something here; leave out hydra.job.name=x"),
        ("'hydra.job.env_set={A: b}'", "mean something here; leave out hydra.job.env_set={A: b}"),
        ("hydra.nonsense=1", "mean something here; leave out hydra.nonsense=1"),
        ("hydra=x", "mean something here; leave out hydra=x"),
        ("-m hydra/sweeper=ax seed=0,1", "unknown hydra/sweeper 'ax'; valid: basic, optuna"),
        ("-m hydra/launcher=nonsense seed=0,1", "unknown hydra/launcher 'nonsense'; valid: basic, local, slurm"),
        ("-m hydra/launcher=local,basic seed=0,1", "a sweep has one hydra/launcher for all its runs"),
        ("-m hydra.sweeper.params=3", 'hydra.sweeper.params must be a mapping such as {seed: "0,1"}; got hydra'),
        ("-m '+hydra.sweeper.params.sed=\"0,1\"'", "unknown key 'sed'; did you mean seed?"),
        ("-m hydra.launcher.jobs=2", "unknown key 'hydra.launcher.jobs'; choose hydra/launcher=local or slurm"),
        ("hydra/launcher=local hydra.launcher.jobs=2", "a launcher starts sweeps: expected -m (--multirun) beside"),
        ("+seed.x=1", "seed: Value '{'x': 1}' of type 'DictConfig' could not be converted"),
        (
            "seed=0,1",
            "seed=0,1 names several values: add -m to train a run for each, or write seeds=[0,1] for one process",
        ),
        ("hydra.sweeper.params.seed=0,1", "hydra.sweeper.params.seed=0,1 names the values of a sweep: add -m"),
        ("'hydra.sweeper.params={seed: \"0,1\"}'", "names the values of a sweep: add -m to train a run for each"),
        ("-m seed=0,1 skip_invalid=maybe", "skip_invalid: .*; expected bool, got maybe"),
    ],
)
def test_what_a_command_cannot_mean_is_refused_in_one_line(command, line, message):
    code, trained, _, err = command(line)
    assert (code, trained, err.count("\n")) == (2, [], 1), err
    assert re.search(".*".join(map(re.escape, message.split(".*"))), err), err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hydra:\n  run:\n    dir: there\n", "hydra.run.dir does nothing here; leave it out of the YAML file"),
        ("hydra:\n  job:\n    env_set:\n      A: b\n", "hydra.job.env_set does nothing here"),
        ("hydra:\n  callbacks:\n    a:\n      _target_: b\n", "hydra.callbacks does nothing here"),
    ],
)
def test_keys_of_hydra_in_a_file_that_would_do_nothing_are_refused(command, text, message):
    yaml_file("own/experiment/odd.yaml", GLOBAL + text)
    code, trained, _, err = command("--config-dir own experiment=odd")
    assert (code, trained, err.count("\n")) == (2, [], 1), err
    assert message in err


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("etf=last_k --cfg job etf.k=2", "k: 2"),
        ("hydra/launcher=local --cfg hydra -p hydra.launcher", "stack: 1"),
        ("--info config", "etf"),
    ],
)
def test_what_only_shows_trains_nothing_and_takes_options_anywhere(command, line, shown):
    code, trained, out, err = command(line)
    assert (code, trained, err) == (0, [], "")
    assert shown in out


def test_impossible_runs_of_a_sweep_are_left_out_where_it_is_asked_for(command):
    sweep = "-m etf=none,last_k,adaptive etf.k=1,2,9 seed=0,1"
    code, trained, _, err = command(sweep)
    assert (code, trained, err.count("\n")) == (2, [], 1)
    assert "'etf.k' of etf=none; choose one of etf=clock, last_k (in etf=none etf.k=1 seed=0; skip_invalid=true " in err
    code, trained, out, err = command(f"{sweep} skip_invalid=true")
    assert (code, err) == (0, "")
    names = [(config.etf.name, getattr(config.etf, "k", None), config.seed) for config in trained]
    once = [(name, k, seed) for name, k in (("none", None), ("last_k", 1), ("last_k", 2)) for seed in (0, 1)]
    assert names == [*once, ("adaptive", None, 0), ("adaptive", None, 1)]
    plain = command("seed=1")[1]
    assert [plain[0].run_name] == [c.run_name for c in trained if c.etf.name == "none" and c.seed == 1]
    assert out.splitlines() == [
        "etf.k means nothing with etf=none, which is trained without it",
        "etf.k means nothing with etf=adaptive, which is trained without it",
        "left out: etf=last_k etf.k=9 seed=0 and 1 more: etf.k must be between 1 and 3, the linear layers of this "
        "model (fc1, fc2, fc3); got 9",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-m etf=last_k etf.k=8,9", "etf.k must be between 1 and 3"),
        (
            "-m etf=none,last_k etf.kk=1,2",
            "unknown key 'etf.kk' of etf=none; did you mean etf.k (choose one of etf=clock, last_k)?",
        ),
        ("-m etf=none,adaptive etf.k=1", "unknown key 'etf.k' of etf=none; choose one of etf=clock, last_k"),
    ],
)
def test_a_sweep_without_a_possible_run_is_refused(command, line, message):
    code, trained, _, err = command(f"{line} skip_invalid=true")
    assert (code, trained, err.count("\n")) == (2, [], 1), err
    assert message in err
    assert "leaves out" not in err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-m etf=none,lastk", "unknown etf 'lastk'; did you mean last_k? valid: .* (in etf=lastk)"),
        ("-m etf=last_k etf.k=1,x", "etf.k: .*expected int, got x (in etf.k=x)"),
        (
            "-m etf=none,last_k model.widht=1,2",
            "unknown key 'model.widht' of model=mlp; did you mean model.width",
        ),
        ("-m precision=float32,fp8", "unknown precision 'fp8'; valid: float32, bf16, float64 (in precision=fp8)"),
        ("-m device=cpu,tpu", "unknown device 'tpu'; did you mean cpu? .* (in device=tpu)"),
        ("-m model.norm=none,layer", "unknown model.norm 'layer'; valid: batch, none (in model.norm=layer)"),
        ("-m loss.l2_skip=none,bias", "unknown loss.l2_skip 'bias'; did you mean biases? .* (in loss.l2_skip=bias)"),
        ("-m epochs=1,0", "epochs must be at least 1 and finite, got 0 (in epochs=0)"),
        ("-m etf=last_k etf.k=1,9 etf.frame=random,rnd", "unknown etf.frame 'rnd'; did you mean random?"),
        ("-m metrics.headline=loss,test/los", "unknown metrics.headline 'test/los'; did you mean test/loss? .* (in "),
        ("-m metrics.suite=[collapse],[colapse]", "unknown metric 'colapse'; did you mean collapse?"),
    ],
)
def test_what_no_run_can_have_refuses_the_sweep_whatever_is_left_out(command, line, message):
    for words in (line, f"{line} skip_invalid=true"):
        code, trained, _, err = command(words)
        assert (code, trained, err.count("\n")) == (2, [], 1), err
        assert re.search(".*".join(map(re.escape, message.split(".*"))), err), err
        assert "leaves out" not in err


def test_a_value_that_another_option_takes_is_left_out(command):
    """`pre` is a norm of a transformer alone, `layer` of no model here."""
    line = "-m model=mlp,tf model.norm=none,pre model.heads=2 skip_invalid=true"
    code, trained, out, err = command(line)
    assert (code, [(c.model.name, c.model.norm) for c in trained]) == (0, [("mlp", "none"), ("tf", "pre")]), err
    assert "left out: model=mlp model.norm=pre: unknown model.norm 'pre'; valid: batch, none\n" in out
    code, trained, _, err = command(line.replace("pre", "pre,layer"))
    assert (code, trained, err.count("\n")) == (2, [], 1)
    assert "unknown model.norm 'layer'; valid: batch, none (in model=mlp model.norm=layer)" in err


def test_skip_invalid_is_offered_where_the_value_is_right_beside_another_option(command):
    code, trained, _, err = command("-m model=rn,tf ~model.depth model.norm=post")
    assert (code, trained, err.count("\n")) == (2, [], 1)
    assert "skip_invalid" not in err or "trains the others" in err


def test_skip_invalid_is_offered_only_where_a_run_is_left(command):
    code, trained, _, err = command("-m seeds=[0,1] seed=0,1")
    assert (code, trained, err.count("\n")) == (2, [], 1), err
    assert "seeds takes the place of seed; leave out one of them" in err
    assert "leaves out" not in err


@pytest.mark.parametrize("word", ["skip_invalid=yes", "++skip_invalid=true", "skip_invalid=True", "skip_invalid=on"])
def test_every_way_to_write_true_leaves_out(command, word):
    code, trained, _, err = command(f"-m batch_size=64,999 {word}")
    assert (code, [config.batch_size for config in trained]) == (0, [64]), err


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("hydra:\n  sweeper:\n    params:\n      seed: 0,1\n", "hydra.sweeper.params"),
        ("defaults:\n  - override /hydra/launcher: local\n", "hydra/launcher"),
        ("skip_invalid: true\n", "skip_invalid"),
    ],
)
def test_what_swept_experiments_say_of_the_whole_sweep_is_refused(command, text, key):
    yaml_file("own/experiment/a.yaml", GLOBAL + "epochs: 3\n")
    yaml_file("own/experiment/b.yaml", GLOBAL + text)
    for skip in ("", "skip_invalid=true") if key != "skip_invalid" else ("",):
        code, trained, _, err = command(f"-m --config-dir own experiment=a,b {skip}")
        assert (code, trained, err.count("\n")) == (2, [], 1), err
        assert f"{key} must be the same for all runs of a sweep: expected " in err
        assert " of experiment=b; type" in err
    assert command("-m --config-dir own experiment=a,a")[0] == 0


def test_a_run_is_trained_once_whatever_launches_it(command, monkeypatch):
    code, trained, out, err = command("-m threads=1,2 device=cpu,auto overwrite=true")
    assert (code, [(c.threads, c.device) for c in trained]) == (0, [(1, "cpu")]), err
    assert "left out: device=auto threads=1: the same run as device=cpu threads=1\n" in out
    assert out.count("left out: ") == 3
    seeds = []
    monkeypatch.setattr("nclab.run.task.train_seeds", lambda runs: seeds.append([run.seed for run in runs]) or {})
    assert command("-m seeds=[0,1],[1,2],[1] overwrite=true")[0] == 0
    assert seeds == [[0, 1], [2]]


def test_an_option_of_ones_own_is_known_by_its_entry(command):
    yaml_file("own/model/wide.yaml", "defaults:\n  - mlp\nwidth: 64\n")
    line = "-m --config-dir own model=wide,vit model.norm=none skip_invalid=true"
    code, trained, out, err = command(line)
    assert (code, [config.model.name for config in trained]) == (0, ["mlp", "vit"]), err
    assert "model.norm means nothing with model=vit, which is trained without it" in out


PLUGIN = """
from nclab.etf.policies.last_k import LastK, LastKSettings
from nclab.etf.policy import POLICIES

@POLICIES.add("brought", LastKSettings)
class Brought(LastK):
    pass
"""


def test_a_plugin_of_an_experiments_file_brings_the_option_that_the_file_chooses(command, own_registries, monkeypatch):
    """Alone and in a sweep; --config-name as well. What is typed takes its place."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("brings.py").write_text(PLUGIN)
    chosen = "defaults:\n  - override /etf: brought\nplugins: [brings]\n"
    yaml_file("own/experiment/bringing.yaml", GLOBAL + chosen)
    yaml_file("own/whole.yaml", "defaults:\n  - train\n  - override etf: brought\n  - _self_\nplugins: [brings]\n")
    code, _, _, err = command("--config-dir own experiment=bringing plugins=[]")
    assert (code, err.count("\n")) == (2, 1)
    assert "unknown etf 'brought'" in err
    for line in ("experiment=bringing", "-m experiment=bringing,bringing seed=0", "--config-name whole"):
        code, trained, _, err = command(f"--config-dir own {line}")
        assert (code, [(c.etf.name, c.plugins) for c in trained]) == (0, [("brought", ["brings"])]), err
    code, _, out, err = command("--config-dir own experiment=bringing --cfg job")
    assert (code, "name: brought" in out) == (0, True), err


def test_a_configuration_of_ones_own_is_trained(command):
    yaml_file("own/mine.yaml", "defaults:\n  - train\n  - _self_\nseed: 7\n")
    for line in ("--config-name mine", "-m --config-name mine epochs=2"):
        code, trained, _, err = command(f"--config-dir own {line}")
        assert (code, [config.seed for config in trained]) == (0, [7]), err


@pytest.mark.parametrize("line", ["experiment=odd seed=1", "-m experiment=odd seed=0,1"])
def test_a_yaml_file_may_ask_for_tracebacks(command, line):
    yaml_file("own/experiment/odd.yaml", GLOBAL + "debug: true\nseeds: [0, 1]\n")
    code, trained, _, err = command(f"--config-dir own {line}")
    assert (code, trained) == (2, [])
    assert err.startswith("Traceback (most recent call last)")
    assert "seeds takes the place of seed" in err.splitlines()[-1]


def test_a_broken_yaml_file_is_named_with_its_line(command):
    yaml_file("own/experiment/odd.yaml", GLOBAL + "seed: 1\nepochs: [1\n")
    for line in ("", "-m seed=0,1", "--cfg job"):
        code, trained, _, err = command(f"--config-dir own experiment=odd {line}")
        assert (code, trained, err.count("\n")) == (2, [], 1), err
        assert re.search(r"own/experiment/odd.yaml, line \d: expected YAML; while parsing a flow sequence", err), err


def test_planning_does_not_make_the_text_of_help_for_every_run(command, monkeypatch):
    asked = []
    monkeypatch.setattr("nclab.config.docs.groups", lambda: asked.append(1) or iter(()))
    assert len(command("-m seed=range(4)")[1]) == 4
    assert len(asked) <= 1


def test_missing_data_are_no_impossible_run(command):
    code, trained, _, err = command("-m dataset=digits,mnist skip_invalid=true")
    assert (code, trained) == (2, [])
    assert "mnist is not under data" in err


def test_the_demo_is_one_command_with_the_runs_of_old(command):
    """make demo: the names are those of the three commands that it was once."""
    makefile = (CONF.parent / "Makefile").read_text().replace("\\\n", " ")
    (line,) = (line for line in makefile.splitlines() if "experiment=demo" in line)
    words = line.partition("--multirun")[2].replace("$(OUTPUT)", "outputs")
    names = [config.run_name for config in command(f"-m {words}")[1]]
    old = ("etf=none", "etf=last_k etf.k=1,2,3", "etf=adaptive")
    assert names == [c.run_name for keys in old for c in command(f"-m experiment=demo {keys} seed=0,1,2")[1]]
    assert len(set(names)) == 15
