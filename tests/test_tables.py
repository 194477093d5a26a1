"""Tables: the general one of any runs, and Tables 1 and 2 of the paper."""

import numpy as np
import pandas as pd
import pytest
from fake_runs import BASELINE, FFN, last, vit, write_experiment, write_run, write_transformers

from nclab.analysis import (
    DRAWINGS,
    AnalysisError,
    load_runs,
    readable,
    save_table,
    summary_table,
    text_table,
)
from nclab.analysis.summary import variants

table1, table2 = (DRAWINGS[name].draw for name in ("table1", "table2"))


@pytest.fixture
def experiment(tmp_path):
    return write_experiment(tmp_path)


@pytest.mark.fast
def test_summary_table(experiment, tmp_path):
    table = summary_table(load_runs([experiment]))
    assert list(table.policy) == ["baseline", "last 1 ETF", "last 2 ETF", "last 3 ETF", "Adaptive-ETF"]
    assert list(table.saved_percent.round(6)) == [0, 10, 20, 30, 26.666667]
    row = table.iloc[-1]
    assert (row.seeds, row.learnable_min, row.learnable_max, row.effective_depth_n) == (3, 700, 800, 2)
    np.testing.assert_allclose(row.test_accuracy, 0.91)
    np.testing.assert_allclose(row.test_accuracy_std, np.std([0.9, 0.91, 0.92], ddof=1))
    text = text_table(readable(table))
    assert "733 (700 to 800)" in text
    assert "91.00 ± 1.00" in text
    assert "3 (2 of 3 seeds)" in text
    numbers, markdown = save_table(table, tmp_path / "t")
    pd.testing.assert_frame_equal(pd.read_csv(numbers), table)
    assert markdown.read_text().startswith("| policy ")
    assert len({len(line) for line in markdown.read_text().splitlines()}) == 1


def test_summary_of_one_seed_leaves_the_deviation_blank(tmp_path):
    write_run(tmp_path)
    table = summary_table(load_runs([tmp_path]))
    assert readable(table).iloc[0].to_dict() == {
        **{"policy": "baseline", "seeds": "1", "learnable": "1,000", "saved %": "0.0"},
        **{"train acc. %": "90.00", "test acc. %": "90.00", "effective depth": "-"},
    }
    assert ",," in save_table(table, tmp_path / "t")[0].read_text()


def test_summary_keeps_apart_what_differs(tmp_path):
    write_run(tmp_path)
    write_run(tmp_path, model={"name": "mlp", "depth": 5, "width": 100})
    table = summary_table(load_runs([tmp_path]))
    assert sorted(zip(table["model.width"], table.policy, table.seeds, strict=True)) == [
        *(("100", "baseline", 1), ("400", "baseline", 1)),
    ]
    write_run(tmp_path, experiment="again")
    with pytest.raises(AnalysisError, match="twice"):
        summary_table(load_runs([tmp_path]))


def test_summary_names_the_file_that_lacks_an_entry(tmp_path):
    folder = write_run(tmp_path)
    (folder / "summary.json").write_text("{}")
    with pytest.raises(AnalysisError, match=r"summary\.json: no entry parameters_learnable"):
        summary_table(load_runs([tmp_path]))


def test_summary_shows_no_frame_of_frozen_maps(tmp_path):
    write_run(tmp_path, last(2))
    write_run(tmp_path, last(2, frame="hadamard"))
    write_run(tmp_path, last(2, kind="frozen"))
    table = summary_table(load_runs([tmp_path]))
    assert {name: set(rows["etf.frame"]) for name, rows in table.groupby("policy")} == {
        "last 2 ETF": {"random", "hadamard"},
        "frozen last 2": {"-"},
    }


def test_no_ffn_saves_against_the_baseline_of_its_depth(tmp_path):
    for blocks in (1, 2):
        write_run(tmp_path, model=vit(blocks, ratio=0.0))
    write_run(tmp_path, model=vit(2))
    table = summary_table(load_runs([tmp_path])).set_index(["policy", "model.blocks"])
    assert table.saved_percent["no FFN", "2"] == pytest.approx(100 * (1 - 800 / 1200))
    assert np.isnan(table.saved_percent["no FFN", "1"])
    assert set(readable(table.reset_index())["saved %"]) == {"0.0", "33.3", "-"}
    write_run(tmp_path, model=vit(2, ratio=2.0) | {"width": 32})  # two networks of this depth: apart by their width
    table = summary_table(load_runs([tmp_path])).set_index(["policy", "model.blocks"])
    assert table.saved_percent["no FFN", "2"].item() == pytest.approx(100 * (1 - 800 / 1200))


def test_table1_has_a_row_a_dataset_and_policy(experiment):
    mnist = {"name": "mnist", "train_size": None, "pixels": "raw"}
    for etf in (last(2), BASELINE):
        write_run(experiment, etf, epochs=8, dataset=mnist)
    write_run(experiment, model=vit(2))
    table, caption = table1(load_runs([experiment]))
    assert list(table)[:3] == ["dataset", "policy", "seeds"]
    assert "effective_depth" not in table
    assert list(zip(table.dataset, table.policy, table.seeds, strict=True)) == [
        ("digits", "baseline", 3),
        ("digits", "last 1 ETF", 3),
        ("digits", "last 2 ETF", 3),
        ("digits", "last 3 ETF", 3),
        ("digits", "Adaptive-ETF", 3),
        ("mnist", "baseline", 1),
        ("mnist", "last 2 ETF", 1),
    ]
    assert "after 20 epochs (digits) or 8 epochs (mnist);" in caption
    table, caption = table1(load_runs([experiment], dataset="digits"), ["last 3 ETF", "baseline"])
    assert list(table.policy) == ["last 3 ETF", "baseline"]
    np.testing.assert_allclose(table.test_accuracy_std, np.std([0.9, 0.91, 0.92], ddof=1))
    assert "after 20 epochs;" in caption


