"""`nclab-runs board`: the page holds what the run folders hold, whatever state they are in; it changes none of them."""

import base64
import gzip
import html
import json
import math
import re
import sys

import numpy as np
import pandas as pd
import pytest
from fake_runs import ADAPTIVE, BASELINE, diverge, edit, last, write_run
from run_states import epochs, event, failed_run, make, said, written

from nclab.analysis.runs import load_runs
from nclab.runs.board import page, record
from nclab.runs.board.record import MOST_EPOCHS, read

pytestmark = pytest.mark.usefixtures("without_slurm")
DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
PACKED = '<script type="text/plain" id="run{}">(.*?)</script>'


def board(capsys, root, *words):
    """The page's text, the data of its table, and what was said."""
    out = root.parent / "board.html"
    code, printed, err = said(capsys, "board", root, "--out", out, *words)
    assert (code, err) == (0, "")
    text = out.read_text()
    return text, json.loads(DATA.search(text)[1]), printed


def rows(data):
    """The rows of the table as dictionaries."""
    names = [column["name"] for column in data["columns"]]
    return [dict(zip(names, cells, strict=True)) for cells in data["rows"]]


def curves(text, index):
    """What the browser unpacks of the run in this row; None where nothing is packed."""
    packed = re.search(PACKED.format(index), text)
    return json.loads(gzip.decompress(base64.b64decode(packed[1]))) if packed else None


def snapshot(root):
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in root.rglob("*")}


def test_the_page_holds_the_numbers_of_the_logs(tmp_path, capsys):
    root = tmp_path / "outputs"
    write_run(root, seed=0, epochs=6)
    folder = write_run(root, last(2), 1, epochs=6)
    before = snapshot(root)
    text, data, printed = board(capsys, root)
    assert snapshot(root) == before  # the runs are read only
    assert re.fullmatch(rf"{re.escape(str(tmp_path / 'board.html'))}: 2 runs, \d\.\d MB\n", printed)
    (index,) = [i for i, row in enumerate(rows(data)) if row["seed"] == 1]
    row, drawn = rows(data)[index], curves(text, index)
    assert (row["run"], row["experiment"], row["state"]) == (folder.name, "exp", "done")
    assert (row["dataset"], row["model"]) == ("digits", "MLP of 5 layers, width 400")
    assert (row["policy"], row["kind"], row["epoch"]) == ("last 2 ETF", "etf", "6/6")
    assert drawn["layers"] == ["fc1", "fc2", "fc3", "fc4", "act4", "fc5", "network"]
    assert drawn["features"] == "act4"  # what the classifier reads
    assert drawn["switches"] == [[0, "fc4"], [0, "fc5"]]
    assert drawn["plane"] is None
    frame = pd.read_csv(folder / "metrics.csv")
    checked = 0
    for (metric, split, layer), part in frame.groupby(["metric", "split", "layer"]):
        there = drawn["series"][metric][split][layer]
        assert drawn["epochs"] == part["epoch"].tolist()
        if metric == "nc3":  # undefined in these runs
            assert there == [None] * 7
        else:
            np.testing.assert_allclose(there, part["value"], rtol=5e-4)
            checked += 1
    assert checked > 10
    test = frame.query("split == 'test' and metric == 'accuracy' and epoch == 6")["value"].item()
    nc1 = frame.query("split == 'train' and metric == 'nc1' and layer == 'act4' and epoch == 6")["value"].item()
    assert row["test accuracy"] == pytest.approx(test, rel=5e-4)
    assert row["nc1"] == pytest.approx(nc1, rel=5e-4)


def test_unfinished_killed_and_failed_runs_are_shown_as_such(tmp_path, capsys):
    root = tmp_path / "outputs"
    write_run(root)
    write_run(root, seed=1, done=False)
    diverge(root, seed=2)
    failed_run(root)
    stopped = make(root, event("start", layers=[]), *epochs(1), event("stopped", signal="SIGTERM"), name="stopped")
    running = make(root, event("start", layers=[]), *epochs(1, 2), name="running")
    with written(running):
        _, data, _ = board(capsys, root)
    found = {(row["run"].partition("-s")[2][:1] or row["run"]): (row["state"], row["why"]) for row in rows(data)}
    assert found["0"] == ("done", "")
    assert found["1"] == ("interrupted", "killed or crashed")
    assert found["2"][0] == "failed"
    assert found["2"][1].startswith("diverged in epoch ")
    assert found["failed"][:1] == ("failed",)
    assert "disk full" in found["failed"][1]
    assert found[stopped.name][1].startswith("stopped by SIGTERM")
    assert found["running"][0] == "running"
    assert data["counts"] == "6 runs: 1 done, 1 running, 2 interrupted, 2 failed"


