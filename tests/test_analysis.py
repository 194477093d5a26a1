"""Analysis reads nothing but run folders, so its tests write them: realistic curves, no training."""

import json
import runpy
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from nclab.analysis import (
    AnalysisError,
    brief,
    choose,
    curves,
    differences,
    figure1,
    figure2,
    load_runs,
    policy_label,
    readable,
    save_figure,
    save_table,
    summary_table,
    switches,
    text_table,
)
from nclab.analysis.curves import fixed_since

ROOT = Path(__file__).parents[1]
LAYERS = {
    "linear": ["fc1", "fc2", "fc3", "fc4", "act4", "fc5"],
    "activation": ["act1", "act2", "act3", "act4", "fc5"],
}
BASELINE = {"name": "none"}
ADAPTIVE = {"name": "adaptive", "frame": "nearest", "threshold": 0.98}


def last(k):
    return {"name": "last_k", "k": k, "frame": "random"}


def write_run(
    root, etf=BASELINE, seed=0, epochs=20, done=True, experiment="exp", every=1, probe="linear", fix=(), **settings
):
    """A run folder as training writes it; `fix` lists (epoch, site), `settings` replaces top-level keys."""
    config = {
        "experiment_name": experiment,
        "seed": seed,
        "epochs": epochs,
        "dataset": {"name": "digits", "train_size": None},
        "model": {"name": "mlp", "depth": 5, "width": 400},
        "optimizer": {"name": "sgd", "lr": 0.01},
        "metrics": {"every": every, "probe": probe},
        "etf": etf,
    } | settings
    fix = list(fix) or [(0, f"fc{5 - i}") for i in range(etf.get("k", 0))]
    text = yaml.safe_dump(config)
    folder = root / experiment / f"{etf['name']}-s{seed}-{zlib.crc32(text.encode()):08x}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(text)
    generator = np.random.default_rng([seed, epochs, len(str(etf))])
    lines = ["epoch,split,layer,metric,value"]
    time = np.arange(epochs + 1)
    for split, top in (("train", 0.995), ("test", 0.89)):
        for i, layer in enumerate(LAYERS[probe]):
            end = top - 0.07 * (len(LAYERS[probe]) - 1 - i) * (0.6 if split == "train" else 0.5)
            values = end - (end - 0.55) * np.exp(-8 * time / epochs) + generator.normal(0, 0.004, epochs + 1)
            for at, site in fix:
                dip = 0.06 * np.exp(-(time - at) / 2)
                values = values - (dip * (time > at) if at and int(site[-1]) <= int(layer[-1]) else 0)
            for metric, column in (("ncc_accuracy", values), ("nc1", 1 / (1 + time)), ("nc3", 0 * time + np.nan)):
                lines += [
                    f"{e},{split},{layer},{metric},{min(v, 1):.6f}" for e, v in enumerate(column) if e % every == 0
                ]
        accuracy = top - (top - 0.1) * np.exp(-14 * time / epochs) + generator.normal(0, 0.004, epochs + 1)
        lines += [f"{e},{split},network,accuracy,{min(v, 1):.6f}" for e, v in enumerate(accuracy) if e % every == 0]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    events = [{"event": "start", "epoch": 0}] + [{"event": "switch", "epoch": e, "site": s} for e, s in fix]
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    if done:
        final = {split: {"accuracy": 0.9 + 0.01 * seed, "loss": 0.3} for split in ("train", "test")}
        summary = {
            "seed": seed,
            "final": final | {"effective_depth": 3 if seed else None},
            "parameters_learnable": 1000 - 100 * len(fix),
            "parameters_total": 1000,
        }
        (folder / "summary.json").write_text(json.dumps(summary))
        (folder / "DONE").touch()
    return folder


@pytest.fixture
def experiment(tmp_path):
    """Baseline, last 1, 2, 3 and Adaptive-ETF with three seeds each."""
    for seed in range(3):
        for etf in (BASELINE, last(1), last(2), last(3)):
            write_run(tmp_path, etf, seed)
        fix = [(7 + seed, "fc5"), (9 + seed, "fc4")] + [(14, "fc3")] * (seed > 0)
        write_run(tmp_path, ADAPTIVE, seed, experiment="adaptive", fix=fix)
    return tmp_path


def values_by_hand(runs, split, layer, metric, epoch):
    lines = [line.split(",") for run in runs for line in (run.path / "metrics.csv").read_text().splitlines()]
    return np.array([float(v) for e, *key, v in lines if e == str(epoch) and key == [split, layer, metric]])


# Runs


