"""Several processes on one run: the numbers of one process, agreed ends, and a resume from whatever happens.

`tests/processes.py` is what the processes do; they start once for many checks."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from processes import COMMAND, CURVES, REFUSED, config, measured
from run_folders import assert_same_run, events, rows
from torch import distributed, nn

from nclab.cluster.workers import run_all
from nclab.config.schema import ConfigError
from nclab.data.augment import crop_flip
from nclab.metrics import CollapseMeter
from nclab.parallel.global_norm import GlobalBatchNorm
from nclab.parallel.group import SINGLE, PeerLost, ProcessGroup, _others, world_size
from nclab.run.execute import train, train_seeds
from nclab.runfolder.folder import RunFolder
from nclab.runfolder.follower import Follower

HERE = Path(__file__).parent
SECONDS = 120  # that a process may take at most, on a busy machine


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A run of two processes that torchrun was asked to stop; resumed, its first process was killed."""
    root = tmp_path_factory.mktemp("broken")
    arguments = ["-m", "nclab.train", *COMMAND, f"output_root={root}"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", *arguments]
    torchrun = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    wait_for_epoch(root, 2, [torchrun])
    torchrun.send_signal(signal.SIGTERM)
    _, err = torchrun.communicate(timeout=SECONDS)
    assert torchrun.returncode != 0
    assert err.count("error: stopped by SIGTERM; what was trained is saved") == 1

    first, second = start(2, arguments)
    wait_for_epoch(root, 8, [first, second])
    first.kill()
    began = time.monotonic()
    _, err = second.communicate(timeout=SECONDS)
    first.communicate()
    assert time.monotonic() - began < 30
    assert second.returncode == 1
    assert err == "error: a process of this run died; the same command resumes\n"
    assert not (folder_in(root) / "DONE").exists()
    return root


@pytest.fixture(scope="module")
def teams(tmp_path_factory, broken):
    """teams(size): what every process found, and the folder of its runs."""

    @cache
    def started(size):
        out = tmp_path_factory.mktemp(f"world{size}")
        workers = start(size, [str(HERE / "processes.py"), str(out), str(broken)])
        for worker in workers:
            _, err = worker.communicate(timeout=SECONDS)
            died = size == 3 and worker is workers[2]
            assert worker.returncode == (-signal.SIGKILL if died else 0), err
        return [torch.load(out / f"{rank}.pt") for rank in range(size)], out

    return started


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same by one process."""
    out = tmp_path_factory.mktemp("alone")
    for name, overrides in CURVES.items():
        train(config(out / name, *overrides))
    return measured(SINGLE), out


def start(size, command, **more):
    """The processes of a world, without torchrun, which would end the others itself when one dies."""
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(any_port.getsockname()[1])}
    return [
        subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                **address,
                "WORLD_SIZE": str(size),
                "LOCAL_WORLD_SIZE": str(size),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "OMP_NUM_THREADS": "1",
            },
            **more,
        )
        for rank in range(size)
    ]


def folder_in(root):
    return next(Path(root).glob("main/*"))


@pytest.mark.parametrize("size", [2, 3])
def test_weights_and_metrics_in_float64_are_those_of_one_process(teams, alone, size):
    """Training with batch norm, with attention and with a head set from class means, losses, every metric, accuracy and
    refreshed statistics; with classes and samples that a process lacks."""
    found, _ = teams(size)
    expected, _ = alone
    for process in found:
        assert process["measured"].keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(process["measured"][key], value, rtol=1e-9, atol=1e-12, equal_nan=True, msg=key)
            assert torch.equal(process["measured"][key].nan_to_num(), found[0]["measured"][key].nan_to_num()), key


@pytest.mark.parametrize(("size", "name"), [*((2, name) for name in CURVES), (3, "adaptive")])
def test_runs_are_those_of_one_process_up_to_rounding(teams, alone, size, name):
    (found, out), (_, single) = teams(size), alone
    one, several = folder_in(single / name), folder_in(out / "curves" / name)
    assert one.name == several.name
    expected, came = rows(one), rows(several)
    assert [row[:4] for row in came] == [row[:4] for row in expected]
    loose = {"bf16": 0.1, "float64": 1e-9}.get(name, 5e-3)  # three epochs amplify the rounding of float32
    for (*where, value), (*_, other) in zip(expected, came, strict=True):
        assert other == pytest.approx(value, rel=loose, abs=loose, nan_ok=True), where
    keys = ("site", "epoch", "parameters_freed", "frame")
    switches = [[[e[key] for key in keys] for e in events(folder, "switch")] for folder in (one, several)]
    assert switches[0] == switches[1]
    assert len(switches[0]) == {"adaptive": 2, "crop_flip": 2, "vit": 2, "nearest": 1, "float64": 1}.get(name, 0)
    summary = json.loads((several / "summary.json").read_text())
    assert summary["processes"] == len(found)
    assert events(several, "start")[0]["processes"] == len(found)
    assert len(events(several, "start")) == 1  # one writer


def test_a_signal_to_any_process_stops_all_and_resumes_to_the_same_bits(teams):
    found, out = teams(3)
    assert all(process["stops"] == 2 for process in found)
    whole, *stopped = sorted((out / "stops").iterdir(), reverse=True)
    for other in stopped:
        assert_same_run(folder_in(whole), folder_in(other))
        assert [e["signal"] for e in events(folder_in(other), "stopped")] == ["SIGTERM"]


@pytest.mark.parametrize("size", [2, 3])
def test_what_one_process_finds_all_say(teams, size):
    found, out = teams(size)
    for process in found:
        for text, error in process["refused"].items():
            assert error.startswith("ConfigError: ")
            assert text in error
        assert process["agreed"] == f"FileNotFoundError: process 1 of {len(found)}: no data here"
        assert process["told"] == "OSError: [Errno 28] No space left: 'there'"
        assert process["value"] == 7
    assert len(found[0]["refused"]) == len(REFUSED)
    assert not (out / "no").exists()


def test_a_process_that_dies_ends_the_others(teams):
    found, out = teams(3)
    for process in found[:2]:
        assert process["died"] == "PeerLost: a process of this run died; the same command resumes"
    assert events(folder_in(out / "died"))[-1]["event"] == "failed"


def test_a_run_that_was_stopped_and_killed_resumes_to_the_same_bits(teams, broken):
    _, out = teams(2)
    folder = folder_in(broken)
    assert_same_run(folder_in(out / "command"), folder)
    kinds = [e["event"] for e in events(folder) if e["event"] in ("stopped", "failed", "resume", "done")]
    assert kinds == ["stopped", "resume", "failed", "resume", "done"]
    assert [e["processes"] for e in events(folder, "resume")] == [2, 2]


def wait_for_epoch(root, epoch, processes):
    deadline = time.monotonic() + SECONDS
    while not any(f'"epoch": {epoch}, "train' in log.read_text() for log in root.glob("main/*/events.jsonl")):
        assert all(process.poll() is None for process in processes), processes[0].stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_of_several_goes_on_alone_and_says_so(teams):
    _, out = teams(2)
    half = config(out / "curves" / "vit", *CURVES["vit"], "overwrite=false")
    (half.folder / "DONE").unlink()
    train(half)
    assert events(half.folder, "resume")[-1]["processes"] == 1
    assert "saved by 2 process(es), goes on with 1" in events(half.folder, "warning")[-1]["text"]


def test_wrong_uses_are_refused_in_one_line(monkeypatch, tmp_path, capsys):
    """From every process; those that are not the first leave the word to it."""
    arguments = ["-m", "nclab.train", "seeds=[0,1]", f"output_root={tmp_path}"]
    first, second = start(2, arguments)
    _, err = first.communicate(timeout=SECONDS)
    assert first.returncode == 2
    assert err.startswith(
        "error: seeds=[...] trains in one process, not with 2 processes of torchrun, which share one run"
    )
    assert err.count("\n") == 1
    assert second.poll() is None  # waits for its launcher to end it
    second.terminate()
    assert second.communicate(timeout=SECONDS)[1] == ""
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="a sweep starts its runs by itself"):
        run_all([], jobs=1)
    with pytest.raises(ConfigError, match="trains in one process"):
        train_seeds([])
    from nclab import train as module

    monkeypatch.setattr(sys, "argv", ["nclab-train", "-m", "seed=0,1", f"output_root={tmp_path / 'm'}"])
    monkeypatch.setattr(module.os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 2
    assert "a sweep starts its runs by itself" in capsys.readouterr().err
    monkeypatch.delenv("RANK")
    with pytest.raises(ConfigError, match="WORLD_SIZE=2, RANK=None, LOCAL_RANK=0"):
        train(config(tmp_path))
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert world_size() == 1


def test_more_processes_than_samples_or_batch(tmp_path):
    from nclab.run.build import fit_for_several, prepared

    with pytest.raises(ConfigError, match="batch_size must be at least 64, one sample a process; got 50"):
        fit_for_several(config(tmp_path), ProcessGroup(0, 64))
    c = config(tmp_path, "dataset.test_size=20")
    c.device, c.data_root = "cpu", "."
    with pytest.raises(ConfigError, match="at most 20 processes, one a sample of the smallest split; got 21"):
        prepared(c, ProcessGroup(0, 21))
    c = config(tmp_path, "phases=tasks", "epochs=5", "dataset.test_size=20")
    c.device, c.data_root = "cpu", "."
    with pytest.raises(ConfigError, match="at most 4 processes, one a sample of the smallest split; got 5"):
        prepared(c, ProcessGroup(0, 5))  # of two classes each task has four test samples


WHOSE_FAULT = """
import os, sys, time
from datetime import timedelta
import torch
from torch import distributed
from nclab.parallel import group

def said(call):
    try:
        call()
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)

