"""What a wrong word of a command line was meant to be, said in one line."""

import doctest
import shlex
from pathlib import Path

import pytest
from conftest import registries_of_their_own

import nclab
from nclab.config import composing, hints, synonyms
from nclab.config.checks import ConfigError
from nclab.config.command import arguments, with_home_quoted
from nclab.config.composing import parsed
from nclab.config.place import CONF
from nclab.config.sweep import planned
from nclab.data import DATASETS
from nclab.data.images import ImageSettings
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
    "k=2": "unknown key 'k'; did you mean etf.k (choose one of etf=clock, last_k)?",
    "k=2 etf=last_k": "unknown key 'k'; did you mean etf.k?",
    "train_size=100": "unknown key 'train_size'; did you mean dataset.train_size?",
    "epoch=5": "unknown key 'epoch'; did you mean epochs?",
    "optimiser.lr=1": "unknown key 'optimiser.lr'; did you mean optimizer.lr?",
    "optimizer.momentm=1": "unknown key 'optimizer.momentm' of optimizer=sgd; did you mean optimizer.momentum?",
    "model.epochs=3": "unknown key 'model.epochs' of model=mlp; did you mean epochs?",
    "metrics.evry=2": "unknown key 'metrics.evry'; did you mean metrics.every?",
    "metrics.xyz=2": (
        "unknown key 'metrics.xyz'; valid: every, probe, eps, batch_size, suite, ood_dataset, headline, memory_gib"
    ),
    "etf.k=2": "unknown key 'etf.k' of etf=none; choose one of etf=clock, last_k",
    "etf=last_k etf.kk=2": "unknown key 'etf.kk' of etf=last_k; did you mean etf.k?",
    "model=vit model.pol=cls": "unknown key 'model.pol' of model=vit; did you mean model.pool?",
    "dataset=mnst": "unknown dataset 'mnst'; did you mean mnist? valid: cifar10,",
    "model=MLP": "unknown model 'MLP'; did you mean mlp? valid: ",
    "experiment=dmo": "unknown experiment 'dmo'; did you mean demo? valid: continual/",
    "precision=bf61": "unknown precision 'bf61'; did you mean bf16? valid: float32, bf16",
    "device=gpu": "unknown device 'gpu'; did you mean cuda? valid: auto, cpu, cuda, cuda:N",
    "dataset.augment=cropflip": "unknown dataset.augment 'cropflip'; did you mean crop_flip? valid: none, crop_flip",
    "--epochs 5": "unknown option --epochs; write epochs=5",
    "--epochs=5": "unknown option --epochs=5; write epochs=5",
    "-m --experiment demo": "unknown option --experiment; write experiment=demo",
    "--batch-size 64 seed=1": "unknown option --batch-size; write batch_size=64",
    "--learn 64": "unrecognized arguments: --learn",
    "seeds=[0": "a list is [a,b], a mapping {a: b}, without spaces or in quotes for the shell: 'seeds=[0]'",
    "metrics={": "a list is [a,b], a mapping {a: b}, without spaces or in quotes for the shell: 'metrics={}'",
    "output_root=ünï": """quote the value within quotes for the shell: "output_root='ünï'\"""",
    "output_root=a=b=c": """quote the value within quotes for the shell: "output_root='a=b=c'\"""",
    "ünï=3": "cannot read 'ünï=3': 'ünï' is no key",
    "mnist": "expected KEY=VALUE, got 'mnist'; did you mean dataset=mnist?",
    "epochs": "expected KEY=VALUE, got 'epochs'; did you mean epochs=VALUE?",
}

