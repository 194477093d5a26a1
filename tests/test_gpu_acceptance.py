"""The acceptance on a GPU: its verdicts, its command, and that no line hides another."""

import json
import subprocess
import time
from pathlib import Path

import pytest
import torch

from nclab.bench.gpu import __main__ as command
from nclab.bench.gpu import acceptance as run
from nclab.bench.gpu import plans
from nclab.bench.gpu.__main__ import SECONDS, main
from nclab.bench.gpu.lines import LINES
from nclab.bench.gpu.row import FAILED, MET, MISSED, NO_GPU, NOT_TIMED, TOLD, Aim, Line, Row, WrongResult, reason
from nclab.bench.gpu.table import save, summary, table


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
    """Four lines whose processes are good, raise, hang and die of a signal, in the place of ours. The one that raises
    leaves a process behind."""
    script = tmp_path / "child.py"
    script.write_text(
        "import json, os, subprocess, sys, time\n"
        "name, out = sys.argv[sys.argv.index('--line') + 1], sys.argv[sys.argv.index('--out') + 1]\n"
        "sys.stdout.buffer.write('\\u00e4\\n'.encode() * 200)\n"  # a character is not a byte
        "print('said by', name, flush=True)\n"
        "if name == 'bad':\n"
        "    left = subprocess.Popen(['sleep', '60'])\n"
        "    open(f'{out}/left', 'w').write(str(left.pid))\n"
        "    open(f'{out}/{name}.why', 'w').write('RuntimeError: no kernel image is available')\n"
        "    sys.exit('Compile with TORCH_USE_CUDA_DSA')\n"
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
    return [Line(aim.what, 0.7 if aim is SLOW else 20, (aim,), lambda *_: []) for aim in (BAD, SLOW, DEAD, GOOD)]


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
    assert rows["dead"].value == "signal 11 (SIGSEGV); last line: said by dead"
    assert rows["bad"].aim == "at least 1 times"
    assert run.exit_code(result) == 1
    assert run.exit_code({"good": result["good"]}) == 0
    assert run.exit_code({"x": [GOOD.row(0.5)]}) == 0  # missed: a finding
    log = (tmp_path / "out" / "gpu.log").read_text()
    assert log.index("==== bad") < log.index("said by bad") < log.index("==== slow") < log.index("said by good")
    assert [*(tmp_path / "out").glob("*.rows")] == [*(tmp_path / "out").glob("*.why")] == []
    assert ends(int((tmp_path / "out" / "left").read_text()))


def ends(pid: int) -> bool:
    """Whether this process is gone, or dead and waits to be counted, within a few seconds."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("code", "said", "why"),
    [
        (-9, b"", "signal 9 (SIGKILL)"),
        (3, b"a\nb\n", "exit code 3; last line: b"),
        (1, b"\xff\n", "exit code 1; last line: \ufffd"),
    ],
)
def test_what_a_process_without_a_reason_ended_by_is_named(tmp_path, code, said, why):
    assert run.ended_by(code, tmp_path / "none", said) == why


@pytest.fixture
def as_it_is(monkeypatch):
    """A child's part leaves this process as it is."""
    monkeypatch.setattr(run.torch, "set_num_threads", lambda n: None)
    monkeypatch.setattr(run, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(run, "set_products", lambda tf32: None)


@pytest.mark.usefixtures("as_it_is")
def test_a_line_leaves_its_rows_as_they_come_and_why_it_could_not_go_on(tmp_path):
    def measure(device, seconds):
        assert (device, seconds) == ("cuda", 12.5)
        yield [GOOD.row(1), BAD.unmeasured(NOT_TIMED)]
        raise RuntimeError(
            "CUDA error: an illegal memory access was encountered\nCompile with `TORCH_USE_CUDA_DSA` to enable"
        )

    with pytest.raises(RuntimeError, match="illegal"):
        run.measure_one(Line("two", 20, (GOOD, BAD), measure), "cuda", tmp_path, 12.5)
    assert (tmp_path / "two.why").read_text() == "RuntimeError: CUDA error: an illegal memory access was encountered"
    rows = [Row(**row) for row in json.loads((tmp_path / "two.rows").read_text())]
    assert rows == [GOOD.row(1), BAD.unmeasured(NOT_TIMED)]


def test_a_reason_is_one_line():
    assert reason(WrongResult("a\nb")) == "WrongResult: a"
    assert reason(ValueError("backend='inductor' raised:\n  no compiler\nmore")) == (
        "ValueError: backend='inductor' raised: no compiler"
    )
    assert reason(MemoryError()) == "MemoryError: "


HANGS, DIES = "time.sleep(60)", "os.kill(os.getpid(), 11)"
SHORT, DEAD_BY = "not through after 1 s", "signal 11 (SIGSEGV)"


@pytest.mark.parametrize(
    ("end", "second", "expected"),
    [
        (HANGS, NOT_TIMED, [(MET, "2 times"), (NOT_TIMED, SHORT)]),
        (DIES, NOT_TIMED, [(FAILED, f"{DEAD_BY}; before: 2 times"), (FAILED, DEAD_BY)]),
        (HANGS, MET, [(FAILED, f"{SHORT}; before: 2 times")] * 2),  # at its end
        (DIES, MET, [(FAILED, f"{DEAD_BY}; before: 2 times")] * 2),
    ],
)
def test_rows_that_there_were_are_kept(tmp_path, monkeypatch, end, second, expected):
    (lines := tmp_path / "out").mkdir()
    row = "dict(what='{}', aim='', value='2 times', verdict='{}', number=None)"
    rows = f"[{row.format('good', MET)}, {row.format('bad', second)}]"
    script = f"import json, os, time; open('{lines}/two.rows', 'w').write(json.dumps({rows})); {end}"
    popen, asked = subprocess.Popen, []

    def child(command, **how):
        asked.extend(command)
        return popen([command[0], "-c", script], **how)

    monkeypatch.setattr(run.subprocess, "Popen", child)
    monkeypatch.setattr(run, "LEAST_SECONDS", 0.01)
    result = run.accepted([Line("two", 1, (GOOD, BAD), lambda *_: [])], "cuda", lines, 100)
    assert [(row.verdict, row.value) for row in result["two"]] == expected
    assert asked[asked.index("--seconds") + 1] == "1"
    assert run.exit_code(result) == (FAILED in dict(expected))


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


def test_a_gpu_that_cannot_be_used_is_refused_in_one_line(monkeypatch, capsys, tmp_path):
    """It is looked at in a process of its own: this one has no context, which exclusive mode gives one process."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(command, "provenance", pytest.fail)
    asked = []

    def child(words, **how):
        asked.append(words[1:])
        return subprocess.CompletedProcess(words, 1, "", "a warning\nRuntimeError: CUDA error: busy or unavailable\n")

    monkeypatch.setattr(command.subprocess, "run", child)
    with pytest.raises(SystemExit) as end:
        main(["--device", "cuda", "--out", str(tmp_path / "out")])
    assert end.value.code == 2
    assert asked == [["-m", "nclab.bench.gpu", "--look", "--device", "cuda"]]
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith("expected one that can be used; cuda: RuntimeError: CUDA error: busy or unavailable")
    assert not (tmp_path / "out").exists()


def test_a_gpu_that_can_be_used_is_described_by_the_process_that_looked(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(command, "provenance", pytest.fail)
    told = json.dumps({"versions": {}, "hardware": {"gpu": "a GPU"}})
    monkeypatch.setattr(command.subprocess, "run", lambda words, **how: subprocess.CompletedProcess(words, 0, told, ""))

    def accepted(lines, device, folder, seconds, after):
        after(result := {"good": [GOOD.row(1)]})
        return result

    monkeypatch.setattr(command, "accepted", accepted)
    (tmp_path / "out").mkdir()
    assert main(["--device", "cuda", "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "gpu.json").read_text())["hardware"] == {"gpu": "a GPU"}


def test_the_look_says_in_one_line_what_is_wrong(monkeypatch, capsys):
    assert main(["--look", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["hardware"]["device"] == "cpu"

    def ones(*size, device):
        raise RuntimeError("CUDA error: busy\nCompile with `TORCH_USE_CUDA_DSA`")

    monkeypatch.setattr(torch, "ones", ones)
    with pytest.raises(SystemExit, match=r"^RuntimeError: CUDA error: busy$"):
        main(["--look", "--device", "cpu"])


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
    assert summary({"a": [GOOD.unmeasured(NOT_TIMED)]}) == "1 not timed"
    save(result, tmp_path, {"versions": {}}, 12.3)
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [Row(**{k: v for k, v in row.items() if k != "line"}) for row in rows] == [*result["a"], *result["b"]]