group.PATIENCE = timedelta(seconds=3)
with group.joined() as world:
    rows = list(torch.zeros(2, 4).unbind())
    sys.stdout = sys.__stdout__
    said(lambda: world.sum(torch.zeros(3, dtype=torch.int16)))  # no backend adds these
    gather, distributed.all_gather = distributed.all_gather, lambda to, t: gather(rows, t)
    said(lambda: world.gather(torch.zeros(3)))
    if world.rank == 1:
        time.sleep(5)
    said(lambda: world.sum(torch.zeros(3)))
    os._exit(0)
"""


def test_only_an_exchange_that_ends_from_outside_is_a_lost_process():
    """Before, a wrong type or shape of one's own read "a process of this run died" as well."""
    first, second = (worker.communicate(timeout=SECONDS)[0].splitlines() for worker in start(2, ["-c", WHOSE_FAULT]))
    for own in (first, second):
        assert own[0] == "RuntimeError: Invalid scalar type"
        assert own[1].startswith("RuntimeError: ProcessGroupGloo::allgather: invalid tensor size")
    assert first[2] == "PeerLost: a process of this run did not answer for 3 s; the same command resumes"
    assert second[2] == "PeerLost: a process of this run died; the same command resumes"


@pytest.mark.fast
@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[...pair.cc:545] Read error [10.0.0.2]:1: Connection reset by peer"), "died"),
        (RuntimeError("[...pair.cc:561] Connection closed by peer [10.0.0.2]:1"), "died"),
        (RuntimeError("[...pair.cc:7] Write error: Broken pipe"), "died"),
        (distributed.DistBackendError("NCCL error: remote process exited or there was a network error"), "died"),
        (distributed.DistBackendError("NCCL communicator was aborted on rank 1"), "died"),
        (distributed.DistNetworkError("The client socket has failed to connect"), "died"),
        (RuntimeError("[...unbound_buffer.cc:78] Timed out waiting 600000ms for recv operation"), "did not answer"),
        (distributed.DistStoreError("wait timeout after 600000ms"), "did not answer"),
        (distributed.DistBackendError("NCCL error: invalid usage: mismatched types"), None),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), None),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), None),
    ],
)
def test_what_an_exchange_raises_and_whose_fault_it_is(error, lost):
    with pytest.raises(RuntimeError) as caught, _others():
        raise error
    if lost is None:
        assert caught.value is error
    else:
        assert isinstance(caught.value, PeerLost)
        assert lost in str(caught.value)
        again = deepcopy(caught.value)  # as it is sent to the others
        assert (type(again), str(again)) == (PeerLost, str(caught.value))


