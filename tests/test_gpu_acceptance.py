"""The acceptance on a GPU: its verdicts, that no line hides another, and each line's arithmetic, tiny, on the CPU."""

import json
import warnings

import pytest
import torch

from nclab.bench.gpu import acceptance as run
from nclab.bench.gpu import (
    device_tests,
    epochs,
    exchange,
    graphs,
    layer_memory,
    plans,
    products,
    resumed,
    run_cost,
    stacked,
    waits,
)
from nclab.bench.gpu.__main__ import SECONDS, main
from nclab.bench.gpu.lines import LINES
from nclab.bench.gpu.row import FAILED, MET, MISSED, NO_GPU, TOLD, Aim, Line, Row, WrongResult
from nclab.bench.gpu.stand_in import stand_in
from nclab.bench.gpu.table import save, summary, table
from nclab.training.step import set_products


@pytest.fixture
def own_products():
    """What lines set of the process is undone."""
    conv = torch.backends.cudnn.conv.fp32_precision
    yield
    set_products(tf32=False)
    torch.backends.cudnn.conv.fp32_precision = conv


@pytest.mark.parametrize(
    ("aim", "number", "verdict", "text"),
    [
        (Aim("a", "times", least=5), 5.0, MET, "at least 5 times"),
        (Aim("a", "times", least=5), 4.99, MISSED, "at least 5 times"),
        (Aim("a", "s", most=0.5), 0.5, MET, "at most 0.5 s"),
        (Aim("a", "s", most=0.5), 0.51, MISSED, "at most 0.5 s"),
        (Aim("a", "s", most=0.5), float("nan"), MISSED, "at most 0.5 s"),
        (Aim("a", "s"), 3.0, TOLD, ""),
    ],
)
def test_the_verdict_is_that_of_the_aim(aim, number, verdict, text):
    row = aim.row(number, "beside")
    assert (row.verdict, row.aim, row.number) == (verdict, text, number) or number != number
    assert row.verdict == verdict
    assert row.value.endswith("; beside")


GOOD, BAD, SLOW, DEAD = (Aim(name, "times", least=1) for name in ("good", "bad", "slow", "dead"))


def lines(tmp_path, monkeypatch):
    """Four lines whose processes are good, raise, hang and die of a signal, in the place of ours."""
    script = tmp_path / "child.py"
    script.write_text(
        "import json, os, sys, time\n"
        "name, out = sys.argv[sys.argv.index('--line') + 1], sys.argv[sys.argv.index('--out') + 1]\n"
        "print('said by', name, flush=True)\n"
        "if name == 'bad': sys.exit('RuntimeError: no kernel image is available')\n"
        "if name == 'slow': time.sleep(60)\n"
        "if name == 'dead': os.kill(os.getpid(), 11)\n"
        "row = dict(what='good', aim='', value='2 times', verdict='met', number=2.0)\n"
        "open(f'{out}/{name}.rows', 'w').write(json.dumps([row]))\n"
    )
    popen = run.subprocess.Popen

    def child(command, **how):
        assert command[1:3] == ["-m", "nclab.bench.gpu"]
        return popen([command[0], str(script), *command[3:]], **how)

    monkeypatch.setattr(run.subprocess, "Popen", child)
    monkeypatch.setattr(run, "LEAST_SECONDS", 0.01)
    return [Line(aim.what, 0.7 if aim is SLOW else 20, (aim,), lambda device: []) for aim in (BAD, SLOW, DEAD, GOOD)]


def test_a_line_that_fails_costs_no_other(tmp_path, monkeypatch):
    seen = []
    result = run.accepted(lines(tmp_path, monkeypatch), "cuda", tmp_path / "out", 100, seen.append)
    assert seen == [result] * 4  # told after every line
    rows = {name: rows[0] for name, rows in result.items()}
    assert {name: row.verdict for name, row in rows.items()} == {
        "bad": FAILED,
        "slow": FAILED,
        "dead": FAILED,
        "good": MET,
    }
    assert rows["bad"].value == "RuntimeError: no kernel image is available"
    assert rows["slow"].value == "not through after 1 s"
    assert "said by dead" in rows["dead"].value
    assert rows["bad"].aim == "at least 1 times"
    assert run.exit_code(result) == 1
    assert run.exit_code({"good": result["good"]}) == 0
    assert run.exit_code({"x": [GOOD.row(0.5)]}) == 0  # missed: a finding
    log = (tmp_path / "out" / "gpu.log").read_text()
    assert log.index("==== bad") < log.index("said by bad") < log.index("==== slow") < log.index("said by good")
    assert [*(tmp_path / "out").glob("*.rows")] == []


