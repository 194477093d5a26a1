"""hydra/sweeper=optuna: trials that are drawn from the values of those before, and go on where they were."""

import json
import math
import subprocess
import sys
from statistics import median

import optuna
import pytest
from conftest import TINY, TINY_MODELS

from nclab.config.checks import ConfigError
from nclab.config.command import arguments
from nclab.config.place import CONF
from nclab.config.search import Between, Choices, SearchSettings
from nclab.config.sweep import planned
from nclab.run import search as module
from nclab.run.search import search_trials
from nclab.training.fit import Diverged

BASE = (
    *(word for word in TINY if not word.startswith("optimizer.lr")),
    *TINY_MODELS["model=mlp"],
    "epochs=1",
    "dataset.valid_size=60",
    "metrics.headline=valid/accuracy",
    "hydra/sweeper=optuna",
    "hydra.sweeper.direction=maximize",
)
RATE = "optimizer.lr=tag(log, interval(0.001, 1.0))"


def plan(tmp_path, *words):
    return planned(arguments(["-m", *BASE, f"output_root={tmp_path}", *words]), CONF)


def runs(root):
    return {folder.name: json.loads((folder / "summary.json").read_text()) for folder in root.glob("main/*")}


def lines(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith(("trial", "best"))]


def test_space_is_what_the_words_say(tmp_path):
    words = (
        RATE,
        "etf=none,last_k",
        "model.width=range(8,33,8)",
        "batch_size=interval(16, 64)",
        "optimizer.momentum=0.5",
    )
    search = plan(tmp_path, *words, "hydra.sweeper.trials=3", "hydra.sweeper.seed=7").search
    assert search.settings == SearchSettings(3, "maximize", "tpe", 10, 7)
    assert search.space == {
        "optimizer.lr": Between(0.001, 1.0, log=True),
        "etf": Choices(("none", "last_k")),
        "model.width": Between(8, 32, 8),
        "batch_size": Between(16, 64),
    }
    assert "optimizer.momentum=0.5" in search.fixed
    job = search.job({"optimizer.lr": 0.1, "etf": "last_k", "model.width": 16, "batch_size": 20})
    assert (job.config.optimizer.lr, job.config.etf.name, job.config.model.width) == (0.1, "last_k", 16)


def test_the_best_of_its_trials_is_named_and_the_same_command_draws_them_again(tmp_path, capsys, monkeypatch):
    words = (RATE, "hydra.sweeper.trials=4", "hydra.sweeper.startup=2")
    assert search_trials(plan(tmp_path / "one", *words).search)
    first, found = lines(capsys), runs(tmp_path / "one")
    assert len(first) == 5
    values = [said["headline"]["value"] for said in found.values()]
    assert len(set(values)) > 1
    best = max(values)
    assert first[-1].endswith(f": {best:.4f}")
    assert first[-1].split(": ")[2] in first[int(first[-1].split()[2].strip(":")) - 1]

    def never(*_):
        raise AssertionError("a finished trial was trained again")

    with monkeypatch.context() as patch:
        patch.setattr("nclab.training.fit.Fit.run", never)
        assert search_trials(plan(tmp_path / "one", *words).search)
    assert lines(capsys) == first


def test_an_interrupted_search_goes_on_to_the_same_end(tmp_path, capsys, monkeypatch):
    words = (RATE, "hydra.sweeper.trials=4", "hydra.sweeper.startup=1")
    assert search_trials(plan(tmp_path / "whole", *words).search)
    whole = lines(capsys)
    train_job, count = module.train_job, []

    def killed(job):
        count.append(job)
        if len(count) == 3:
            raise KeyboardInterrupt
        return train_job(job)

    with monkeypatch.context() as patch:
        patch.setattr(module, "train_job", killed)
        with pytest.raises(KeyboardInterrupt):
            search_trials(plan(tmp_path / "again", *words).search)
    capsys.readouterr()
    assert search_trials(plan(tmp_path / "again", *words).search)
    assert lines(capsys) == whole
    assert runs(tmp_path / "again").keys() == runs(tmp_path / "whole").keys()