@pytest.mark.fast
def test_shares_are_contiguous_and_even():
    for number in (0, 1, 2, 7, 100):
        for size in (1, 2, 3, 8):
            shares = [range(number)[ProcessGroup(rank, size).share(number)] for rank in range(size)]
            assert [i for share in shares for i in share] == list(range(number))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
            assert max(map(len, shares)) == ProcessGroup(0, size).largest_share(number)


def test_rows_of_a_batch_change_as_in_the_batch():
    images = torch.arange(7 * 64, dtype=torch.uint8).reshape(7, 1, 8, 8)
    whole = crop_flip(images, torch.Generator().manual_seed(3))
    for rows_ in (slice(0, 3), slice(3, 7), slice(4, 4)):
        assert torch.equal(crop_flip(images[rows_], torch.Generator().manual_seed(3), rows_, 7), whole[rows_])


def test_a_meter_sums_over_parts_whoever_holds_them():
    torch.manual_seed(0)
    features, labels = torch.randn(30, 6, dtype=torch.float64), torch.arange(30).sort().values % 3
    whole, part = CollapseMeter(3), CollapseMeter(3, reduce=lambda t: 2 * t)  # two processes with the same samples
    for meter in (whole, part):
        meter.add_means(features, labels)
        meter.add_spread(features, labels, features[:, :3])
    expected, came = whole.compute(), part.compute()
    assert came == pytest.approx(expected, rel=1e-12)
    assert math.isfinite(came["nc4_mismatch"])


