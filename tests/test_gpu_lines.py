"""Each line of the acceptance on a GPU: its own arithmetic, tiny, on the CPU."""

import sys
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch

from nclab.bench.gpu import (
    device_tests,
    epochs,
    exchange,
    graphs,
    layer_memory,
    products,
    resumed,
    stacked,
    waits,
)
from nclab.bench.gpu.lines import LINES
from nclab.bench.gpu.row import MET, MISSED, NO_GPU, TOLD, Aim, WrongResult


def test_device_tests_are_found_by_their_mark():
    names = {file.name for file in device_tests.marked(device_tests.tests_folder())}
    assert {"test_gpu.py", "test_dataset.py", "test_label_noise.py"} <= names
    assert "test_frame.py" not in names


@pytest.mark.parametrize(
    ("skipped", "verdict", "value"),
    [("", MET, "1 of all; 2 of 2 tests"), ("pytest.mark.skip, ", MISSED, "0.5 of all; 1 of 2 tests")],
)
def test_device_tests_that_are_skipped_do_not_pass(tmp_path, monkeypatch, skipped, verdict, value):
    """By pytest itself, as quiet as our pyproject.toml makes it."""
    (folder := tmp_path / "tests").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -q\nmarkers = gpu\n")
    (folder / "test_two.py").write_text(f"import pytest\npytestmark = [{skipped}pytest.mark.gpu]\ndef test_a(): pass\n")
    (folder / "test_one.py").write_text("import pytest\n@pytest.mark.gpu\ndef test_b(): pass\ndef test_c(): pass\n")
    monkeypatch.setattr(device_tests, "tests_folder", lambda: folder)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (row,) = device_tests.measure("cuda")
    assert (row.verdict, row.value) == (verdict, value)


def test_device_tests_that_fail_are_a_wrong_result(tmp_path, monkeypatch):
    (folder := tmp_path / "tests").mkdir()
    monkeypatch.setattr(device_tests, "tests_folder", lambda: folder)
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 1 failed\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(WrongResult, match="pytest ended with code 1: 1 failed"):
        device_tests.measure("cuda")


def test_waits_are_counted_by_torchs_own_warnings(monkeypatch):
    modes = []

    def set_mode(mode: str) -> None:
        modes.append(mode)
        prototype = (
            "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing operations"
        )
        warnings.warn(prototype, UserWarning, stacklevel=1)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)

    def call() -> None:
        for _ in range(3):
            warnings.warn("called a synchronizing CUDA operation", UserWarning, stacklevel=1)
        warnings.warn("something else", UserWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert waits.waits(call) == 3
    assert modes == ["warn", "default"]
    rows = waits.measure("cpu")
    assert [row.verdict for row in rows] == [MET, MET, TOLD]
    seen = iter([5, 1, 20 + 5, 1])  # a measurement that waits once for every other batch
    monkeypatch.setattr(waits, "waits", lambda call: next(seen))
    assert [row.verdict for row in waits.measure("cpu")][:2] == [MISSED, MET]


def test_every_exchange_of_a_group_of_one(monkeypatch):
    exchange.group_of_one("cpu")
    try:
        found = exchange.exchanged("cpu", 100)
    finally:
        torch.distributed.destroy_process_group()
    assert len(found) == exchange.EXCHANGES.least == 6
    assert found == dict.fromkeys([*exchange.BY_NCCL, *exchange.BY_GLOO], True)
    monkeypatch.setattr(exchange, "NUMBERS", 100)
    (row,) = exchange.measure("cpu")
    assert row.verdict == MET
    assert row.value.startswith("6 of 6; 3 by NCCL, 3 by gloo; a sum of")


def test_objects_and_numbers_go_by_gloo_where_the_group_has_both(monkeypatch):
    """Torch's own choice of the device for objects, asked of a group with the backends of a run."""
    asked = []
    monkeypatch.setattr(exchange.distributed, "init_process_group", lambda backend, **how: asked.append(backend))
    exchange.group_of_one("cuda")
    assert asked == ["cpu:gloo,cuda:nccl"]
    group = torch.distributed.ProcessGroup
    monkeypatch.setattr(group, "_device_types", [torch.device("cuda"), torch.device("cpu")])
    both = group.__new__(group)
    assert torch.distributed.distributed_c10d._get_object_coll_device(both) == "cpu"


def epoch(n, learnable, loss=1.0, seconds=0.01):
    return {"epoch": n, "learnable_parameters": learnable, "running_loss": loss, "train_seconds": seconds}


def runs(seconds=0.01, loss=1.0):
    return [epoch(n, 10 if n <= graphs.SWITCH else 5, loss, seconds) for n in range(1, graphs.EPOCHS + 1)]


def test_compiled_runs_are_judged_before_and_after_the_switch():
    compiled = runs(0.004)
    compiled[0]["train_seconds"] = compiled[graphs.SWITCH]["train_seconds"] = 30.0  # compiles
    rows = graphs.judged(runs(), compiled, 0)
    assert [(row.number, row.verdict) for row in rows] == [
        (pytest.approx(2.5), MET),
        (pytest.approx(2.5), MET),
        (0, MET),
    ]
    assert graphs.judged(runs(), runs(), 2)[2].verdict == MISSED
    with pytest.raises(WrongResult, match=r"running loss 1, compiled 1\.2"):
        graphs.judged(runs(), runs(loss=1.2), 0)
    with pytest.raises(WrongResult, match="expected a switch"):
        graphs.judged([epoch(n, 10) for n in range(1, 21)], runs(), 0)
    with pytest.raises(WrongResult, match="epoch 11: the compiled run has other layers fixed"):
        graphs.judged(runs(), [epoch(n, 10) for n in range(1, 21)], 0)


def test_nothing_compiled_is_no_success():
    counts = defaultdict(Counter)
    with pytest.raises(WrongResult, match="expected compiled parts, torch compiled none"):
        graphs.uncaptured(counts)
    counts["stats"]["unique_graphs"] = 3
    assert graphs.uncaptured(counts) == (0, "3 parts, 0 no CUDA graph, 0 breaks")
    counts["graph_break"] |= {"print": 1, "item": 2}
    counts["inductor"]["cudagraph_skips"] = 1
    number, beside = graphs.uncaptured(counts)
    assert beside == "3 parts, 1 no CUDA graph, 3 breaks"
    row = graphs.judged(runs(), runs(), number, beside)[2]
    assert (row.verdict, row.value) == (MISSED, f"4; {beside}")


def test_torch_counts_what_it_compiles():
    """By the names that are asked: with a backend that compiles nothing further."""
    graphs.counters.clear()
    torch.compiler.reset()
    torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2))
    assert graphs.uncaptured(graphs.counters)[1].startswith("1 parts")