def test_trials_are_drawn_from_the_values_of_those_before(tmp_path, monkeypatch, capsys):
    """Of a value that is largest at lr = 0.03, forty trials come nearer than as many random ones."""

    def distance(rate):
        return abs(math.log(rate / 0.03))

    def ends(algorithm):
        search = plan(tmp_path, RATE, "hydra.sweeper.trials=40", f"hydra.sweeper.algorithm={algorithm}").search
        monkeypatch.setattr(module, "_check", lambda search: None)
        monkeypatch.setattr(module, "_runs", lambda job: [])
        monkeypatch.setattr(type(search), "job", lambda self, values: None)
        monkeypatch.setattr(module, "_value", lambda search, values, said: -distance(values["optimizer.lr"]))
        assert search_trials(search)
        return median(distance(float(line.split("optimizer.lr=")[1].split(":")[0])) for line in lines(capsys)[20:40])

    assert ends("tpe") < ends("random") / 2


def test_a_trial_that_fails_or_cannot_be_is_left_out(tmp_path, capsys, monkeypatch):
    def value(job):
        if job.config.etf.k == 2:
            raise Diverged("training diverged")
        raise ConfigError("no such run")

    monkeypatch.setattr(module, "train_job", value)
    search = plan(tmp_path, "etf=last_k", "etf.k=1,2", "hydra.sweeper.trials=3").search
    assert not search_trials(search)
    out, err = capsys.readouterr()
    assert "left out: etf.k=1: no such run" in out
    assert "no trial ended with a number" in out
    assert "error: training diverged" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            (RATE, "metrics.headline=test/accuracy"),
            "must be of a validation split: expected metrics.headline=valid/acc",
        ),
        ((RATE, "metrics.headline=null"), "must be of a validation split"),
        ((RATE, "metrics.headline=valid/acuracy"), "valid/acuracy"),
        ((RATE, "dataset.valid_size=null"), "valid"),
        (("etf=last_k", "etf.k=1,9"), r"in etf.k=9\)"),
        ((RATE, "hydra.sweeper.direction=up"), "unknown hydra.sweeper.direction 'up'"),
        ((RATE, "hydra.sweeper.direction=null"), "hydra.sweeper.direction must be maximize or minimize"),
        ((RATE, "hydra.sweeper.trials=0"), "hydra.sweeper.trials must be between 1 and"),
        ((RATE, "hydra.sweeper.trails=3"), "trails"),
        ((), "has nothing to search"),
        (("seed=0,1",), "does not search seed"),
        (("optimizer.lr=interval(1.0,0.1)",), "expected two numbers, the smaller one first"),
        (("optimizer.lr=tag(log,interval(0,0.1))",), "expected two numbers above 0"),
        (("optimizer.lr=tag(lgo,interval(0.1,1))",), r"expected no tag, or tag\(log, interval\(a,b\)\)"),
        (("model.width=tag(log,range(8,64,8))",), "expected no tag"),
        (("~etf=none,last_k",), "expected a key with values"),
        ((RATE, "hydra/launcher=local"), "trains run after run: leave out hydra/launcher=local"),
        ((RATE, "skip_invalid=true"), "leave out skip_invalid=true"),
        ((RATE, "hydra/sweeper=ax"), "unknown hydra/sweeper 'ax'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, words, message):
    with pytest.raises(ConfigError, match=message):
        search_trials(plan(tmp_path, *words).search)
    assert not list(tmp_path.iterdir())


def test_without_m_and_without_optuna_it_says_so(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"hydra/sweeper=optuna trains many runs: expected -m"):
        planned(arguments([*BASE, f"output_root={tmp_path}"]), CONF)
    search = plan(tmp_path, RATE).search
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"optuna cannot be imported .*; .*pip install 'nclab\[optuna\]'"):
        search_trials(search)


def test_numbers_are_drawn_within_their_ends():
    whole = module._distribution(optuna, Between(8, 32, 8))
    assert (whole.low, whole.high, whole.step) == (8, 32, 8)
    assert isinstance(whole, optuna.distributions.IntDistribution)
    real = module._distribution(optuna, Between(0.1, 1.0, log=True))
    assert (real.low, real.high, real.log) == (0.1, 1.0, True)


def test_other_sweeps_do_not_import_optuna():
    code = "import sys, nclab.train, nclab.run.search; print('optuna' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