@pytest.mark.fast
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("shape", [(9, 5), (4, 5, 3)])
def test_batch_norm_equals_torch(momentum, shape):
    torch.manual_seed(0)
    ours = nn.BatchNorm1d(5, momentum=momentum).double()
    nn.init.normal_(ours.weight)
    reference = deepcopy(ours)
    ours = GlobalBatchNorm(ours, ProcessGroup())
    assert list(ours.state_dict()) == list(reference.state_dict())
    for _ in range(3):
        x = torch.randn(shape, dtype=torch.float64)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        weights = torch.randn(shape, dtype=torch.float64)
        for norm, inputs in ((ours, a), (reference, b)):
            norm.zero_grad()
            (norm(inputs) * weights).sum().backward()
        torch.testing.assert_close(a.grad, b.grad)
        for p, q in zip(ours.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad)
        for key, value in reference.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[key], value)
    torch.testing.assert_close(ours.eval()(x), reference.eval()(x))


def test_a_follower_speaks_only_for_a_first_process_that_cannot(tmp_path, monkeypatch):
    monkeypatch.setattr("nclab.runfolder.follower.SECONDS_FOR_THE_FIRST", 0.2)
    follower = Follower(tmp_path / "run")
    assert follower.speak_for_the_first("gone")  # no folder to be seen
    with RunFolder(tmp_path / "run") as first:
        first.open_logs(None)
        first.event("start", epoch=0)
        assert not follower.speak_for_the_first("gone")  # it lives
    assert follower.speak_for_the_first("gone")
    assert [e["event"] for e in events(tmp_path / "run")] == ["start", "failed"]
    assert not follower.speak_for_the_first("gone")  # somebody has
    assert str(PeerLost()) == "a process of this run died; the same command resumes"