def test_the_run_of_the_graphs_switches(tmp_path):
    small = ("model.width=16", "model.depth=3", "dataset.train_size=200", "dataset.test_size=100")
    found = graphs.trained((*graphs.RUN, *small, "device=cpu"), str(tmp_path))
    rows = graphs.judged(found, found, 0)
    assert [row.number for row in rows] == [1, 1, 0]


def test_peaks_are_told_as_shares_of_the_learnable_stack():
    peaks = {"learnable": 2000, "frozen": 600, "random": 900, "canonical": 300, "hadamard": 300}
    rows = layer_memory.measure("cpu", lambda kind, device: peaks[kind] * 2**20)
    assert [row.verdict for row in rows] == [TOLD, MET, MISSED, MET, MET]
    assert rows[1].number == 0.3
    assert layer_memory.peak("hadamard", "cpu", 16) == 0  # torch counts none of a CPU


@pytest.mark.usefixtures("own_products")
def test_precisions_are_timed():
    rows = products.measure("cpu", products.Sizes(mlp=(16, 10), side=8, resnet=(8, 4), batch=10, steps=1))
    assert [row.what for row in rows] == [aim.what for aim in products.LINE.aims]
    assert all(row.number > 0 and "a step takes" in row.value for row in rows)


def test_stacked_seeds_are_timed(monkeypatch):
    names = [aim.what.split(" of ")[0] for (name, _), aim in stacked.AIMS.items() if name == stacked.NAMES[0]]
    assert names == ["1 stacked seed", *(f"{seeds} stacked seeds" for seeds in (2, 4, 8, 16))]
    small = {("MLP-4x64, 8 x 8 pixels", seeds): Aim(str(seeds), least=0) for seeds in (1, 2)}
    monkeypatch.setattr(stacked, "AIMS", small)
    assert [(row.what, row.verdict) for row in stacked.measure("cpu", most=128)] == [("1", MET), ("2", MET)]
    eight = [row.aim for line in [LINES["stacked seeds"]] for row in line.unmeasured(NO_GPU) if row.what[:2] == "8 "]
    assert eight == ["at least 5 times as fast"] * 2


def test_an_epochs_operations_are_those_of_its_products():
    row = epochs.timed(epochs.SETTINGS[0], "cpu", images=128, side=64)
    assert row.number > 0
    assert "kernels run an unknown share of the time" in row.value  # the profiler sees none of a GPU
    assert "of the product rate" in row.value
    model = torch.nn.Linear(8, 4)
    step = lambda: model(torch.ones(2, 8)).sum().backward()  # noqa: E731
    assert epochs.flops_of_a_step(model, step) == 2 * (2 * 2 * 8 * 4)  # forward, and the gradient of the weight


def test_a_killed_run_is_resumed_and_compared(tmp_path, monkeypatch):
    """The lives in the place of processes: the first is whole, the second killed, the third goes on from it."""
    trained = []

    class Life:
        ended = False

        def __init__(self, words, log, cold):
            trained.append(words)
            log.touch()
            root = next(word for word in words if word.startswith("output_root")).partition("=")[2]
            self.folder = Path(root) / "main" / "run"
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "config.yaml").touch()
            (self.folder / "events.jsonl").write_text('{"event": "epoch"}\n' * 5)

        def wait(self):
            return 0

        def wrote(self, root, name):
            return True

        def end(self, number):
            return -number

    def compare(report, whole, killed):
        report.counts["bit-identical"] += 1
        report.counts["rows"] += 7
        if killed.parent.parent.name != "killed":
            report.differences.append("other folder")

    monkeypatch.setattr(resumed, "Life", Life)
    monkeypatch.setattr(resumed, "compare", compare)
    (row,) = resumed.measure("cpu")
    assert (row.verdict, row.value) == (MET, "1 of 1; 7 rows")
    roots = [words[-1].rpartition("/")[2] for words in trained]
    assert roots == ["whole", "killed", "killed"]
    monkeypatch.setattr(resumed, "compare", lambda report, *folders: report.differences.append("metrics.csv differs"))
    with pytest.raises(WrongResult, match=r"metrics\.csv differs"):
        resumed.measure("cpu")
    Life.ended = True
    with pytest.raises(WrongResult, match="ended before it could be killed: no output"):
        resumed.measure("cpu")
