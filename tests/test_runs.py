"""Run folders as data: found, read, labelled, selected; and what must not be averaged."""

import json

import pytest
from fake_runs import ADAPTIVE, BASELINE, FFN, last, vit, write_experiment, write_run, write_transformers

from nclab.analysis import AnalysisError, choose, differences, load_runs, policy_label
from nclab.analysis.labels import policy_order, setting_label
from nclab.papers.simplex_etf.figures import figure1


@pytest.fixture
def experiment(tmp_path):
    return write_experiment(tmp_path)


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
    assert len(load_runs([experiment], dataset=["mnist", "digits"])) == 16
    assert len(load_runs([experiment], epochs=20, seeds=[0, 2])) == 10
    assert len(load_runs([experiment], where={"optimizer.lr": "1e-2", "dataset.train_size": "null"})) == 16
    # a run without the key is kept: a baseline has no threshold
    assert {r.policy for r in load_runs([experiment / "exp", experiment / "adaptive"], where={"etf.k": "2"})} == {
        *("baseline", "last 2 ETF", "Adaptive-ETF"),
    }
    assert not capsys.readouterr().err
    load_runs([experiment], dataset="digits", seeds=[2, 3])
    assert "last 1 ETF: no finished run of seed 3\n" in capsys.readouterr().err
    load_runs([experiment], seeds=[0, 1])
    assert capsys.readouterr().err == "dataset.name = mnist, baseline: no finished run of seed 1\n"


def test_missing_seeds_are_told_by_depth(tmp_path, capsys):
    write_transformers(tmp_path, depths=(1, 2), seeds=(0,))
    write_run(tmp_path, FFN, 1, model=vit(2))
    load_runs([tmp_path], seeds=[0, 1])
    assert capsys.readouterr().err.splitlines() == [
        "model.blocks = 1, baseline: no finished run of seed 1",
        "model.blocks = 2, baseline: no finished run of seed 1",
        "model.blocks = 1, FFN-ETF: no finished run of seed 1",
    ]


@pytest.mark.fast
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


CANONICAL = {"frame": "canonical", "classifier_frame": "canonical"}
LABELS = {
    "baseline": (BASELINE, {}),
    "last 2 ETF": (last(2), {}),
    "last 10 ETF": (last(10), {}),
    "last 2 ETF by the clock": (last(2, name="clock"), {}),
    "last 3 ETF canonical": (last(3, **CANONICAL), {}),
    "frozen last 3": (last(3, kind="frozen"), {}),
    "scaled last 3": (last(3, kind="frozen_scaled"), {}),
    "orthogonal last 3": (last(3, kind="orthogonal"), {}),
    "orthogonal last 2 by the clock": (last(2, name="clock", kind="orthogonal"), {}),
    "Adaptive-ETF": (ADAPTIVE, {}),
    "Adaptive-ETF canonical": (ADAPTIVE | CANONICAL, {}),
    "frozen at switch": (ADAPTIVE | {"kind": "frozen"}, {}),
    "FFN-ETF": (FFN, vit(2)),
    "FFN-ETF + head": (FFN | {"classifier": True}, vit(2)),
    "FFN-ETF 1,3": (FFN | {"blocks": [1, 3]}, vit(3)),
    "FFN-ETF canonical": (FFN | CANONICAL, vit(2)),
    "FFN-ETF first 2": (FFN | {"blocks": "first2"}, vit(3)),
    "FFN-ETF last 1": (FFN | {"blocks": "last1"}, vit(3)),
    "FFN-ETF last 1 + head": (FFN | {"blocks": "last1", "classifier": True}, vit(3)),
    "frozen FFN": (FFN | {"kind": "frozen"}, vit(3)),
    "frozen FFN last 1 + head": (FFN | {"kind": "frozen", "blocks": "last1", "classifier": True}, vit(3)),
    "no FFN": (BASELINE, vit(2, ratio=0.0)),
    "new_policy": ({"name": "new_policy"}, {}),
}


def test_policy_labels_and_their_order():
    for label, (etf, model) in LABELS.items():
        assert policy_label({"etf": etf, "model": {"name": "mlp"} | model}) == label
    order = [label for label in LABELS if label != "FFN-ETF 1,3"]  # a list of blocks has no natural place
    order.reverse()
    assert sorted(order, key=policy_order) == order[::-1]


