"""Which runs of a depth study are one curve, what it is called, and what is refused."""

import pytest
from fake_depth_runs import CE, MSE, RN1, RN2, T11, write_depth_run, write_series
from fake_runs import FFN, last

from nclab.analysis import AnalysisError, load_runs
from nclab.papers.depth.variants import depth_variants


def labels(root):
    return [variant.label for variant in depth_variants(load_runs([root]))]


@pytest.mark.parametrize(
    ("how", "label"),
    [
        ({}, "RN1, λ = 0.005"),
        ({"model": RN2}, "RN2, λ = 0.005"),
        ({"model": RN2, "over_depth": True}, "RN2, λ = 0.005/L"),
        ({"model": T11}, "T11, λ = 0.005"),
        ({"model": T11 | {"mlp_maps": 2, "norm": "pre"}}, "T12, pre-norm, λ = 0.005"),
        ({"model": RN1 | {"head_bias": False}, "loss": MSE}, "RN1, MSE, no head bias, λ = 0.005"),
        ({"loss": MSE | {"l2_skip": "head_bias"}}, "RN1, MSE, head bias not in L2, λ = 0.005"),
        ({"loss": CE | {"l2_skip": "biases", "l2": 1e-4}}, "RN1, biases not in L2, λ = 0.0001"),
        ({"loss": None}, "RN1, λ = 0"),  # of before there was a choice of losses
        ({"etf": last(1)}, "RN1, last 1 ETF, λ = 0.005"),
    ],
)
def test_labels_are_built_from_the_configuration(tmp_path, how, label):
    loss = how.get("loss", CE)
    if loss is None:
        for blocks in (2, 5, 13):
            write_depth_run(tmp_path, blocks, loss=None)
    else:
        write_series(tmp_path, seeds=(0,), **how)
    assert labels(tmp_path) == [label]
    (variant,) = depth_variants(load_runs([tmp_path]))
    assert [*variant.by_blocks] == [2, 5, 13]
    assert variant.orthogonal is (label == "RN1, MSE, no head bias, λ = 0.005")


def test_runs_without_a_loss_are_cross_entropy_without_a_penalty(tmp_path):
    write_depth_run(tmp_path, 2, loss=None)
    write_depth_run(tmp_path, 5, loss=CE | {"l2": 0.0})
    runs = load_runs([tmp_path])
    assert {run.config["loss"]["name"] for run in runs} == {"cross_entropy"}
    assert [run.settings["loss.l2_skip"] for run in runs] == ["none", "none"]
    assert labels(tmp_path) == ["RN1, λ = 0"]
    assert len(load_runs([tmp_path], where={"loss.l2": 0})) == 2


def test_variants_are_told_apart_by_what_differs_at_last_by_the_experiment(tmp_path):
    write_series(tmp_path, seeds=(0,))
    write_series(tmp_path, seeds=(0,), experiment="again")
    assert labels(tmp_path) == ["RN1, λ = 0.005, again", "RN1, λ = 0.005, depth_rn1"]
    write_series(tmp_path, seeds=(0,), model=RN1 | {"width": 32})
    assert labels(tmp_path) == [
        "RN1, λ = 0.005, model.width=32",
        "RN1, λ = 0.005, model.width=64, again",
        "RN1, λ = 0.005, model.width=64, depth_rn1",
    ]


def test_data_sets_are_named_where_there_are_several(tmp_path):
    write_series(tmp_path, seeds=(0,))
    write_series(tmp_path, seeds=(0,), model=T11, experiment="text", dataset={"name": "imdb"})
    assert labels(tmp_path) == ["RN1, λ = 0.005, MNIST", "T11, λ = 0.005, IMDB"]


def test_lambda_of_neither_kind_is_refused(tmp_path):
    for blocks, l2 in ((2, 0.005), (5, 0.005), (13, 0.001)):
        write_depth_run(tmp_path, blocks, loss=CE | {"l2": l2})
    message = (
        r"depth_rn1: expected one loss.l2 at every model.blocks, or one product of the two, got "
        r"0.005 at 2, 0.005 at 5, 0.001 at 13; choose, e.g. with --where loss.l2=0.005"
    )
    with pytest.raises(AnalysisError, match=message):
        labels(tmp_path)
    assert depth_variants(load_runs([tmp_path], where={"loss.l2": 0.005}))[0].label == "RN1, λ = 0.005"


def test_a_seed_twice_is_refused(tmp_path):
    write_depth_run(tmp_path, 2)
    assert labels(tmp_path) == ["RN1, λ = 0.005"]
    write_depth_run(tmp_path, 2, tracker={"entity": "b"})  # a key that may differ
    with pytest.raises(AnalysisError, match="seed 0 of baseline is there twice"):
        labels(tmp_path)


def test_policies_are_chosen_by_name(tmp_path):
    for etf in ({"name": "none"}, FFN):
        write_series(tmp_path, seeds=(0,), etf=etf)
    runs = load_runs([tmp_path])
    assert [v.label for v in depth_variants(runs)] == ["RN1, λ = 0.005", "RN1, FFN-ETF, λ = 0.005"]
    assert [v.label for v in depth_variants(runs, ["ffn-etf"])] == ["RN1, FFN-ETF, λ = 0.005"]