def test_a_folder_may_be_a_run_an_experiment_or_an_output_root(experiment):
    assert len(load_runs([experiment])) == 15
    assert len(load_runs([experiment / "exp"])) == 12
    run = load_runs([experiment])[0]
    assert [r.path for r in load_runs([run.path, run.path])] == [run.path]
    assert [r.policy for r in load_runs([experiment])[::3]] == [
        *("baseline", "last 1 ETF", "last 2 ETF", "last 3 ETF", "Adaptive-ETF"),
    ]


def test_hydra_folders_are_not_runs(tmp_path):
    hidden = write_run(tmp_path) / ".hydra"
    hidden.mkdir()
    (hidden / "config.yaml").write_text("{}")
    assert len(load_runs([tmp_path])) == 1


def test_selection(experiment, capsys):
    write_run(experiment, epochs=8, dataset={"name": "mnist", "train_size": None})
    assert len(load_runs([experiment], dataset="mnist")) == 1
    assert len(load_runs([experiment], epochs=20, seeds=[0, 2])) == 10
    assert len(load_runs([experiment], where={"optimizer.lr": "1e-2", "dataset.train_size": "null"})) == 16
    # a run without the key is kept: a baseline has no threshold
    assert {r.policy for r in load_runs([experiment / "exp", experiment / "adaptive"], where={"etf.k": "2"})} == {
        *("baseline", "last 2 ETF", "Adaptive-ETF"),
    }
    assert not capsys.readouterr().err
    load_runs([experiment], dataset="digits", seeds=[2, 3])
    assert "last 1 ETF: no finished run of seed 3" in capsys.readouterr().err


def test_unfinished_runs_are_skipped_and_named(tmp_path, capsys):
    write_run(tmp_path)
    torn = write_run(tmp_path, seed=1, done=False)
    with (torn / "metrics.csv").open("a") as file:
        file.write("21,tra")
    assert [run.seed for run in load_runs([tmp_path])] == [0]
    assert capsys.readouterr().err == f"skipped 1 unfinished: {torn}\n"
    running = load_runs([tmp_path], finished_only=False)[1]
    assert running.metrics.epoch.max() == 20


def test_no_run_names_the_filters_and_what_is_there(tmp_path):
    with pytest.raises(AnalysisError, match="no run folder there at all"):
        load_runs([tmp_path])
    with pytest.raises(AnalysisError, match="no such folder"):
        load_runs([tmp_path / "absent"])
    write_run(tmp_path)
    with pytest.raises(AnalysisError, match=r"epochs = 30.*1 run\(s\) there, 1 finished.*digits.*epochs = 20"):
        load_runs([tmp_path], epochs=30)
    with pytest.raises(AnalysisError, match=r"no run has a setting model\.wdith.*model\.width"):
        load_runs([tmp_path], where={"model.wdith": "3"})


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("metrics.csv", "epoch,layer\n1,fc1\n", "expected the header epoch,split,layer,metric,value"),
        ("metrics.csv", "epoch,split,layer,metric,value\n1,train,fc1,nc1,abc\n", "abc"),
        ("metrics.csv", "epoch,split,layer,metric,value\n1,train,fc1\n", "line 2 is incomplete"),
        ("metrics.csv", "epoch,split,layer,metric,value\n" + 2 * "1,train,fc1,nc1,0\n", "line 3 repeats"),
        ("metrics.csv", "", "No columns"),
        ("events.jsonl", '{"event": "start"}\n{"eve', "line 2: not JSON"),
        ("summary.json", "[1]", "expected a JSON object"),
    ],
)
def test_a_broken_file_is_named(tmp_path, file, text, message):
    folder = write_run(tmp_path)
    (folder / file).write_text(text)
    run = load_runs([tmp_path])[0]
    with pytest.raises(AnalysisError, match=message) as error:
        getattr(run, file.split(".")[0])
    assert str(folder / file) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_broken_configuration_is_named(tmp_path):
    file = write_run(tmp_path) / "config.yaml"
    for text, message in (("seed: 1", "lacks epochs, dataset.name"), ("a: [", "while parsing")):
        file.write_text(text)
        with pytest.raises(AnalysisError, match=message):
            load_runs([tmp_path])