# Names of other libraries, and near ones of another group.
KEYS = {
    "batch": "batch_size",
    "bs": "batch_size",
    "patch_size": "model.patch (choose one of model=tf, vit)",
    "dataset.subset": "dataset.train_size",
    "dataset.size": "dataset.train_size",
    "metrics.metrics": "metrics.suite",
    "Epochs": "epochs",
    "learning_rate": "optimizer.lr",
    "optimizer.learning_rate": "optimizer.lr",
    "wd": "optimizer.weight_decay",
    "optimizer.wd": "optimizer.weight_decay",
    "gpu": "device",
    "wandb": "tracker=wandb",
    "random_seed": "seed",
    "hidden_size": "model.width",
    "model.hidden_dim": "model.width",
    "n_layers": "model.depth",
    "model.layers": "model.depth",
    "eval_every": "metrics.every",
    "name": "experiment_name",
    "exp": "experiment_name",
    "exp_name": "experiment_name",
    "jobs": "hydra.launcher.jobs (choose hydra/launcher=local)",
    "launcher": "hydra/launcher",
    "num_epochs": "epochs",
    "n_epochs": "epochs",
    "data": "dataset",
    "arch": "model",
    "net": "model",
    "network": "model",
    "output_dir": "output_root",
    "out": "output_root",
    "amp": "precision=bf16",
    "fp16": "precision=bf16",
    "policy": "etf",
}
HINTS |= {f"{came}=1": f"unknown key '{came}'" for came in KEYS}
MEANT = {f"{came}=1": f"; did you mean {key}?" for came, key in KEYS.items()}
MEANT |= {f"model=vit {came}=1": "; did you mean model.blocks?" for came in ("n_layers", "model.num_layers")}
MEANT |= {
    "precision=bfloat16": "; did you mean bf16? valid",
    "precision=bf": "; did you mean bf16? valid",
    "precision=fp16": "; did you mean bf16? valid",
    "precision=float16": "; did you mean bf16? valid",
    "precision=fp32": "; did you mean float32? valid",
    "device=gpu:1": "; did you mean cuda? valid",
    "model=ViT": "; did you mean vit? valid",
    "dataset=MNIST": "; did you mean mnist? valid",
    "optimizer=SGD": "; did you mean sgd? valid",
    "experiment=fig1": "unknown experiment 'fig1'; did you mean simplex_etf/figure1? valid: continual/",
    "experiment=simplex_etf/figur1": "unknown experiment 'simplex_etf/figur1'; did you mean simplex_etf/figure1? valid",
    "experiment=conf/experiment/demo": "unknown experiment 'conf/experiment/demo'; did you mean demo? valid: cont",
    "dataset=my/mnst": "unknown dataset 'my/mnst'; did you mean mnist? valid: cifar10",
    "num_workers=4": "unknown key 'num_workers'; leave it out: the data lie in the memory of the device",
    "demo": "expected KEY=VALUE, got 'demo'; did you mean experiment=demo?",
    "lr": "expected KEY=VALUE, got 'lr'; did you mean optimizer.lr=VALUE?",
    "wandb": "expected KEY=VALUE, got 'wandb'; did you mean tracker=wandb?",
}
SEVERAL = {
    "seed=0,1,2": "add -m to train a run for each, or write seeds=[0,1,2] for one process",
    "seed=range(3)": "add -m to train a run for each, or write seeds=[0,1,2] for one process",
    "seeds=0,1,2": "names several values: write seeds=[0,1,2] for one list",
    "seeds=range(3)": "names several values: write seeds=[0,1,2] for one list",
    "seeds=range(1000)": "names several values: write seeds=[0,1,2,...] for one list",
    "metrics.suite=collapse,depth": "names several values: write metrics.suite=[collapse,depth] for one list",
}
WRITTEN = {
    "output_root=my folder": "got 'folder'; write a value with spaces in quotes: \"output_root='my folder'\"",
    "experiment_name=my own exp seed=1": "write a value with spaces in quotes: \"experiment_name='my own exp'\"",
    "etf==last_k": "cannot read 'etf==last_k'; write etf=last_k",
    "model=mlp,": "cannot read 'model=mlp,'; write model=mlp",
    "experiment=demo, seed=1": "cannot read 'experiment=demo,'; write experiment=demo",
    "'epochs=5 seed=1'": "cannot read 'epochs=5 seed=1'; write it as words of their own: epochs=5 seed=1",
    "optimizer=adamw optimizer.betas=(0.9,0.99)": "(0.9,0.99)'; write 'optimizer.betas=[0.9,0.99]'",
    "seeds=[0, 1, 2] epochs=3": "without spaces or in quotes for the shell: 'seeds=[0,1,2]'",
    "model.width=[1, 2]": "without spaces or in quotes for the shell: 'model.width=[1,2]'",
    "metrics={a: 1}": "without spaces or in quotes for the shell: 'metrics={a:1}'",
    "seeds=[0, epochs=3": "without spaces or in quotes for the shell: 'seeds=[0]'",
    "'output_root=${HOME}/x'": "for the environment variable write ${oc.env:HOME}, or let the shell expand it",
    "dataset=npz 'dataset.path=${HOME}/x'": "no key 'HOME'; for the environment variable write ${oc.env:HOME}",
    "seeds=abc": "seeds: expected list[int] | None, got abc",
    "+experiment.foo=1": "experiment is the name of a file in conf/experiment and has no keys; leave out +experiment.f",
    "seeds=3": "seeds: expected list[int] | None, got 3; write seeds=[3]",
    "metrics.suite=collapse": "metrics.suite: expected list, got collapse; write metrics.suite=[collapse]",
    "optimizer=adamw optimizer.betas=0.5": "optimizer.betas: expected list, got 0.5; write optimizer.betas=[0.5]",
    "epochs=": "epochs: expected int, got nothing",
    "model.depth=": "model.depth: expected int, got nothing",
    "-m seed=0,1 hydra.launcher.jobs=2": "choose hydra/launcher=local",
    "--debug": "unknown option --debug; write debug=true (",
    "--overwrite seed=3": "unknown option --overwrite; write overwrite=true (",
    "--overwrite false": "unknown option --overwrite; write overwrite=false (",
    "--wandb": "unknown option --wandb; write tracker=wandb (",
    "--jobs 4": "unknown option --jobs; write hydra.launcher.jobs=4 (",
    "--config demo": "unknown option --config; write experiment=NAME",
    "--config=demo": "unknown option --config; write experiment=NAME",
}
HINTS |= MEANT | SEVERAL | WRITTEN