def test_a_line_that_would_begin_too_late_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(run.subprocess, "Popen", pytest.fail)
    result = run.accepted([Line("late", 20, (GOOD,), list)], "cuda", tmp_path, 3.0)
    assert result["late"][0].verdict == FAILED
    assert result["late"][0].value == "3 s were left of the time of all lines"


def test_the_lines_together_keep_within_ten_minutes():
    assert SECONDS == 570
    assert sum(line.seconds for line in LINES.values()) <= SECONDS
    whats = [aim.what for line in LINES.values() for aim in line.aims]
    assert len({*whats}) == len(whats) > 40


def test_without_a_gpu_every_line_is_told_and_the_exit_code_is_0(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plans, "AIMS", {("terminal_phase", "gpu_hour"): Aim("a plan", "h", most=1)})
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    assert main(["--device", "cpu"]) == 0
    said = capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert {row["verdict"] for row in result["rows"]} == {NO_GPU}
    assert {row["line"] for row in result["rows"]} == {*LINES}
    assert all(row["what"] in said for row in result["rows"])
    assert next(row["value"] for row in result["rows"] if row["what"] == "a plan").startswith("35 runs, 108,750 epochs")
    assert "without a GPU" in said
    assert {"versions", "hardware", "seconds"} <= result.keys()
    assert (tmp_path / "out" / "gpu.md").read_text().startswith("| line")


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "tpu"])
def test_a_device_that_is_not_there_is_refused(device, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "tpu")
    with pytest.raises(SystemExit) as end:
        main(["--device", device, "--out", str(tmp_path / "out")])
    assert end.value.code == 2
    assert f"expected cpu, or cuda where torch sees a GPU; got {device}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_table_names_a_line_once_and_counts_the_verdicts(tmp_path):
    result = {"a": [GOOD.row(2.0), BAD.unmeasured(FAILED, "why")], "b": [SLOW.unmeasured(NO_GPU)]}
    text = table(result)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    assert cells == [
        ["a", "good", "2 times", "at least 1 times", "met"],
        ["", "bad", "why", "at least 1 times", "failed"],
        ["b", "slow", "", "at least 1 times", "no GPU"],
    ]
    assert summary(result) == "1 met, 1 failed, 1 without a GPU"
    save(result, tmp_path, {"versions": {}}, 12.3)
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [Row(**{k: v for k, v in row.items() if k != "line"}) for row in rows] == [*result["a"], *result["b"]]


# ---- each line's own arithmetic, on the CPU


def test_device_tests_are_found_by_their_mark_and_counted():
    names = {file.name for file in device_tests.marked(device_tests.tests_folder())}
    assert {"test_gpu.py", "test_dataset.py", "test_label_noise.py"} <= names
    assert "test_frame.py" not in names
    assert device_tests.passed("..\n12 passed, 3 deselected in 4.1s\n") == 12
    assert device_tests.passed("13 skipped in 1s") == 0  # no aim is met by tests that are skipped
    assert device_tests.ALL.row(0).verdict == MISSED


def test_waits_are_counted_by_torchs_own_warnings(monkeypatch):
    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

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


def test_every_exchange_of_a_group_of_one():
    exchange.group_of_one("cpu")
    try:
        assert exchange.exchanged("cpu", 100) == dict.fromkeys(
            ["sum", "largest", "gather", "broadcast", "objects"], True
        )
    finally:
        torch.distributed.destroy_process_group()


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
    assert "of the product rate" in row.value
    model = torch.nn.Linear(8, 4)
    step = lambda: model(torch.ones(2, 8)).sum().backward()  # noqa: E731
    assert epochs.flops_of_a_step(model, step) == 2 * (2 * 2 * 8 * 4)  # forward, and the gradient of the weight


# ---- plans


def test_a_plan_costs_its_steps_and_measurements(tiny):
    config = tiny("epochs=10", "metrics.every=4")
    assert run_cost.measurements(config) == 4  # untrained, 4, 8, 10
    assert run_cost.measurements(tiny("metrics.every=0")) == 1
    assert run_cost.Cost(0.5, 3, 10.0).run(config) == 10 * 3 * 0.5 + 4 * 10
    assert run_cost.steps_guessed(config) == 2  # 200 images in batches of 128
    assert run_cost.steps_guessed(tiny("batch_size=null")) == 1
    same, other = tiny("seed=3", "etf=last_k", "optimizer.lr=0.3"), tiny("model.width=25")
    assert run_cost.key_of(config) == run_cost.key_of(tiny("epochs=10", "metrics.every=2")) == run_cost.key_of(same)
    assert run_cost.key_of(other) != run_cost.key_of(config)