def test_policy_labels():
    labels = {
        "baseline": BASELINE,
        "last 2 ETF": last(2),
        "Adaptive-ETF": ADAPTIVE,
        "frozen last 3": {"name": "frozen", "weights": "initial", "k": 3},
        "frozen at switch": {"name": "frozen", "weights": "current", "k": 1},
        "transformer_ffn": {"name": "transformer_ffn"},
    }
    for label, etf in labels.items():
        assert policy_label({"etf": etf}) == label


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"epochs": 9}, r"epochs = 20, 9; choose, e\.g\. with --epochs 9"),
        ({"model": {"name": "mlp", "depth": 5, "width": 100}}, r"model.width = 400, 100; .* --where model.width=100"),
        ({"optimizer": {"name": "sgd", "lr": 0.1}}, r"optimizer\.lr = 0\.01, 0\.1"),
        ({"dataset": {"name": "mnist", "train_size": 100}}, r"in dataset\.name = digits, mnist; .* --dataset mnist"),
        ({"etf": last(1) | {"frame": "canonical"}}, r"etf\.frame = random, canonical"),
        ({"experiment": "again"}, "seed 0 of last 1 ETF is there twice"),
    ],
)
def test_a_figure_refuses_what_differs_in_more_than_seed_and_policy(tmp_path, other, message):
    write_run(tmp_path)
    write_run(tmp_path, last(1))
    write_run(tmp_path, **{"etf": last(1)} | other)
    with pytest.raises(AnalysisError, match=message):
        figure1(load_runs([tmp_path]))


def test_seed_policy_and_machine_may_differ(experiment):
    write_run(experiment, seed=4, device="cuda", threads=3, output_root="elsewhere", tracker={"name": "wandb"})
    runs = load_runs([experiment])
    assert differences(runs) == {}
    assert [run.policy for run in choose(runs, ["last 2 etf", "baseline"])[2:4]] == ["last 2 ETF", "baseline"]
    assert len(choose(runs, ["baseline", "Baseline"])) == 4
    with pytest.raises(AnalysisError, match="no run of policy 'last 9 etf'; there are: baseline, last 1 ETF"):
        choose(runs, ["last 9 ETF"])


# Curves


def test_curves_are_mean_and_sample_deviation_over_seeds(experiment):
    runs = load_runs([experiment])
    table = curves(runs)
    assert list(table) == ["policy", "split", "layer", "epoch", "mean", "std", "n"]
    assert list(table.layer.unique()) == ["fc1", "fc2", "fc3", "fc4", "fc5", "network"]
    assert len(table) == 5 * 2 * 6 * 21
    assert (table.n == 3).all()
    for policy, split, layer, metric, epoch in (
        ("baseline", "train", "fc2", "ncc_accuracy", 0),
        ("last 3 ETF", "test", "fc5", "ncc_accuracy", 20),
        ("Adaptive-ETF", "test", "network", "accuracy", 13),
    ):
        by_hand = values_by_hand([run for run in runs if run.policy == policy], split, layer, metric, epoch)
        row = table.query("policy == @policy and split == @split and layer == @layer and epoch == @epoch")
        assert len(by_hand) == 3
        np.testing.assert_allclose(row[["mean", "std"]].values[0], [by_hand.mean(), by_hand.std(ddof=1)])


def test_curves_of_one_seed_have_no_deviation_and_of_activations_the_same_layers(tmp_path):
    write_run(tmp_path, ADAPTIVE, probe="activation", fix=[(5, "fc4")])
    runs = load_runs([tmp_path])
    table = curves(runs)
    assert list(table.layer.unique()) == ["act1", "act2", "act3", "act4", "fc5", "network"]
    assert table["std"].isna().all()
    assert list(switches(runs, list(table.layer.unique())).layer) == ["act4"]
    assert "±" not in text_table(brief(table))


def test_curves_run_forward_in_time_whatever_epochs_were_measured(tmp_path):
    write_run(tmp_path, every=3, epochs=30)
    write_run(tmp_path, last(1), every=3, epochs=30)
    for _, curve in curves(load_runs([tmp_path])).groupby(["policy", "split", "layer"]):
        assert list(curve.epoch) == list(range(0, 31, 3))


def test_undefined_measurements_do_not_count(tmp_path):
    write_run(tmp_path)
    file = write_run(tmp_path, seed=1) / "metrics.csv"
    kept = [line for line in file.read_text().splitlines() if not line.startswith("3,test,fc1,ncc")]
    file.write_text("\n".join([*kept, "3,test,fc1,ncc_accuracy,nan"]) + "\n")
    row = curves(load_runs([tmp_path])).query("split == 'test' and layer == 'fc1' and epoch == 3")
    assert row.n.item() == 1


def test_a_layer_counts_as_fixed_once_every_seed_has_fixed_it(experiment):
    runs = load_runs([experiment])
    switched = switches(runs, ["fc1", "fc2", "fc3", "fc4", "fc5"])
    fixed = fixed_since(switched, runs)
    assert sorted(switched.query("policy == 'Adaptive-ETF' and layer == 'fc4'").epoch) == [9, 10, 11]
    assert fixed["Adaptive-ETF", "fc4"] == 11
    assert ("Adaptive-ETF", "fc3") not in fixed  # two of three seeds
    assert fixed["last 2 ETF", "fc4"] == 0
    assert ("last 2 ETF", "fc3") not in fixed


