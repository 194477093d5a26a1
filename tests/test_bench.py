"""The benchmarks run and say what they measured; how fast anything is no test decides."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest
import torch

from nclab.bench import harness as bench

SCRIPTS = Path(__file__).parents[1] / "scripts"


def script(name: str):
    """The module of a command in scripts/."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(monkeypatch, tmp_path):
    """run(script, *arguments, **sizes) -> what it wrote; with tiny sizes for the limits of the machine."""
    monkeypatch.setattr(bench, "GEMM_SIDE", 64)
    monkeypatch.setattr(bench, "COPY_BYTES", 2**16)
    monkeypatch.setattr(bench, "keep_freed_memory", lambda: False)  # this process has other tests to run

    def call(name: str, *arguments: str, **sizes) -> dict:
        out = tmp_path / "made" / f"{name.removeprefix('bench_')}.json"
        common = ["--device", "cpu", "--threads", str(torch.get_num_threads()), "--repeats", "1", "--out", str(out)]
        monkeypatch.setattr(sys, "argv", [name, *common, *arguments])
        module = script(name)
        for constant, value in sizes.items():
            monkeypatch.setattr(module, constant, value)
        assert module.main() == 0
        return json.loads(out.read_text())

    return call


def test_times_are_medians_of_calls_that_take_turns():
    turns = []
    spent = bench.interleaved(3, lambda: turns.append("a"), lambda: turns.append("b"))
    assert turns == ["a", "b"] * 4  # one round to warm up
    assert len(spent) == 2
    assert all(s >= 0 for s in spent)


def test_a_ratio_has_its_spread_over_the_rounds():
    found = bench.ratio("gain", [4.0, 6.0, 9.0], [2.0, 2.0, 4.0])
    assert found == {"gain": 3.0, "gain_spread": [2.0, 3.0]}  # of medians 6 and 2; rounds of 2, 3 and 2.25


def test_the_limit_is_the_slower_of_products_and_memory():
    machine = {"gemm_flops": 100.0, "read_bytes": 10.0}
    assert bench.at_limit(200, 10, machine) == 2
    assert bench.at_limit(100, 50, machine) == 5


def test_measuring_agrees_with_the_straightforward_way(run):
    result = run("bench_measure", "--n", "500", "--dims", "8", "24", "--classes", "4", "10", "--spreads", "0.5")
    assert [(row["classes"], row["d"]) for row in result["rows"]] == [(4, 8), (4, 24), (10, 8), (10, 24)]
    for row in result["rows"]:
        assert row["nc1"] == pytest.approx(row["straightforward_nc1"], rel=1e-3)
        assert row["speedup"] == pytest.approx(row["straightforward_seconds"] / row["hidden_seconds"])
        over = row["classifier_seconds"] / row["two_passes_seconds"]
        assert row["classifier_over_two_passes"] == pytest.approx(over)
        assert row["speedup_spread"] == pytest.approx([row["speedup"]] * 2)  # of one round
    assert {"date", "versions", "hardware", "limits"} <= result.keys()


def comparison(monkeypatch, capsys, *words) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["bench_compare", *map(str, words)])
    code = script("bench_compare").main()
    said = capsys.readouterr()
    return code, said.out + said.err


def test_a_ratio_that_got_worse_shows(monkeypatch, capsys, tmp_path):
    rows = [{"n": 100, "d": 8, "speedup": 4.0, "hidden_over_two_passes": 1.0, "hidden_seconds": 1.0}]
    (tmp_path / "measure.json").write_text(json.dumps({"rows": rows}))
    for name, values, code, said in (
        ("same", {"hidden_seconds": 9.0}, 0, "0 of 2 ratios got worse"),  # seconds are not compared
        ("slower", {"speedup": 3.0}, 1, "4.000     3.000  worse   measure n=100 d=8 speedup"),
        ("more", {"hidden_over_two_passes": 1.5}, 1, "1.000     1.500  worse"),
        ("faster", {"speedup": 5.0, "hidden_over_two_passes": 0.5}, 0, "better  measure n=100 d=8 speedup"),
        ("other", {"d": 9}, 2, "have no ratio of the same row"),
    ):
        new = tmp_path / name / "measure.json"
        new.parent.mkdir()
        new.write_text(json.dumps({"rows": [{**rows[0], **values}]}))
        found = comparison(monkeypatch, capsys, tmp_path, new.parent)
        assert found[0] == code, found
        assert said in found[1]
    assert comparison(monkeypatch, capsys, tmp_path, tmp_path / "none")[0] == 2
    both = tmp_path / "more rows"
    both.mkdir()
    (both / "measure.json").write_text(json.dumps({"rows": [*rows, {**rows[0], "d": 16}]}))
    code, said = comparison(monkeypatch, capsys, tmp_path, both)
    assert (code, "in the new one alone  measure n=100 d=16 speedup" in said, "0 of 2" in said) == (0, True, True)
    assert "in the old one alone  measure n=100 d=16 speedup" in comparison(monkeypatch, capsys, both, tmp_path)[1]


def test_a_table_of_an_older_result_is_refused(monkeypatch, capsys, tmp_path):
    (tmp_path / "measure.json").write_text(json.dumps({"rows": [{"n": 100, "d": 8}]}))
    monkeypatch.setattr(sys, "argv", ["bench_table", str(tmp_path)])
    assert script("bench_table").main() == 2
    assert "measure.json has no 'classes': expected a result of this version's" in capsys.readouterr().err
    assert not (tmp_path / "table.md").exists()