@pytest.mark.usefixtures("own_products")
def test_a_run_is_timed_as_it_would_train(tiny, monkeypatch):
    monkeypatch.setattr(run_cost, "LEAST", 0.01)
    cost = run_cost.cost_of(tiny("epochs=50", "dataset.train_size=300"), "cpu")
    assert cost.steps == 3
    assert 0 < cost.step < 1
    assert 0 < cost.measurement < 5
    few = run_cost.cost_of(tiny("epochs=1", "metrics.every=0"), "cpu")  # over before the clock would start
    assert few.steps == 2
    assert few.step > 0


def test_the_time_of_a_step_is_that_between_looks(monkeypatch):
    """A fit whose steps take a second each of a false clock."""
    now = [0.0]
    monkeypatch.setattr(run_cost.time, "perf_counter", lambda: now[0])

    class Slow:
        epochs = 3
        progress = type("P", (), {"epoch": 0, "part": None, "steps": 0})()

        def begin_epoch(self) -> None:
            now[0] += 10  # beside the steps

        def train_epoch(self) -> None:
            for _ in range(20):
                self.check()
                now[0] += 1
                self.progress.part.batches += 1

    assert run_cost.step_seconds(Slow(), "cpu", least=5) == 1
    assert run_cost.step_seconds(Slow(), "cpu", least=1e9) == (60 - 4 + 20) / 56


def test_what_was_not_timed_is_taken_to_be_as_dear(tiny):
    known, unknown = tiny("epochs=10"), tiny("epochs=30", "model.width=25")
    mine = plans.Runs([known, unknown])
    assert mine.guessed() == {run_cost.key_of(known): 0.25, run_cost.key_of(unknown): 0.75}
    aim = Aim("a plan", "h", most=1)
    row = plans.extrapolated(aim, mine, plans.Costs({run_cost.key_of(known): run_cost.Cost(90.0, 2, 0.0)}))
    assert row.number == 10 * 2 * 90 / 0.25 / 3600
    assert row.verdict == MISSED
    assert "25% of the steps are of timed kinds" in row.value
    assert plans.extrapolated(aim, mine, plans.Costs()).verdict == FAILED


def test_the_kinds_with_most_steps_are_timed_first_until_the_time_is_over(tiny, monkeypatch):
    configs = [tiny("epochs=10"), tiny("epochs=30", "model.width=25"), tiny("epochs=20", "model.width=26")]
    now, order = [0.0], []

    def cost_of(config, device):
        order.append(config.model.width)
        now[0] += 10
        return run_cost.Cost(1.0, 1, 0.0)

    monkeypatch.setattr(plans, "cost_of", cost_of)
    monkeypatch.setattr(plans.time, "monotonic", lambda: now[0])
    assert len(plans.timed([plans.Runs(configs)], "cpu", 15.0).of) == 2
    assert order == [25, 26]


def test_a_kind_of_run_that_cannot_be_timed_fails_its_plans_alone(tiny, monkeypatch, capsys):
    good, bad = tiny(), tiny("model.width=25")

    def cost_of(config, device):
        if config.model.width == 25:
            raise RuntimeError("CUDA error: out of memory\nmore")
        return run_cost.Cost(1.0, 1, 0.0)

    monkeypatch.setattr(plans, "cost_of", cost_of)
    costs = plans.timed([plans.Runs([good]), plans.Runs([good, bad])], "cuda", float("inf"))
    assert plans.extrapolated(Aim("a", "h"), plans.Runs([good]), costs).verdict == TOLD
    row = plans.extrapolated(Aim("a", "h"), plans.Runs([good, bad]), costs)
    assert (row.verdict, row.value) == (FAILED, "mlp4x25 on digits: RuntimeError: CUDA error: out of memory")
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "shape", "train"),
    [
        (("dataset=imdb", "model=tf", "dataset.train_size=50", "dataset.test_size=50"), (256, 10_000), 50),
        (("dataset=mnist", "dataset.train_size=500"), (1, 28, 28), 500),
    ],
)
def test_noise_stands_in_for_files(tiny, words, shape, train):
    data = stand_in(tiny(*words), "cpu")
    assert tuple(data.shape) == shape
    assert len(data.train) == train


def test_a_killed_run_is_resumed_and_compared(tmp_path, monkeypatch):
    """The lives in the place of processes: the first is whole, the second killed, the third goes on from it."""
    trained = []

    class Life:
        ended = False

        def __init__(self, words, log, cold):
            trained.append(words)
            log.touch()
            root = next(word for word in words if word.startswith("output_root")).partition("=")[2]
            self.folder = (run.Path(root)) / "main" / "run"
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