@pytest.mark.parametrize(("line", "hint"), HINTS.items(), ids=list(HINTS))
def test_a_wrong_word_is_answered_by_what_was_meant(line, hint):
    said = refusal(line)
    assert hint in said
    assert "\n" not in said
    assert ":;" not in said
    assert "Lexer" not in said
    assert "AnyNode" not in said


@pytest.mark.parametrize(
    "line", ["model=mlp,vit", "experiment=demo,depth/rn1", "epochs=1,2", "optimizer.lr=choice(1,2)", "model=glob(*)"]
)
def test_a_list_is_offered_only_where_a_key_takes_one(line):
    assert refusal(f"'{line}'") == f"{line} names several values: add -m to train a run for each"


@pytest.mark.parametrize("line", ["train", "dataset.classes=5", "folder", "optimizer.train=1"])
def test_no_guess_is_better_than_a_silly_one(line):
    assert refusal(line)
    assert "did you mean" not in refusal(line)


def test_what_a_yaml_file_of_an_experiment_lacks_is_named(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("epochs: 3\n")
    (tmp_path / "experiment" / "jobs.yaml").write_text("# @package _global_\nhydra: {launcher: {jobs: 2}}\n")
    said = refusal(f"--config-dir {tmp_path} experiment=mine")
    assert said == "expected '# @package _global_' as the first line of the YAML file of experiment=mine"
    for multirun in ("", "-m seed=0,1 "):
        said = refusal(f"{multirun}--config-dir {tmp_path} experiment=jobs")
        assert said == (
            "hydra.launcher.jobs in experiment/jobs.yaml belongs to a launcher; choose hydra/launcher=local or slurm"
        )


def test_the_version_is_that_of_this_package(capsys):
    with pytest.raises(SystemExit) as ended:
        arguments(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"nclab {nclab.__version__}\n")


@pytest.mark.parametrize("value", ["ünï", "a=b", "it's", "x;y", "\\'", "(x)", "a!b", "$x ü"])
def test_what_it_says_to_write_can_be_read(value):
    said = refusal(shlex.quote(f"output_root={value}"))
    words = shlex.split(said[said.index("for the shell: ") + len("for the shell: ") :])
    (override,) = parsed(words)
    assert str(override.value().text if hasattr(override.value(), "text") else override.value()) == value


def test_right_words_have_no_answer():
    assert refusal("etf=last_k etf.k=2 dataset=phrases model=tf seeds=[0,1] 'output_root=a b'") == ""


def test_what_another_test_registers_is_no_option_here():
    with pytest.MonkeyPatch.context() as monkeypatch, registries_of_their_own(monkeypatch):
        DATASETS.add("bright", ImageSettings)(lambda settings, root: None)
        assert "valid: bright, cifar10," in refusal("dataset=mnst")
    assert "valid: cifar10," in refusal("dataset=mnst")


def test_a_list_of_what_it_cannot_hold_is_not_advised():
    assert refusal("seeds=abc") == "seeds: expected list[int] | None, got abc"


@pytest.mark.parametrize("word", ["output_root=~/there", "\"output_root='~/there'\"", "'output_root=\"~/there\"'"])
def test_the_home_folder_is_expanded_where_a_folder_is_expected(monkeypatch, tmp_path, word):
    monkeypatch.setenv("HOME", str(tmp_path))
    line = f"{word} {word.replace('output_root', 'data_root')} {word.replace('output_root', 'resume')}"
    (job,) = planned(arguments(with_home_quoted(shlex.split(line))), CONF).jobs
    assert [job.config.output_root, job.config.data_root, job.config.resume] == [str(tmp_path / "there")] * 3
    assert job.config.folder == Path(tmp_path / "there")
    assert "names the home folder of a user who has none here" in refusal("\"output_root='~nobody_of_this/x'\"")


def test_examples_are_right():
    results = [doctest.testmod(module) for module in (hints, synonyms, valid, words, composing)]
    assert sum(result.attempted for result in results) > 7
    assert not any(result.failed for result in results)