def test_a_broken_log_is_named_and_the_others_are_shown(tmp_path, capsys):
    root = tmp_path / "outputs"
    write_run(root, seed=0)
    torn = write_run(root, seed=1)
    (torn / "metrics.csv").write_text((torn / "metrics.csv").read_text() + "7,train\n")
    bad = write_run(root, seed=2)
    (bad / "events.jsonl").write_text("{\n")
    other = write_run(root, seed=3, experiment="other")
    (other / "config.yaml").write_text("seed: 3\nepochs: 20\n: [\n")
    text, data, _ = board(capsys, root)
    why = {row["run"]: row["why"] for row in rows(data)}
    assert re.fullmatch(r"cannot be read: metrics.csv: line \d+ is incomplete", why[torn.name])
    assert why[bad.name].startswith("cannot be read: events.jsonl, line 1: not JSON")
    assert why[other.name].startswith("cannot be read: config.yaml: ")
    drawn = [curves(text, i) is not None for i in range(4)]
    assert sum(drawn) == 1
    assert rows(data)[drawn.index(True)]["seed"] == 0


def test_half_a_line_of_a_running_process_is_no_error(tmp_path):
    folder = write_run(tmp_path, seed=0, done=False)
    for name in ("metrics.csv", "events.jsonl"):
        with (folder / name).open("a") as file:
            file.write('{"event": "swi' if name == "events.jsonl" else "21,train")
    found = read(folder, ())
    assert found.broken == ""
    assert found.packed
    (folder / "DONE").touch()
    with pytest.raises(ValueError, match=r"events\.jsonl, line 2: not JSON"):
        _ = load_runs([folder])[0].events


def test_long_curves_are_thinned_and_keep_both_ends(tmp_path):
    drawn = json.loads(gzip.decompress(base64.b64decode(read(write_run(tmp_path, epochs=200), ()).packed)))
    assert len(drawn["epochs"]) == MOST_EPOCHS
    assert (drawn["epochs"][0], drawn["epochs"][-1], drawn["measured"]) == (0, 200, 201)
    assert np.diff(drawn["epochs"]).max() <= math.ceil(200 / (MOST_EPOCHS - 1))


def test_numbers_keep_four_digits_and_gaps_are_null():
    values = [0.123456, 1e-9 * 2.34567, 98765.4, -3.14159, 0.0, math.nan, math.inf]
    assert record.rounded(np.array(values)) == [0.1235, 2.346e-09, 98765, -3.142, 0.0, None, None]


def test_settings_that_vary_within_an_experiment_are_told(tmp_path, capsys):
    root = tmp_path / "outputs"
    for lr in (0.01, 0.1):
        write_run(root, optimizer={"name": "sgd", "lr": lr})
    write_run(root, experiment="other")
    _, data, _ = board(capsys, root)
    assert {row["settings"] for row in rows(data)} == {"optimizer.lr=0.01", "optimizer.lr=0.1", ""}


def with_plane(root):
    """A run that measured the suite projection: means of length 2 at the corners, rows of length 3, one sample each."""
    folder = write_run(root, epochs=2)
    lines = []
    for epoch in range(3):
        for label in range(3):
            angle = math.pi / 2 + 2 * math.pi / 3 * label
            for kind, length in (("mean", 2.0), ("row", 3.0), ("sample", 4.0)):
                name = f"plane_{kind}_{label}" + ("_0" if kind == "sample" else "")
                for axis, value in (("x", length * math.cos(angle)), ("y", length * math.sin(angle))):
                    lines.append(f"{epoch},train,act4,{name}_{axis},{value!r}")
    with (folder / "metrics.csv").open("a") as file:
        file.write("\n".join(lines) + "\n")
    return folder


def test_three_classes_in_their_plane_come_from_the_logs(tmp_path):
    found = read(with_plane(tmp_path), ())
    plane = json.loads(gzip.decompress(base64.b64decode(found.packed)))["plane"]
    assert plane["epochs"] == [0, 1, 2]
    top = [0.0, 1.0]
    assert plane["mean"][1][0] == top  # epoch, class: in units of the mean length
    assert plane["row"][2][0] == top
    assert plane["sample"][0][0] == [[0.0, 2.0]]
    right = [round(math.cos(-math.pi / 6), 3), -0.5]
    assert plane["mean"][0][2] == right


def test_names_from_users_are_escaped(tmp_path, capsys):
    root = tmp_path / "out<" / "script><b>puts"  # the path itself ends a script
    evil = '"<img src=x onerror=alert(1)>'
    failed_run(root, name=evil, experiment="<script>alert(2)")
    write_run(root, dataset={"name": "</script><script>alert(3)<"})
    text, data, _ = board(capsys, root)
    assert [row["run"] for row in rows(data) if row["state"] == "failed"] == [evil]
    assert {row["experiment"] for row in rows(data)} == {"<script>alert(2)", "exp"}
    assert "</script><script>alert(3)<" in {row["dataset"] for row in rows(data)}
    assert not re.search(r"<img src=x|<script>alert|<b>puts", text)
    assert html.escape("out</script><b>puts") in text


