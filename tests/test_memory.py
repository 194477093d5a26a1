"""Memory that runs out: one line that says while doing what, and what to lower; others go on."""

import subprocess
import sys

import pytest
import torch
from run_folders import Killed, assert_same_run, events

from nclab.run import build as run_module
from nclab.run.execute import train, train_seeds
from nclab.runfolder import checkpoint
from nclab.system.machine import OutOfMemory, needs_memory
from nclab.training import around_switch, fit
from nclab.training import seeds as training_seeds

ON_A_GPU = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.19 GiB of which 1.2 GiB is free."
)
ON_A_CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4000 bytes. Error code 12 (Cannot allocate memory)"
)
TRAINING = r"out of memory while training{}; lower batch_size \(now 128\) or the size of the model"
MEASURING = r"out of memory while measuring{}; lower metrics.memory_gib \(now 2; .* or metrics.batch_size \(now 1000\)"


def failing(error):
    def call(*_, **__):
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "asked"),
    [(ON_A_GPU, r" \(asked for 2.50 GiB\)"), (ON_A_CPU, r" \(asked for 4000 bytes\)"), (MemoryError(), "")],
)
@pytest.mark.parametrize(
    ("module", "name", "message"),
    [
        (fit, "train_epoch", TRAINING),
        (fit, "evaluate", MEASURING),
        (run_module, "built", r"out of memory while building the network{}; make the model smaller"),
        (run_module, "load_with_outside", r"out of memory while loading the dataset{}; keep fewer samples"),
        (checkpoint, "save", "out of memory while working on this run{}; make the model smaller"),
    ],
)
def test_it_is_said_what_needed_memory_and_what_to_lower(tiny, monkeypatch, error, asked, module, name, message):
    with monkeypatch.context() as patch:
        patch.setattr(module, name, failing(error))
        with pytest.raises(OutOfMemory, match=message.format(asked)) as caught:
            train(tiny())
    assert caught.value.__context__.__traceback__ is None  # it would hold the tensors of the call that failed
    train(tiny())


def test_measuring_a_switch_and_what_follows_it_is_measuring(tiny, monkeypatch):
    adaptive = ("etf=adaptive", "etf.start=1", "etf.patience=1", "etf.threshold=0.1", "metrics.every=1")
    for name in ("scores", "refreshed"):
        with monkeypatch.context() as patch:
            patch.setattr(around_switch, name, failing(ON_A_CPU))
            with pytest.raises(OutOfMemory, match="while measuring"):
                train(tiny(*adaptive))


def test_an_evaluation_that_keeps_nothing_is_not_told_to_keep_less(tiny, monkeypatch):
    monkeypatch.setattr(fit, "evaluate", failing(ON_A_CPU))
    with pytest.raises(OutOfMemory, match=r"while measuring .*; lower metrics.batch_size \(now 1000\)$"):
        train(tiny("metrics.memory_gib=0"))


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), OutOfMemory("known")])
def test_other_errors_are_left_alone(error):
    with pytest.raises(type(error)) as caught, needs_memory("testing", "nothing"):
        raise error
    assert caught.value is error


def test_seeds_of_a_batched_model_without_memory_are_named_and_the_others_go_on(tiny, tmp_path, monkeypatch):
    """Three seeds whose steps do not fit, and one that is an epoch ahead of them, and so trains alone."""
    configs = [tiny().of_seed(seed) for seed in range(4)]
    with monkeypatch.context() as patch:
        patch.setattr(fit.Fit, "begin_epoch", lambda self: self.progress.epoch and failing(Killed())())
        with pytest.raises(Killed):
            train(configs[3])
    monkeypatch.setattr(training_seeds, "LEAST_SEEDS_ON_CPU", 2)
    monkeypatch.setattr(training_seeds, "train_epoch_stacked", failing(ON_A_GPU))
    ended = train_seeds(configs)
    assert [type(ended[c.folder]) for c in configs] == [OutOfMemory] * 3 + [type(None)]
    assert "while training" in events(configs[0].folder, "failed")[0]["reason"]
    assert_same_run(train(tiny("seed=3", root=tmp_path / "whole")), configs[3].folder)


SMALL_MACHINE = """
import resource
import nclab.train, nclab.models.mlp, pandas
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 200 * 2**20,) * 2)
nclab.train.main()
"""


def test_a_sweep_on_a_machine_without_memory_names_what_was_under_way_and_goes_on(tmp_path):
    """200 MiB, really no more. A batch of the wide network needs more, and so do its features at all points; the narrow
    one, trained between them in the same process, finds the room that the failed ones gave back."""
    keys = ("model.depth=2", "batch_size=1437", "threads=1", "epochs=2", f"output_root={tmp_path}")
    sweep = ("--multirun", "metrics.every=0,1", "model.width=20000,50")
    done = subprocess.run([sys.executable, "-c", SMALL_MACHINE, *sweep, *keys], capture_output=True, text=True)
    assert done.returncode == 1
    training, measuring = done.stderr.splitlines()
    assert training.startswith("error: out of memory while training (asked for ")
    assert training.endswith("lower batch_size (now 1437) or the size of the model")
    assert measuring.startswith("error: out of memory while measuring (asked for ")
    assert len(list(tmp_path.glob("main/*/DONE"))) == 2