def test_frames_that_are_canonical_in_part(tmp_path):
    """Hidden layers say so; a classifier alone has the label of random frames, and stays a setting."""
    write_run(tmp_path, last(3))
    write_run(tmp_path, last(3, frame="canonical"))
    runs = load_runs([tmp_path])
    assert [run.policy for run in runs] == ["last 3 ETF", "last 3 ETF canonical hidden"]
    assert differences(runs) == {}
    write_run(tmp_path, last(3, classifier_frame="canonical"))
    write_run(tmp_path, last(1, frame="canonical"))  # it has no hidden layer
    runs = load_runs([tmp_path])
    assert {run.policy for run in runs} == {"last 1 ETF", "last 3 ETF", "last 3 ETF canonical hidden"}
    assert set(differences(runs)) == {"etf.classifier_frame"}


@pytest.mark.parametrize(
    ("config", "label"),
    [
        ({"dataset": "fashion_mnist", "model": {"name": "mlp", "depth": 5, "width": 400}},
         "Fashion-MNIST, MLP of 5 layers, width 400"),
        ({"dataset": "digits", "model": {"name": "vit", "blocks": 1, "width": 32}}, "digits, ViT of 1 block, width 32"),
        ({"dataset": "own", "model": {"name": "mine"}}, "own, mine"),
        ({"dataset": "mnist", "model": {"name": "rn", "blocks": 13, "width": 64}, "schedule": {"name": "constant"}},
         "MNIST, rn of 13 blocks, width 64, constant rate"),
        ({"dataset": "mnist", "model": {"name": "mlp", "depth": 2, "width": 9}, "schedule": {"name": "cosine"}},
         "MNIST, MLP of 2 layers, width 9, cosine rate"),
    ],
)  # fmt: skip
def test_a_title_names_dataset_model_depth_width_and_rate(config, label):
    config = {**config, "dataset": {"name": config["dataset"]}}
    assert setting_label(config) == label


def test_a_title_leaves_out_what_its_columns_say():
    config = {"dataset": {"name": "cifar10"}, "model": {"name": "vit", "blocks": 2, "width": 64}}
    assert setting_label(config, without=("model.blocks",)) == "CIFAR-10, ViT, width 64"


def test_layers_and_stages_come_from_the_start_event(tmp_path):
    write_run(tmp_path)
    write_run(tmp_path, probe="activation", experiment="activation")
    write_run(tmp_path, model=vit(2), experiment="vit")
    write_run(tmp_path, model=vit(1, ratio=0.0), experiment="no_ffn")
    stages = {run.path.parent.name: run.stages for run in load_runs([tmp_path])}
    assert stages == {
        "exp": ["fc1", "fc2", "fc3", "fc4", "fc5"],
        "activation": ["act1", "act2", "act3", "act4", "fc5"],
        "vit": ["block1", "block2", "head"],
        "no_ffn": ["block1", "head"],
    }


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"event": "start", "epoch": 0}, "no layers in the start event: written by an older version"),
        (
            {"event": "start", "layers": [{"layer": "fc1", "role": "hidden"}]},
            "expected a layer with layer, role, site",
        ),
        ({"event": "start", "layers": ["fc1"]}, "expected a layer with .*, got fc1"),
    ],
)
def test_a_run_of_an_older_version_says_so(tmp_path, start, message):
    file = write_run(tmp_path) / "events.jsonl"
    file.write_text(json.dumps(start) + "\n")
    with pytest.raises(AnalysisError, match=message) as error:
        load_runs([tmp_path])[0].stages  # noqa: B018
    assert str(file) in str(error.value)
    file.write_text("")
    with pytest.raises(AnalysisError, match="no layers"):
        load_runs([tmp_path])[0].stages  # noqa: B018


def test_keys_of_an_etf_mean_nothing_where_maps_are_frozen(tmp_path):
    write_run(tmp_path, last(2, scale=None))
    write_run(tmp_path, last(2, kind="frozen"))
    write_run(tmp_path, last(2, kind="frozen", frame="canonical", scale=2.0), seed=1)
    runs = load_runs([tmp_path])
    assert differences(runs) == {}
    assert "etf.frame" not in runs[-1].settings
    assert runs[-1].settings["etf.k"] == 2
    write_run(tmp_path, last(2, frame="hadamard", scale=None), seed=1)
    assert differences(load_runs([tmp_path])) == {"etf.frame": ["random", "hadamard"]}


def test_a_transformer_without_ffn_is_compared_with_its_baseline(tmp_path):
    write_run(tmp_path, model=vit(2))
    write_run(tmp_path, model=vit(2, ratio=0.0))
    assert differences(load_runs([tmp_path])) == {}
    write_run(tmp_path, model=vit(2, ratio=2.0), seed=1)
    assert differences(load_runs([tmp_path])) == {"model.ratio": [4.0, 2.0]}


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