@pytest.mark.parametrize("name", ["notes.html", "metrics.csv"])
def test_a_file_that_it_did_not_make_is_not_written_over(tmp_path, capsys, name):
    folder = write_run(tmp_path / "outputs")
    out = (folder if name == "metrics.csv" else tmp_path) / name
    if not out.exists():
        out.write_text("<!DOCTYPE html><p>mine")
    before = out.read_bytes()
    code, printed, err = said(capsys, "board", tmp_path / "outputs", "--out", out)
    assert (code, printed) == (2, "")
    assert err.count("\n") == 1
    assert ("not made by nclab-runs board" if name == "notes.html" else "ends in .html") in err
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("out", "expected"),
    [("RUN/board.html", "in a run folder"), ("absent/board.html", "in a folder that is there"), (".", "ends in .html")],
)
def test_a_place_where_no_page_can_be_is_refused_before_anything_is_read(tmp_path, capsys, monkeypatch, out, expected):
    folder = write_run(tmp_path / "outputs")
    monkeypatch.setattr(page, "read", lambda *_: pytest.fail("read"))
    code, _, err = said(capsys, "board", tmp_path / "outputs", "--out", tmp_path / out.replace("RUN", str(folder)))
    assert code == 2
    assert expected in err
    assert err.count("\n") == 1


def test_its_own_page_is_written_again(tmp_path, capsys):
    root = tmp_path / "outputs"
    write_run(root)
    board(capsys, root)
    write_run(root, seed=1)
    assert len(board(capsys, root)[1]["rows"]) == 2


def test_an_empty_folder_is_one_sentence(tmp_path, capsys):
    (tmp_path / "outputs").mkdir()
    code, printed, err = said(capsys, "board", tmp_path / "outputs", "--out", tmp_path / "board.html")
    assert (code, printed) == (2, "")
    assert err == f"nclab-runs board: no run in {tmp_path / 'outputs'}\n"
    assert not (tmp_path / "board.html").exists()


def test_without_plotly_it_says_what_installs_it(tmp_path, capsys, monkeypatch):
    write_run(tmp_path / "outputs")
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    code, printed, err = said(capsys, "board", tmp_path / "outputs", "--out", tmp_path / "board.html")
    assert (code, printed) == (2, "")
    assert err.count("\n") == 1
    assert "pip install 'nclab[board]'" in err


def test_metrics_are_chosen_by_name_and_pattern(tmp_path, capsys):
    root = tmp_path / "outputs"
    write_run(root)
    text, _, _ = board(capsys, root, "--metrics", "nc1,acc*")
    assert set(curves(text, 0)["series"]) == {"nc1", "accuracy"}
    code, _, err = said(capsys, "board", root, "--out", tmp_path / "board.html", "--metrics", "nc9")
    assert code == 2
    assert err == "nclab-runs board: --metrics: no run has nc9; measured: accuracy, nc1, nc3, ncc_accuracy\n"


def test_watch_writes_again_and_reads_only_what_changed(tmp_path, capsys, monkeypatch):
    root, out = tmp_path / "outputs", tmp_path / "board.html"
    write_run(root)
    seen, count = [], []

    def sleep(seconds):
        seen.append((seconds, len(json.loads(DATA.search(out.read_text())[1])["rows"])))
        if len(seen) == 1:
            edit(write_run(root, ADAPTIVE, 1), test=0.5)
        elif len(seen) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("nclab.runs.board.page.time.sleep", sleep)
    whole = page.read
    monkeypatch.setattr(page, "read", lambda *words: count.append(words) or whole(*words))
    code, printed, err = said(capsys, "board", root, "--out", out, "--watch", "7")
    assert (code, err) == (0, "")
    assert seen == [(7.0, 1), (7.0, 2), (7.0, 2)]
    assert len(count) == 2  # each run once
    assert "every 7 s; Ctrl-C ends it" in printed
    assert json.loads(DATA.search(out.read_text())[1])["reload"] is None  # nobody writes it any more


@pytest.mark.parametrize(("seconds", "expected"), [("0", "got 0"), ("outputs", "name the folders in front of --watch")])
def test_seconds_that_are_none_are_refused(tmp_path, capsys, seconds, expected):
    with pytest.raises(SystemExit, match="2"):
        said(capsys, "board", tmp_path, "--watch", seconds)
    assert expected in capsys.readouterr().err


def test_a_run_that_slurm_has_is_a_row_without_settings(tmp_path, capsys):
    root = tmp_path / "outputs"
    write_run(root, BASELINE)
    waiting = root / "exp" / "waiting"
    waiting.mkdir()
    (waiting / "slurm.json").write_text(json.dumps({"job": "12", "submitted": 1.0}))
    out = root.parent / "board.html"
    assert said(capsys, "board", root, "--out", out)[0] == 0
    data = json.loads(DATA.search(out.read_text())[1])
    (row,) = [row for row in rows(data) if row["run"] == "waiting"]
    assert (row["dataset"], row["policy"], row["seed"]) == ("", "", None)
    assert row["state"] in ("submitted", "queued", "interrupted")
