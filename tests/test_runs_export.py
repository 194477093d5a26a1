"""`nclab-runs export`: the CSV files of many runs as one table, with what tells the runs apart."""

import sys

import pandas as pd
import pytest
from fake_runs import ADAPTIVE, BASELINE, last, write_run
from run_states import said

from nclab.runs import export


def tidy(root):
    """The same table, from the CSVs alone."""
    frames = []
    for file in sorted(root.rglob("metrics.csv")):
        frames.append(pd.read_csv(file).assign(run=file.parent.name, experiment=file.parent.parent.name))
    return pd.concat(frames)


def assert_same_rows(one, two):
    keys = ["experiment", "run", "epoch", "split", "layer", "metric"]
    one, two = (frame.astype(dict.fromkeys(keys[:2] + keys[3:], str)) for frame in (one, two))
    one, two = (frame.sort_values(keys)[[*keys, "value"]].reset_index(drop=True) for frame in (one, two))
    pd.testing.assert_frame_equal(one, two, check_dtype=False, check_exact=True)


def read(file):
    return pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_export_is_the_csv_files_with_what_tells_runs_apart(tmp_path, capsys, monkeypatch, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    monkeypatch.setattr(export, "ROWS", 2000)  # several row groups
    root, out = tmp_path / "outputs", tmp_path / f"all{suffix}"
    for seed in range(2):
        write_run(root, seed=seed, epochs=3)
        write_run(root, last(1), seed, epochs=3, experiment="other", optimizer={"name": "sgd", "lr": 1})
        write_run(root, last(2, kind="frozen"), seed, epochs=3, device="cuda")
    write_run(root, ADAPTIVE, 0, epochs=3, probe="activation")
    code, said_, _ = said(capsys, "export", root, "--out", out)
    assert code == 0
    frame = read(out)
    assert said_.startswith(f"{out}: {len(frame)} rows of 7 runs; run, experiment, seed, policy, finished, ")
    assert_same_rows(frame, tidy(root))
    fixed, logged = ["run", "experiment", "seed", "policy", "finished"], ["epoch", "split", "layer", "metric", "value"]
    choices = [name for name in frame if name not in (*fixed, *logged)]
    assert [*frame] == [*fixed, *choices, *logged]
    assert {*choices} == {"optimizer.lr", "metrics.probe", "etf.name", "etf.k", "etf.kind"} | {
        f"etf.{name}" for name in ("frame", "classifier_frame")
    }
    assert frame["finished"].all()
    first = frame.drop_duplicates("run").set_index("policy")
    assert first.loc["baseline", "etf.k"].isna().all()
    assert first["etf.k"].dropna().to_dict() == {"last 1 ETF": 1.0, "frozen last 2": 2.0}
    assert first["optimizer.lr"].groupby("policy").first().to_dict() == {
        "baseline": 0.01, "last 1 ETF": 1.0, "frozen last 2": 0.01, "Adaptive-ETF": 0.01,
    }  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, "outputs"]


@pytest.mark.fast
def test_values_of_several_kinds_become_text(tmp_path):
    for i, (etf, train_size) in enumerate([(last(1, on=True), 5), (last(1, on=False), None), (last(1, on=True), [1])]):
        write_run(tmp_path, etf, i, dataset={"name": "digits", "train_size": train_size})
    runs = export.load_runs([tmp_path])
    assert export.varying(runs) == {"dataset.train_size": ["5", None, "[1]"], "etf.on": [True, False, True]}
    assert export.varying(runs[:1]) == {}


def test_export_of_unfinished_and_broken_runs(tmp_path, capsys):
    root, out = tmp_path / "outputs", tmp_path / "all.csv"
    write_run(root)
    torn = write_run(root, seed=1, done=False)
    with (torn / "metrics.csv").open("a") as file:
        file.write("21,tra")
    (write_run(root, seed=2) / "metrics.csv").write_text("epoch\n")
    code, text, err = said(capsys, "export", root, "--out", out)
    assert code == 0
    assert "of 1 run;" in text
    assert f"skipped 1 unfinished: {torn}" in err
    assert "left out: " in err
    assert "expected the header" in err
    assert "of 2 runs;" in said(capsys, "export", root, "--out", out, "--unfinished")[1]
    assert pd.read_csv(out).groupby("seed")["finished"].first().to_dict() == {0: True, 1: False}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_export_that_fails_leaves_the_earlier_file(tmp_path, capsys, monkeypatch, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    root, out = tmp_path / "outputs", tmp_path / f"all{suffix}"
    folder = write_run(root, BASELINE)
    out.write_text("earlier")
    (folder / "metrics.csv").write_text("")
    code, _, err = said(capsys, "export", root, "--out", out)
    assert code == 2
    assert "no run could be read; nothing is written" in err
    assert out.read_text() == "earlier"
    assert len(list(tmp_path.iterdir())) == 2


def test_without_pyarrow_one_line_says_what_to_install(tmp_path, capsys, monkeypatch):
    write_run(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = said(capsys, "export", tmp_path, "--out", tmp_path / "all.parquet")
    assert code == 2
    assert "Parquet needs pyarrow; install the extra parquet: pip install 'nclab[parquet]', in a checkout " in err
    assert err.endswith("; .csv needs nothing more\n")
    assert err.count("\n") == 1
