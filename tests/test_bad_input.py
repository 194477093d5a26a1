"""Wrong commands: each ends with exit code 2 and one line on what was expected and what came, and writes nothing.

They run inside this process, as Hydra's entry point can: a process each would take three seconds.
"""

import errno
import gzip
import os
import re
import shlex
import subprocess
import sys
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra

from nclab import train
from nclab.data import cifar, mnist
from nclab.run import execute
from nclab.training import fit

# Command line -> what its line must say: what was expected, and what came.
WRONG = {
    # The root
    "experiment_name=a/b": "experiment_name must be a plain folder name, got 'a/b'",
    "experiment_name=": "experiment_name must be a plain folder name, got ''",
    "experiment_name=..": "experiment_name must be a plain folder name, got '..'",
    "experiment_name=.hidden": "experiment_name must not begin with a dot, for tools leave out what is hidden",
    "\"experiment_name=' '\"": "experiment_name must be a plain folder name, got ' '",
    f"experiment_name={'a' * 300}": "experiment_name must be a plain folder name, got 'aaa",
    "experiment_name=[a]": "experiment_name: .*expected str, got ['a']",
    "experiment_name=true": "experiment_name: expected str, got True",
    "seed=1.5": "seed: .*expected int, got 1.5",
    "seed=true": "seed: .*expected int, got True",
    "seed=": "seed: .*expected int, got",
    "seed=null": "seed: .*expected int, got None",
    "seed=[1]": "seed: .*expected int, got [1]",
    "seed={a:1}": "seed: .*expected int, got {'a': 1}",
    "seed=-1": "seed must be between 0 and 2^63 - 1, got -1",
    "seed=9223372036854775808": "seed must be between 0 and 2^63 - 1, got 9223372036854775808",
    "'seed=${nope}'": "Interpolation key 'nope' not found",
    "seed=???": "Missing mandatory value: seed",
    "seeds=true": "seeds: .*expected list[int] | None, got True",
    "seeds=[true,2]": "seeds[0]: .*expected list[int] | None, got True",
    "seeds=[0,1.5]": "seeds[1]: .*expected list[int] | None, got 1.5",
    "seeds=[[0]]": "seeds: expected list[int] | None, got [[0]]",
    "seeds={a:1}": "seeds: expected list[int] | None, got {'a': 1}",
    "seeds=[0,0]": "seeds must be distinct numbers between 0 and .*; got [0, 0]",
    "seeds=0,1": "names several values: write seeds=[0,1] for one list",
    "seeds=[0,1] seed=3": "leave out one of them; got seed=3 and seeds=[0, 1]",
    "seeds=[0] resume=x": "leave out seeds .*; got resume=x and seeds=[0]",
    "epochs=0": "epochs must be at least 1 and finite, got 0",
    "epochs=10000000000000000000000": "epochs must be at most 2147483647, got 10000000000000000000000",
    "batch_size=1": "batch_size must be at least 2 and finite, got 1",
    "batch_size=99999": "batch_size must be at most 1437, the train split; got 99999",
    "precision=fp8": "unknown precision 'fp8'; valid: float32, bf16",
    "device=tpu": "unknown device 'tpu'; did you mean cpu? valid: auto, cpu, cuda",
    "device=cuda:999": "device 'cuda:999' cannot be used .*valid: auto, cpu",
    "device=cuda:9999999999999999": "unknown device 'cuda:9999999999999999'; valid: auto",
    "threads=0": "threads must be at least 1 and finite, got 0",
    "threads=100000": "threads must be at most 1024, got 100000",
    "deterministic=maybe": "deterministic: .*expected bool, got maybe",
    "deterministic=2": "deterministic: expected bool, got 2",
    "overwrite=1.0": "overwrite: expected bool, got 1.0",
    "output_root=": "output_root must be a folder, got ''",
    "output_root=null": "output_root: .*expected str, got None",
    "output_root=s3://bucket/x": "output_root must be a folder, got 's3://bucket/x'",
    "output_root=/dev/null": "output_root must be a folder that can be written, got '/dev/null' .*Not a directory",
    "output_root=/proc/nothing": "output_root must be a folder that can be written, got '/proc/nothing'",
    "data_root=": "data_root must be a folder, got ''",
    "data_root=/nowhere dataset=mnist": "mnist is not under /nowhere .*fetch it with",
    "data_root=/dev/null dataset=mnist": "mnist is not under /dev/null .*fetch it with",
    "checkpoint_seconds=-1": "checkpoint_seconds must be at least 0 and finite, got -1",
    "checkpoint_seconds=nan": "checkpoint_seconds must be at least 0 and finite, got nan",
    "resume=nowhere": "resume must name a run folder, one with a config.yaml; got 'nowhere'",
    "resume=": "resume must name a run folder, one with a config.yaml; got ''",
    "resume=x seed=9": "takes the folder's configuration; leave out seed=9",
    "metrics.every=-1": "metrics.every must be at least 0 and finite, got -1",
    "metrics.probe=x": "unknown metrics.probe 'x'; valid: linear, activation",
    "metrics.eps=nan": "metrics.eps must be at least 0 and finite, got nan",
    "metrics.eps=1": "metrics.eps is an NCC error and must be below 1, got 1.0",
    "metrics.batch_size=0": "metrics.batch_size must be at least 1 and finite, got 0",
    "metrics.batch_size=10000000000000000": "metrics.batch_size must be at most 2147483647, got 10000000000000000",
    "metrics.memory_gib=inf": "metrics.memory_gib must be at least 0 and finite, got inf",
    "plugins=json": "plugins must be a list of modules such as [my_package], .*; got plugins=json",
    "plugins=[nclab_nowhere]": "plug-in 'nclab_nowhere' (named in plugins) cannot be imported: expected an installed",
    "plugins=[a-b]": "expected the name of a module, such as my_package.models, in plugins; got 'a-b'",
    "-m plugins=[json],[re]": "plugins must be a list of modules .*, the same for all runs of a sweep; got plugins=",
    "metrics=3": "metrics must be keys (every, .*); got metrics=3",
    "metrics=null": "metrics must be keys (every, .*); got metrics=None",
    "+metrics.evry=3": "unknown key 'metrics.evry'; did you mean metrics.every?",
    "+foo=1": "unknown key 'foo'; valid: experiment_name, seed",
    "foo=1": "unknown key 'foo'; valid: .*seed, .*dataset, model",
    # dataset
    "dataset=null": "dataset must be one of cifar10, .*; got dataset=null",
    "dataset=[digits,mnist]": "dataset must be one of cifar10, .*; got dataset=[digits,mnist]",
    "etf.name=last_k": "etf is chosen by its option: expected etf=last_k, got etf.name=last_k",
    "-m model.name=mlp,vit": "model is chosen by its option: expected model=mlp, got model.name=mlp",
    "dataset.name=7": "dataset must be one of cifar10, .*; got dataset={'name': 7",
    "~dataset": "dataset must be one of cifar10, .*; got dataset=None",
    "dataset.train_size=0": "dataset.train_size of digits: subset size must be between 1 and 1437, got 0",
    "dataset.train_size=9": "dataset.train_size=9 .*expected images of every class, got none of class",
    "dataset.test_size=999": "dataset.test_size of digits: subset size must be between 1 and 360, got 999",
    "dataset.train_size=nan": "dataset.train_size: .*expected int | None, got nan",
    "dataset.imbalance=0.5": "dataset.imbalance is the largest class over the smallest: expected 1 or more, got 0.5",
    "dataset.imbalance=999": "dataset.imbalance of digits: expected at most 142, so that the smallest class keeps",
    "dataset=diabetes loss=mse dataset.imbalance=2": "dataset.imbalance of diabetes: expected targets that are classes",
    "dataset.imbalance_profile=step": "dataset.imbalance_profile=step needs dataset.imbalance; got null",
    "dataset.label_noise=1.5": "dataset.label_noise is a share of the train labels: expected 0 to 1, got 1.5",
    "dataset.label_noise=nan": "dataset.label_noise is a share of the train labels: expected 0 to 1, got nan",
    "dataset.label_noise=1 dataset.train_size=10": "dataset.label_noise=1.0 of digits leaves too few: .* every class",
    "dataset.pixels=raw": "unknown dataset.pixels 'raw'; valid: unit, standardize",
    "dataset.augment=flip": "unknown dataset.augment 'flip'; did you mean crop_flip? valid: none, crop_flip",
    "dataset=phrases +dataset.augment=none": "unknown key 'dataset.augment' of dataset=phrases; choose one of .*",
    "dataset=phrases dataset.length=0": "dataset.length must be at least 1, got 0",
    "dataset=phrases dataset.length=4097": "dataset.length must be at most 4096, got 4097",
    "dataset=phrases dataset.vocabulary=2": "dataset.vocabulary must be at least 3, got 2",
    "dataset=imdb dataset.vocabulary=1048577": "dataset.vocabulary must be at most 1048576, got 1048577",
    "dataset=phrases dataset.valid_size=1600": "dataset.valid_size=1600 .*expected at least one text, got no text",
    "dataset=npz": "dataset.path: Missing mandatory value",
    "dataset=npz dataset.path=~/nowhere.npz": "dataset.path: expected an .npz file, found none at /.*/nowhere.npz",
    "dataset=image_folder dataset.path=/nowhere": "dataset.path: expected a folder of pictures, found none at /nowhere",
    "dataset=torchvision dataset.set=KMNIST data_root=/nowhere": "KMNIST is not under /nowhere; dataset.download=true",
    "dataset=imdb data_root=/nowhere": "imdb is not under /nowhere .*fetch it with: .*nclab-data fetch imdb",
    # model
    "model=forest": "unknown model 'forest'; .*mlp, resnet, rn, .*tf, unconstrained, vgg, vit",
    "model.depth=1": "model.depth must be at least 2, got 1",
    "model.depth=100000": "model.depth must be at most 1000, got 100000",
    "model.width=0": "model.width must be at least 1, got 0",
    "model.width=1000000": "model mlp5x1000000 needs .* GiB for its weights and gradients, and cpu has",
    "model.width=9223372036854775808": "model.width must be at most 1048576, got 9223372036854775808",
    "model.norm=layer": "unknown model.norm 'layer'; valid: batch, none",
    "model.activation=swish": "unknown model.activation 'swish'; valid: relu",
    "model.heads=3": "unknown key 'model.heads' of model=mlp; choose one of model=tf, vit",
    "model=vit model.patch=3": "model.patch must divide the image of 8 x 8: 1, 2, 4, 8; got 3",
    "model=vit model.patch=0": "model.patch must be at least 1, got 0",
    "model=vit model.heads=5": "model.heads must divide model.width, got 5 heads and width 64",
    "model=vit model.blocks=0": "model.blocks must be at least 1, got 0",
    "model=vit model.blocks=10000000": "model.blocks must be at most 1000, got 10000000",
    "model=vit model.ratio=nan": "model.ratio must be 0 .*or give at least one unit, got nan",
    "model=vit model.ratio=1e300": "model.ratio must be 0 .*or give at most 1048576 units, got 1e+300",
    "model=vit model.ffn_norm=batch": "unknown model.ffn_norm 'batch'; valid: none, layer",
    "model=vit model.pool=max": "unknown model.pool 'max'; valid: cls, mean",
    # etf
    "etf.k=2": "unknown key 'etf.k' of etf=none; choose one of etf=clock, last_k",
    "etf=last_k etf.k=0": "etf.k must be between 1 and 5, .*; got 0",
    "etf=last_k etf.k=6": "etf.k must be between 1 and 5, .*; got 6",
    "etf=last_k etf.k=5 etf.bias=false model.norm=none": "etf.k=5 with etf.bias=false leaves this model nothing",
    "etf=last_k etf.kind=etff": "unknown etf.kind 'etff'; did you mean etf? valid: etf, frozen",
    "etf=last_k etf.frame=nearest": "frame 'nearest' follows a learnt weight, .*valid here: random",
    "etf=last_k etf.classifier_frame=haar": "unknown etf.classifier_frame 'haar'; did you mean hadamard? valid: random",
    "etf=last_k etf.rank=rows": "unknown etf.rank 'rows'; valid: full, classes",
    "etf=last_k etf.scale=nan": "etf.scale must be above 0 and finite, or null .*got nan",
    "etf=last_k etf.scale=1e300": "etf.scale must be a factor that float32 holds, .*got 1e+300",
    "etf=last_k etf.classifier_scale=1e-300": "etf.classifier_scale must be a factor that float32 holds, .*got 1e-300",
    "etf=last_k etf.kind=frozen etf.rank=classes": "etf.rank has no effect with etf.kind=frozen.*(got classes)",
    "etf=last_k model.width=8": "(8 -> 10): 10 vectors form a simplex ETF in dimension 9 or more, got dimension 8",
    "etf=last_k etf.k=2 etf.rank=classes model.width=8": "form a simplex ETF in dimension 9 or more, got dimension 8",
    "etf=last_k etf.classifier_frame=canonical model.width=9": "frame 'canonical' needs dimension >= 10, got 9",
    "etf=clock etf.k=5": "etf.k must be between 1 and 4, the stages .* (fc2, fc3, fc4, fc5); got 5",
    "etf=adaptive etf.threshold=nan": "etf.threshold must be in (0, 1], got nan",
    "etf=adaptive etf.patience=0": "etf.patience must be at least 1, got 0",
    "etf=adaptive etf.start=60": "could never switch: .*etf.start=60",
    "etf=adaptive etf.maps=last": "unknown etf.maps 'last'; valid: all, hidden",
    "etf=adaptive etf.order=first": "unknown etf.order 'first'; valid: deepest_first, at_once",
    "etf=adaptive metrics.every=0": "metrics.every must be between 1 and 59 with epochs=60, got 0",
    "etf=adaptive epochs=1": "epochs must be at least 2, got 1",
    "etf=transformer_ffn": "etf=transformer_ffn needs a model with feed-forward layers, such as model=vit",
    "etf=transformer_ffn model=vit model.ratio=0": "etf=transformer_ffn needs a model with feed-forward layers",
    "etf=transformer_ffn model=vit etf.blocks=last3": "etf.blocks=last3 asks for block 3; the model has 2",
    "etf=transformer_ffn model=vit etf.blocks=[[1]]": "etf.blocks must be all, firstN, lastN or a list .*got [[1]]",
    "etf=transformer_ffn model=vit etf.scale=2 etf.out_scale=1": "etf.scale sets the factor .*(got 2.0, None and 1.0)",
    "etf=transformer_ffn model=vit etf.in_scale=inf": "etf.in_scale must be above 0 and finite, or null .*got inf",
    "etf=transformer_ffn model=vit etf.classifier_scale=2": "has no effect with etf.classifier=false.*(got 2.0)",
    # optimizer and schedule
    "optimizer.lr=nan": "optimizer.lr must be above 0 and finite, got nan",
    "optimizer.lr=1e400": "optimizer.lr must be above 0 and finite, got inf",
    "optimizer.lr=1e-3x": "optimizer.lr: .*expected float, got 1e-3x",
    "optimizer.lr=true": "optimizer.lr: .*expected float, got True",
    "optimizer.weight_decay=-1": "optimizer.weight_decay must be at least 0 and finite, got -1.0",
    "optimizer.momentum=1": "optimizer.momentum must be in [0, 1), got 1.0",
    "optimizer.nesterov=true optimizer.momentum=0": "nesterov=true needs optimizer.momentum above 0, got 0.0",
    "optimizer=adamw optimizer.betas=[0.9]": "optimizer.betas must be two numbers in [0, 1), got [0.9]",
    "optimizer=adamw optimizer.betas=[0.9,nan]": "optimizer.betas must be two numbers in [0, 1), got [0.9, nan]",
    "optimizer=adamw optimizer.betas={a:1}": "optimizer.betas={a:1}: expected a list such as [0.9, 0.999]",
    "schedule=multistep schedule.gamma=1e300": "schedule.gamma must be at most 1, got 1e+300",
    "schedule=multistep schedule.gamma=nan": "schedule.gamma must be above 0 and finite, got nan",
    "schedule=multistep schedule.milestones=[30,20]": "schedule.milestones must be rising epochs .*got [30, 20]",
    "schedule=multistep schedule.milestones=[]": "schedule.milestones must be rising epochs .*got []",
    "schedule=multistep schedule.milestones=[1.5]": "schedule.milestones[0]: .*expected list, got 1.5",
    "schedule=cosine schedule.final=nan": "schedule.final must be in [0, 1], got nan",
    # tracker
    "tracker=wandb tracker.mode=on": "unknown tracker.mode 'on'; valid: online, offline, disabled",
    "tracker=wandb tracker.project=a/b": "tracker.project must have 1 to 128 characters, .*; got 'a/b'",
    "tracker=wandb tracker.entity=": "tracker.entity must be a name, or null .*; got ''",
    "tracker=wandb tracker.tags=[[a]]": "tracker.tags: expected list, got [['a']]",
    "tracker=wandb \"tracker.tags=['a','']\"": "tracker.tags must have 1 to 64 characters each, got ['a', '']",
    "tracker=wandb tracker.timeout=inf": "tracker.timeout must be above 0 seconds and finite, got inf",
    # What Hydra would take for itself, or take wrongly
    "experiment=nothing": "unknown experiment 'nothing'; valid: .*demo, .*figure1",
    "experiment=figure1": "unknown experiment 'figure1'; did you mean simplex_etf/figure1? valid: continual",
    "experiment=null": "experiment must be the name of a file in conf/experiment, .*; got experiment=null",
    "experiment=7": "experiment must be the name of a file in conf/experiment, .*; got experiment=7",
    "foo": "expected KEY=VALUE, got 'foo'",
    "=1": "expected KEY=VALUE, got '=1'",
    "--foo": "unrecognized arguments: --foo (--help",
    "--cfg nonsense": "invalid choice: 'nonsense' (choose from 'job', 'hydra', 'all')",
    "--exp=file.pickle": "--experimental-rerun reads a pickle, .*; got file.pickle",
    "hydra/launcher=slurm": "a launcher starts sweeps: expected -m (--multirun) beside hydra/launcher=slurm",
    "hydra.run.dir=there": "a run writes to output_root/.*; leave out hydra.run.dir=there",
    "hydra.output_subdir=x": "a run writes to output_root/.*; leave out hydra.output_subdir=x",
    "hydra/job_logging=default": "a run writes to output_root/.*; leave out hydra/job_logging=default",
    # A sweep: all of it, before its first run
    "-m seed=0,x": "seed: .*expected int, got x",
    "-m epochs=1,0": "epochs must be at least 1 and finite, got 0",
    "etf=lastk": "did you mean last_k? valid: adaptive, align, clock, last_k, nearest, none, transformer_ffn",
    "seeds=[0,1] batch_size=9999": "batch_size must be at most 1437, the train split; got 9999",
    "-m etf=none,lastk": "unknown etf 'lastk'; did you mean last_k? .*(in etf=lastk)",
    "-m etf=none,null": "etf must be one of adaptive, .*; got etf=null",
    "-m etf=last_k model.width=9,8": "form a simplex ETF in dimension 9 or more, got dimension 8",
    "-m device=cpu,cuda:999": "device 'cuda:999' cannot be used",
    "-m seed=0,1 dataset=mnist": "mnist is not under data",
    "-m seed=range(0)": "the sweep has no run: expected at least one value of each key, got ['seed=range(0)']",
    "-m hydra.sweep.dir=x seed=0,1": "leave out hydra.sweep.dir=x",
}


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """command("a=1 b=2") -> the exit code and what stands on stderr, of the command in an empty folder."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv("NCLAB_DATA", raising=False)

    def reached(*_):
        raise AssertionError("wrong input reached the training")

    monkeypatch.setattr(fit.Fit, "run", reached)
    monkeypatch.setattr(execute, "train_all", reached)

    def run(line: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["nclab-train", *shlex.split(line)])
        with pytest.raises(SystemExit) as stop:
            train.main()
        GlobalHydra.instance().clear()
        return stop.value.code, capfd.readouterr().err

    yield run
    GlobalHydra.instance().clear()


def assert_refused(command, line: str, message: str) -> None:
    code, said = command(line)
    assert (code, said.count("\n")) == (2, 1), said
    assert re.match("error: .*" + ".*".join(map(re.escape, message.split(".*"))), said), said
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(("line", "message"), WRONG.items(), ids=list(WRONG))
def test_wrong_input_is_refused(command, line, message):
    assert_refused(command, line, message)


def test_a_full_disk_is_no_wrong_input(command, monkeypatch):
    mkdir = Path.mkdir

    def refuse(path, *args, **kwargs):
        if "outputs" in path.parts:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        mkdir(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", refuse)
    code, said = command("seed=1")
    assert (code, said.count("\n")) == (1, 1)
    assert "No space left on device" in said


# ---- files with wrong content


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


IMAGES, LABELS = (np.arange(20 * 28 * 28) % 251).reshape(20, 28, 28), np.arange(20) % 10
TRAIN_IMAGES, TRAIN_LABELS = mnist.FILES["train"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """root(FILE=bytes) -> a data root with a small MNIST whose checksums are right, whatever is in the files."""

    def make(**changed: bytes) -> Path:
        raw = tmp_path / "data" / "MNIST" / "raw"
        raw.mkdir(parents=True)
        files = {
            name: idx(array)
            for pair in mnist.FILES.values()
            for name, array in zip(pair, (IMAGES, LABELS), strict=True)
        }
        for name, data in (files | {key.replace("_", "-"): value for key, value in changed.items()}).items():
            (raw / name).write_bytes(data)
            monkeypatch.setitem(mnist.MD5["mnist"], name, md5(data).hexdigest())
        return tmp_path / "data"

    return make


@pytest.mark.parametrize(
    ("labels", "images", "message"),
    [
        (idx(np.where(LABELS == 9, 11, LABELS)), None, "train split: expected labels 0 to 9, got 0 to 11"),
        (idx(np.where(LABELS == 3, 4, LABELS)), None, "expected images of every class, got none of class 3"),
        (idx(LABELS * 0), None, "expected images of every class, got none of class 1, 2, 3"),
        (idx(LABELS[:19]), None, "expected one target a sample, got 20 samples and 19 targets"),
        (
            idx(LABELS[:, None]),
            None,
            "targets: expected classes (N,) int64 .*got 2 dimensions of torch.int64",
        ),
        (idx(LABELS)[:-3], None, "expected 20 bytes for (20,), got 17"),
        (b"", None, "expected an IDX file of bytes .*, got"),
        (None, idx(IMAGES[:, :27]), "expected images of shape (1, 28, 28), got (1, 27, 28)"),
        (None, idx(IMAGES[0]), "samples: expected one of images (N, ch, h, w) uint8.*got 3 dimensions of torch.uint8"),
        (None, idx(IMAGES)[:100], "expected 15680 bytes for (20, 28, 28), got 84"),
        (None, b"\0\0\x0d\3" + np.full(9, np.nan, ">f4").tobytes(), "expected an IDX file of bytes .*got 00 00 0d 03"),
        (idx(LABELS[:0]), idx(IMAGES[:0]), "train split: expected at least one image, got no image"),
    ],
)
def test_files_with_wrong_content_are_refused(command, root, labels, images, message):
    changed = {TRAIN_LABELS: labels, TRAIN_IMAGES: images}
    folder = root(**{name: data for name, data in changed.items() if data is not None})
    assert_refused(command, f"dataset=mnist data_root={folder}", message)


def test_damaged_and_unreadable_files_are_refused(command, root):
    folder = root()
    raw = folder / "MNIST" / "raw"
    (raw / TRAIN_LABELS).write_bytes(b"other")
    line = f"dataset=mnist data_root={folder} batch_size=20"
    assert_refused(command, line, f"{TRAIN_LABELS}: expected md5 .*, found {md5(b'other').hexdigest()}")
    packed = bytearray(gzip.compress(idx(IMAGES)))
    packed[30] ^= 255
    (raw / TRAIN_IMAGES).rename(raw / "kept")
    (raw / f"{TRAIN_IMAGES}.gz").write_bytes(packed)
    assert_refused(command, line, "train-images-idx3-ubyte.gz: expected a gzip file, got a damaged one")
    (raw / TRAIN_IMAGES).mkdir()
    assert_refused(command, line, f"mnist cannot be read: expected files under {folder}, got .*Is a directory")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (bytes(3074), "expected rows of 3073 bytes, got 3074 bytes"),
        (b"\x0b" + bytes(3072), "train split: expected labels 0 to 9, got 11 to 11"),
        (bytes(3073), "train split: expected images of every class, got none of class 1"),
    ],
)
def test_cifar_files_with_wrong_content_are_refused(command, tmp_path, monkeypatch, rows, message):
    folder = tmp_path / "data" / cifar.BIN_FOLDER
    folder.mkdir(parents=True)
    for file in list(cifar.BIN_MD5):
        (folder / file).write_bytes(rows)
        monkeypatch.setitem(cifar.BIN_MD5, file, md5(rows).hexdigest())
    assert_refused(command, f"dataset=cifar10 data_root={tmp_path / 'data'}", message)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected the configuration of a run, got NoneType"),
        ("[1, 2]", "expected the configuration of a run, got list"),
        ("seed: 1", "expected the configuration of a run, got none of dataset, model"),
        ("seed: [1", "expected the configuration of a run, got while parsing"),
        ("\0", "expected the configuration of a run, got unacceptable character"),
    ],
)
def test_a_folder_with_another_config_is_not_resumed(command, tmp_path, content, message):
    (tmp_path / "config.yaml").write_text(content)
    assert_refused(command, f"resume={tmp_path}", f"{tmp_path}/config.yaml cannot be read: {message}")


def test_a_wrong_sweep_from_outside_the_process(tmp_path):
    """A single run likewise: tests/test_command_line.py."""
    line = "-m epochs=1,0"
    command = [sys.executable, "-m", "nclab.train", *shlex.split(line)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(f"error: .*{re.escape(WRONG[line].split('.*')[-1])}.*\n", done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("word", ["debug=true", "++debug=true", "debug=yes"])
def test_debug_shows_the_traceback(command, word):
    code, said = command(f"{word} epochs=0")
    assert code == 2
    assert "Traceback (most recent call last)" in said
    assert "epochs must be at least 1 and finite, got 0" in said
    assert list(Path.cwd().iterdir()) == []