def test_a_tolerance_of_ones_own(monkeypatch, capsys, tmp_path):
    for name, speedup in (("old", 4.0), ("slower", 3.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "measure.json").write_text(json.dumps({"rows": [{"n": 100, "d": 8, "speedup": speedup}]}))
    _, said = comparison(monkeypatch, capsys, tmp_path / "old", tmp_path / "slower", "--tolerance", "0.5")
    assert "0 of 1 ratios" in said


def test_training_is_set_against_its_products(run):
    result = run("bench_train", "--n", "600", WIDTH=40)
    products = 3 * (784 * 40 + 3 * 40 * 40 + 40 * 10) - 784 * 40
    assert result["bare_gflops"] * result["bare_seconds"] * 1e9 == pytest.approx(2 * products * 512)  # 4 whole batches
    assert result["both_over_bare"] > result["train_over_bare"] > 0
    assert result["train_over_plain"] == pytest.approx(result["train_seconds"] / result["plain_seconds"])


def test_networks_are_set_beside_those_of_others(run, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    vit, resnet = "ViT-2x64, 28 x 28 pixels, patch 7", "ResNet18, 32 x 32 pixels"
    rows = run("bench_networks", "--steps", "1", "--settings", vit, resnet, BATCH=12)["rows"]
    absent, encoder, of_torchvision = rows
    assert (absent["setting"], absent["peer"], absent["not_installed"]) == (vit, "timm", "timm")
    assert "step_over_peer" not in absent
    assert f"{vit}: {absent['step_seconds'] * 1e3:.1f} ms a step; timm: not installed" in capsys.readouterr().out
    for row in (encoder, of_torchvision):
        assert row["parameters"] == row["peer_parameters"]
        assert row["step_over_peer"] == pytest.approx(row["step_seconds"] / row["peer_step_seconds"])
        assert row["step_over_peer_spread"] == pytest.approx([row["step_over_peer"]] * 2)
    labels = [f"networks setting={row['setting']} peer={row['peer']} step_over_peer" for row in rows[1:]]
    assert [*script("bench_compare").found(tmp_path / "made")] == labels
    table = script("bench_table").networks({"rows": rows})
    assert f"| {vit} | {absent['step_seconds'] * 1e3:.1f} | timm | not installed |  |" in table
    ratio = encoder["step_over_peer"]
    assert f"| nn.TransformerEncoder | {encoder['peer_step_seconds'] * 1e3:.1f} | {ratio:.2f} ({ratio:.2f} to" in table


def test_maps_are_weighed(run):
    kinds = ["learnable", "frozen", "hadamard"]
    rows = run("bench_layers", "--widths", "512", "--steps", "2", "--batch", "32", "--kinds", *kinds)["rows"]
    learnable, frozen, implicit = rows
    assert [row["kind"] for row in rows] == kinds
    assert frozen["speedup"] == 1
    weight = 4 * 512 * 512
    assert learnable["map_bytes"] == frozen["map_bytes"] == weight + 4 * 512
    assert implicit["map_bytes"] < weight / 50
    assert learnable["adam_bytes"] > 2 * weight > frozen["adam_bytes"] == implicit["adam_bytes"]
    assert learnable["kept_bytes"] == 4 * 32 * 512  # its input, for the gradient of the weight
    assert frozen["kept_bytes"] == implicit["kept_bytes"] == 0
    assert learnable["peak_bytes"] > implicit["peak_bytes"] + 8 * 2 * weight  # eight maps, two moments


def test_growth_is_fitted_and_drawn(run, tmp_path):
    sizes = {"N": [400, 800], "d": [16, 32], "C": [10, 20], "depth": [3, 4], "width": [20, 40]}
    result = run("bench_growth", "--points", "2", N=400, D=16, SIZES=sizes, IMAGES={"train": 200, "test": 100})
    rows = {(r["over"], r["size"], r["what"]): r["seconds"] for r in result["rows"]}
    slope = math.log(rows["N", 800, "measure"] / rows["N", 400, "measure"]) / math.log(2)
    assert result["exponents"]["N/measure"] == pytest.approx(slope)
    assert {over for over, _, _ in rows} == {"N", "d", "C", "depth", "width"}
    assert (tmp_path / "made" / "scaling.pdf").stat().st_size > 1000


def test_seeds_are_timed_both_ways(run):
    name = "MLP-4x64, 8 x 8 pixels"
    rows = run("bench_seeds", "--images", "256", "--seeds", "1", "2", "--settings", name)["rows"]
    assert [(row["setting"], row["seeds"]) for row in rows] == [(name, 1), (name, 2)]
    for row in rows:
        assert row["gain"] == pytest.approx(row["in_turns_seconds"] / row["stacked_seconds"])
        assert row["batched_by_default"] is False  # so few


def test_the_table_tells_what_was_measured(run, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["bench_table", str(tmp_path / "made")])
    assert script("bench_table").main() == 2
    assert "make bench" in capsys.readouterr().err
    measured = run("bench_measure", "--n", "500", "--dims", "8", "--classes", "4", "--spreads", "1")["rows"][0]
    trained = run("bench_train", "--n", "300", WIDTH=40)
    monkeypatch.setattr(sys, "argv", ["bench_table", str(tmp_path / "made")])
    assert script("bench_table").main() == 0
    text = (tmp_path / "made" / "table.md").read_text()
    seconds = f"{measured['hidden_seconds']:.3f} | {measured['speedup']:.1f} |"
    assert f"500 x 8, 4 classes, spread 1 | {seconds}" in text
    assert f"| training epoch | {trained['train_seconds']:.2f} | {trained['train_over_bare']:.2f} |" in text
