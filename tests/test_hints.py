"""What a wrong word of a command line was meant to be, said in one line."""

import doctest
import shlex
from pathlib import Path

import pytest

from nclab.config import composing, hints
from nclab.config.checks import ConfigError
from nclab.config.command import arguments, with_home_quoted
from nclab.config.composing import parsed
from nclab.config.place import CONF
from nclab.config.sweep import planned
from nclab.interfaces import valid
from nclab.system import words


def refusal(line: str) -> str:
    """What nclab-train says of these words before it trains; \"\" where it has nothing to say."""
    try:
        planned(arguments(with_home_quoted(shlex.split(line))), CONF)
    except ConfigError as error:
        return str(error)
    return ""


HINTS = {
    "datset=mnist": "unknown key 'datset'; did you mean dataset?",
    "+datset=mnist": "unknown key 'datset'; did you mean dataset?",
    "lr=0.1": "unknown key 'lr'; did you mean optimizer.lr?",
    "k=2": "unknown key 'k'; did you mean etf.k (choose etf=last_k)?",
    "k=2 etf=last_k": "unknown key 'k'; did you mean etf.k?",
    "train_size=100": "unknown key 'train_size'; did you mean dataset.train_size?",
    "epoch=5": "unknown key 'epoch'; did you mean epochs?",
    "optimiser.lr=1": "unknown key 'optimiser.lr'; did you mean optimizer.lr?",
    "optimizer.momentm=1": "unknown key 'optimizer.momentm' of optimizer=sgd; did you mean optimizer.momentum?",
    "model.epochs=3": "unknown key 'model.epochs' of model=mlp; did you mean epochs?",
    "metrics.evry=2": "unknown key 'metrics.evry'; did you mean metrics.every?",
    "metrics.xyz=2": "unknown key 'metrics.xyz'; valid: every, probe, eps, batch_size, suite, headline, memory_gib",
    "etf.k=2": "unknown key 'etf.k' of etf=none; choose etf=last_k",
    "etf=last_k etf.kk=2": "unknown key 'etf.kk' of etf=last_k; did you mean etf.k?",
    "model=vit model.pol=cls": "unknown key 'model.pol' of model=vit; did you mean model.pool?",
    "dataset=mnst": "unknown dataset 'mnst'; did you mean mnist? valid: cifar10, cifar100, digits",
    "model=MLP": "unknown model 'MLP'; valid: mlp, rn, tf, vit",
    "experiment=dmo": "unknown experiment 'dmo'; did you mean demo? valid: demo, depth/rn1",
    "precision=bf61": "unknown precision 'bf61'; did you mean bf16? valid: float32, bf16",
    "device=gpu": "unknown device 'gpu'; did you mean cpu? valid: auto, cpu, cuda, cuda:N",
    "dataset.augment=cropflip": "unknown dataset.augment 'cropflip'; did you mean crop_flip? valid: none, crop_flip",
    "--epochs 5": "unknown option --epochs; write epochs=5",
    "--epochs=5": "unknown option --epochs=5; write epochs=5",
    "-m --experiment demo": "unknown option --experiment; write experiment=demo",
    "--batch-size 64 seed=1": "unknown option --batch-size; write batch_size=64",
    "--learn 64": "unrecognized arguments: --learn",
    "seed=0,1,2": "add -m to train a run for each, or write 'seed=[0,1,2]' where one list is meant",
    "seeds=[0": "a list is [a,b], a mapping {a: b}, without spaces or in quotes for the shell: 'seeds=[0]'",
    "seeds=[0, 1]": "cannot read 'seeds=[0,': a list is [a,b]",
    "metrics={": "a list is [a,b], a mapping {a: b}, without spaces or in quotes for the shell: 'metrics={}'",
    "output_root=ünï": """quote the value within quotes for the shell: "output_root='ünï'\"""",
    "output_root=a=b=c": """quote the value within quotes for the shell: "output_root='a=b=c'\"""",
    "ünï=3": "cannot read 'ünï=3': 'ünï' is no key",
    "mnist": "expected KEY=VALUE, got 'mnist'; did you mean dataset=mnist?",
    "epochs": "expected KEY=VALUE, got 'epochs'; did you mean epochs=VALUE?",
}


@pytest.mark.parametrize(("line", "hint"), HINTS.items(), ids=list(HINTS))
def test_a_wrong_word_is_answered_by_what_was_meant(line, hint):
    said = refusal(line)
    assert hint in said
    assert "\n" not in said
    assert ":;" not in said
    assert "Lexer" not in said


@pytest.mark.parametrize("value", ["ünï", "a=b", "it's", "x;y", "\\'", "(x)", "a!b", "$x ü"])
def test_what_it_says_to_write_can_be_read(value):
    said = refusal(shlex.quote(f"output_root={value}"))
    words = shlex.split(said[said.index("for the shell: ") + len("for the shell: ") :])
    (override,) = parsed(words)
    assert str(override.value().text if hasattr(override.value(), "text") else override.value()) == value


def test_right_words_have_no_answer():
    assert refusal("etf=last_k etf.k=2 dataset=phrases model=tf seeds=[0,1] 'output_root=a b'") == ""


@pytest.mark.parametrize("word", ["output_root=~/there", "\"output_root='~/there'\"", "'output_root=\"~/there\"'"])
def test_the_home_folder_is_expanded_where_a_folder_is_expected(monkeypatch, tmp_path, word):
    monkeypatch.setenv("HOME", str(tmp_path))
    line = f"{word} {word.replace('output_root', 'data_root')} {word.replace('output_root', 'resume')}"
    (job,) = planned(arguments(with_home_quoted(shlex.split(line))), CONF).jobs
    assert [job.config.output_root, job.config.data_root, job.config.resume] == [str(tmp_path / "there")] * 3
    assert job.config.folder == Path(tmp_path / "there")
    assert "names the home folder of a user who has none here" in refusal("\"output_root='~nobody_of_this/x'\"")


def test_examples_are_right():
    results = [doctest.testmod(module) for module in (hints, valid, words, composing)]
    assert sum(result.attempted for result in results) > 7
    assert not any(result.failed for result in results)