def test_table1_tells_shallower_networks_apart(experiment):
    write_run(experiment, model={"name": "mlp", "depth": 3, "width": 400})
    table, _ = table1(load_runs([experiment]), ["baseline", "last 1 ETF"])
    assert list(zip(table.depth, table.policy, table.seeds, strict=True)) == [
        *((3, "baseline", 1), (5, "baseline", 3), (5, "last 1 ETF", 3)),
    ]


def test_table2_sorts_by_dataset_depth_and_policy(tmp_path):
    write_transformers(tmp_path, depths=(10, 2), etfs=(FFN, BASELINE, FFN | {"kind": "frozen"}))
    write_run(tmp_path, dataset={"name": "cifar10", "train_size": None}, model=vit(4) | {"patch": 8})
    write_run(tmp_path, model=vit(2, ratio=0.0))
    table, caption = table2(load_runs([tmp_path]))
    assert list(zip(table.dataset, table.blocks, table.policy, strict=True)) == [
        ("cifar10", 4, "baseline"),
        ("digits", 2, "baseline"),
        ("digits", 2, "FFN-ETF"),
        ("digits", 2, "frozen FFN"),
        ("digits", 2, "no FFN"),
        ("digits", 10, "baseline"),
        ("digits", 10, "FFN-ETF"),
        ("digits", 10, "frozen FFN"),
    ]
    assert list(table.saved_percent.round(1)) == [0, 0, 33.3, 33.3, 33.3, 0, 45.5, 45.5]
    assert caption.startswith("Vision transformers: ")
    numbers = save_table(table, tmp_path / "t")[0]
    pd.testing.assert_frame_equal(pd.read_csv(numbers), table)


@pytest.mark.parametrize(
    ("make", "other", "message"),
    [
        (table1, {"epochs": 9}, r"epochs = 20, 9; choose"),
        (table1, {"model": {"name": "mlp", "depth": 5, "width": 100}}, r"model\.width = 400, 100"),
        (table1, {"experiment": "again"}, "twice"),
        (table2, {"model": vit(3) | {"width": 32}}, r"model\.width = 64, 32"),
        (table2, {"experiment": "again", "model": vit(2)}, "seed 0 of baseline is there twice"),
    ],
)
def test_paper_tables_refuse_a_mixture_within_a_dataset(tmp_path, make, other, message):
    write_run(tmp_path)
    write_run(tmp_path, model=vit(2))
    make(load_runs([tmp_path]))
    write_run(tmp_path, **other)
    with pytest.raises(AnalysisError, match=message):
        make(load_runs([tmp_path]))


def test_paper_tables_say_what_is_missing(tmp_path):
    write_run(tmp_path)
    with pytest.raises(AnalysisError, match=r"table2 draws vision transformers; 1 run\(s\) in .*/exp: of model mlp"):
        table2(load_runs([tmp_path]))
    with pytest.raises(AnalysisError, match="no run of policy 'ffn-etf'"):
        table1(load_runs([tmp_path]), ["FFN-ETF"])


def test_variants_have_a_row_a_combination_of_settings(tmp_path):
    for scale in (1.0, None):
        write_run(tmp_path, FFN | {"in_scale": scale}, model=vit(2))
    write_run(tmp_path, BASELINE, model=vit(2))
    write_run(tmp_path, FFN | {"in_scale": None, "kind": "frozen"}, model=vit(2))
    table, caption = variants(load_runs([tmp_path]))
    assert sorted(map(tuple, table[["policy", "etf.in_scale"]].to_numpy())) == [
        ("FFN-ETF", "1.0"),
        ("FFN-ETF", "None"),
        ("baseline", "-"),
        ("frozen FFN", "-"),
    ]
    assert "Variants" in caption
    latex = save_table(table, tmp_path / "table", caption)[2].read_text()
    assert latex.count(r"\\") == 5
    table, _ = variants(load_runs([tmp_path]), ["baseline"])
    assert list(table.policy) == ["baseline"]


def test_variants_come_policy_by_policy_and_from_small_to_large(tmp_path):
    for k in (1, 2):
        for rate in (0.1, 1.0, 0.02):
            write_run(tmp_path, last(3 - k), optimizer={"name": "sgd", "lr": rate})
    write_run(tmp_path, BASELINE, optimizer={"name": "sgd", "lr": 1.0})
    table, _ = variants(load_runs([tmp_path]))
    rows = [("baseline", "1.0"), *((f"last {k} ETF", rate) for k in (1, 2) for rate in ("0.02", "0.1", "1.0"))]
    assert list(map(tuple, table[["policy", "optimizer.lr"]].to_numpy())) == rows
    table, _ = variants(load_runs([tmp_path]), ["last 2 ETF", "baseline"])
    assert list(table.policy) == ["last 2 ETF"] * 3 + ["baseline"]


def test_words_are_aligned_to_the_left_and_numbers_to_the_right():
    table = pd.DataFrame({"n": ["1", "10"], "policy": ["baseline", "-"], "acc. %": ["9.00 ± 0.10", "-"]})
    assert text_table(table).splitlines() == [
        " n  policy         acc. %",
        " 1  baseline  9.00 ± 0.10",
        "10  -                   -",
    ]
    assert text_table(table, markdown=True).splitlines()[1] == "|----:|:---------|------------:|"