def test_a_run_without_layers_says_so(tmp_path):
    file = write_run(tmp_path) / "metrics.csv"
    file.write_text("epoch,split,layer,metric,value\n20,train,network,accuracy,0.9\n")
    with pytest.raises(AnalysisError, match=r"metrics\.csv: no ncc_accuracy; metrics\.every=0"):
        curves(load_runs([tmp_path]))


# Figures


def test_figure1_has_a_column_a_policy_and_dashes_fixed_layers(experiment):
    runs = load_runs([experiment])
    figure, table = figure1(runs)
    assert list(table.policy.unique()) == ["baseline", "last 1 ETF", "last 2 ETF", "last 3 ETF"]
    assert [axes.get_title() for axes in figure.axes] == [*table.policy.unique(), *4 * [""]]
    baseline, last3 = figure.axes[0], figure.axes[3]
    dashed = [sum(line.is_dashed() and len(line.get_xdata()) > 1 for line in axes.lines) for axes in (baseline, last3)]
    assert dashed == [0, 3]
    assert len(baseline.collections) == 6  # a band a curve
    one, _ = figure1([run for run in runs if run.seed == 0], policies=["Baseline", "Adaptive-ETF"])
    assert len(one.axes) == 4
    assert not one.axes[0].collections


def test_figure2_marks_every_switch_of_every_seed(experiment):
    figure, table = figure2(load_runs([experiment]))
    assert list(table.policy.unique()) == ["baseline", "Adaptive-ETF"]
    for axes, expected in zip(figure.axes, ([], [7, 8, 9, 9, 10, 11, 14, 14]) * 2, strict=True):
        marks = [line for line in axes.lines if line.get_marker() == "|"]
        assert sorted(x for line in marks for x in line.get_xdata()) == expected
        bottom = axes.get_ylim()[0]
        heights = [bottom + (axes.get_ylim()[1] - bottom) * max(line.get_ydata(), default=0) for line in marks]
        assert max(heights, default=0) < table["mean"][table.epoch > 0].min()  # clear of the curves


def test_a_figure_without_its_policies_says_what_is_there(tmp_path):
    write_run(tmp_path, last(1))
    with pytest.raises(AnalysisError, match=r"\(baseline, Adaptive-ETF\); there are: last 1 ETF"):
        figure2(load_runs([tmp_path]))


def test_pictures_are_files_with_equal_bytes_each_time(experiment, tmp_path):
    runs = load_runs([experiment])
    first = save_figure(*figure2(runs), tmp_path / "new" / "a_0.5")
    second = save_figure(*figure2(runs), tmp_path / "new" / "b")
    assert [path.name for path in first] == ["a_0.5.pdf", "a_0.5.png", "a_0.5.csv"]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
    pdf = first[0].read_bytes()
    assert b"CreationDate" not in pdf
    assert b"/FontFile2" in pdf  # TrueType, embedded
    assert b"/Type3" not in pdf
    assert len(pd.read_csv(first[2])) == 2 * 2 * 6 * 21


# Tables


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


# Commands


def test_scripts_write_and_print_their_files(experiment, tmp_path, monkeypatch, capsys):
    for name, endings in (("figure1", "pdf png csv"), ("figure2", "pdf png csv"), ("summary", "csv md")):
        out = tmp_path / "figures" / name
        files = [f"{out}.{ending}" for ending in endings.split()]
        select = ["--dataset", "digits", "--seeds", "0,1", "--epochs", "20", "--out"]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", str(experiment), *select, str(out)])
        runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), run_name="__main__")
        printed = capsys.readouterr()
        assert not printed.err
        assert printed.out.splitlines()[-len(files) :] == files
        assert "baseline" in printed.out
        assert all(Path(file).stat().st_size for file in files)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "a"], "expected whole numbers"),
        (["--where", "lr"], "expected KEY=VALUE"),
        (["--out", "x.pdf"], "without ending"),
        (["--epochs", "3"], "no finished run"),
        (["--policies", "last 4 ETF"], "no run of policy"),
        (["--nonsense"], "unrecognized arguments"),
        (["absent"], "no such folder"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2(tmp_path, capsys, monkeypatch, arguments, message):
    from nclab.analysis.cli import command

    write_run(tmp_path)
    monkeypatch.setattr(sys, "argv", ["figure1.py", str(tmp_path), *arguments])
    with pytest.raises(SystemExit) as stop:
        command("doc", str(tmp_path / "out"), lambda runs, policies, out: (str(choose(runs, policies or [])), []))
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error
    assert error.count("\n") == 1
    assert error.startswith("figure1.py: ")


def test_analysis_imports_neither_torch_nor_hydra_nor_wandb():
    code = "import sys, nclab.analysis, nclab.analysis.cli; print({'torch', 'hydra', 'wandb'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
