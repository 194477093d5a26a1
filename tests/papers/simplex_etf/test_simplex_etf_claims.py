"""The ledger of arXiv 2412.00884: every claim finds its runs, and asks what its sentence says."""

from itertools import product

import pytest
from fake_runs import ADAPTIVE, BASELINE, FFN, MLP, edit, judged, last, vit, write_run

from nclab.analysis.ledger import load_ledger
from nclab.analysis.verdict import HOLDS
from nclab.papers.wings import find_wing

LEDGER = find_wing("simplex_etf").ledger
OF_THEIR_OWN = ("Adaptive-ETF and its clock", "Few and noisy labels")  # their runs are those of parts of their own


@pytest.fixture
def paper(tmp_path):
    """A run of every experiment of the contract, two seeds, mnist."""
    mnist = {"dataset": {"name": "mnist", "train_size": None}}
    batch = MLP | {"norm": "batch"}
    for seed in (0, 1):
        for kind in ("etf", "frozen_scaled", "orthogonal", "frozen"):
            experiment = "figure1" if kind == "etf" else "controls"
            for k in (1, 2, 3):
                write_run(tmp_path, last(k, kind=kind, bias=True), seed, experiment=experiment, model=batch, **mnist)
            fix = [(9, "fc5"), (11, "fc4")]
            write_run(tmp_path, ADAPTIVE | {"kind": kind}, seed, experiment="figure2", fix=fix, model=batch, **mnist)
            for blocks in (1, 2, 3, 4):
                write_run(tmp_path, FFN | {"kind": kind}, seed, experiment="figure3", model=vit(blocks), **mnist)
        for frame in ("canonical", "random"):
            etf = last(3, bias=True, frame=frame, classifier_frame=frame)
            write_run(tmp_path, etf, seed, experiment="author", model=batch, **mnist)
        for depth in (3, 4, 5):
            write_run(tmp_path, BASELINE, seed, experiment="figure1", model=batch | {"depth": depth}, **mnist)
        for blocks in (1, 2, 3, 4):
            for ratio in (0, 4.0):
                write_run(tmp_path, BASELINE, seed, experiment="controls_vit", model=vit(blocks, ratio), **mnist)
        for etf in (BASELINE, *(last(1, kind=kind) for kind in ("etf", "frozen_scaled", "orthogonal"))):
            write_run(tmp_path, etf, seed, experiment="smoke")  # digits
    return tmp_path


def test_every_shipped_claim_finds_its_runs(paper):
    ledger = [one for one in load_ledger(LEDGER) if one.family not in OF_THEIR_OWN]
    judgements = judged(paper, *ledger)
    assert [(j.claim.id, j.where, j.reason) for j in judgements if not j.seeds] == []
    by_id = {}
    for j in judgements:
        by_id.setdefault(j.claim.id, []).append(j)
    assert {one.id for one in ledger} == set(by_id)
    for name, count in (("etf_beats_scaled", 3 + 1 + 1), ("ffn_etf_test", 4), ("ffn_matters", 4), ("ncc_rises_vit", 3)):
        assert sum(j.seeds == (0, 1) for j in by_id[name]) == count, name


def test_the_claims_of_the_clock_and_of_hard_data_find_their_runs(tmp_path):
    keys = {"start": 6, "pause": 1, "maps": "all"}
    orders = ("deepest_first", "at_once")
    for seed in (0, 1):
        for order in orders:
            fix = [(6, "fc5"), (6 + (order == "deepest_first"), "fc4")]
            for threshold in (0.9, 0.95, 0.98, 0.99):
                adaptive = {"threshold": threshold, "relative": True, "patience": 5, "order": order}
                write_run(tmp_path, ADAPTIVE | keys | adaptive, seed, fix=fix)
            for k in (1, 2, 3, 4):
                clock = {"name": "clock", "kind": "etf", "frame": "nearest", "k": k, "order": order}
                write_run(tmp_path, keys | clock, seed, fix=fix, metrics={"every": 1, "probe": "linear"})
        for size, noise in product((1000, 5000), (0.0, 0.2, 0.4)):
            hard = {"dataset": {"name": "digits", "train_size": size, "label_noise": noise}}
            for etf in (BASELINE, *(last(3, kind=kind) for kind in ("etf", "frozen_scaled", "orthogonal"))):
                write_run(tmp_path, etf, seed, **hard)
            write_run(tmp_path, BASELINE, seed, model=MLP | {"depth": 3}, **hard)
    ledger = [one for one in load_ledger(LEDGER) if one.family in OF_THEIR_OWN]
    judgements = judged(tmp_path, *ledger)
    assert [(j.claim.id, j.where, j.reason) for j in judgements if j.seeds != (0, 1)] == []
    counts = dict.fromkeys((one.id for one in ledger), 0)
    for j in judgements:
        counts[j.claim.id] += 1
    assert counts == {
        "bar_decides_when": 8,
        "bar_decides_how_many": 8,
        "adaptive_beats_clock": 4 * 2,
        "all_at_once_by_clock": 3,
        "all_at_once_adaptive": 4,
        "etf_helps_hard_data": 6,
        "etf_beats_scaled_hard_data": 6,
        "etf_beats_orthogonal_hard_data": 6,
        "etf_beats_shallower_hard_data": 6,
    }
    for j in judgements:  # the two sides differ in one thing
        differ = {key for key in j.setting if key.startswith("baseline ")}
        assert differ <= {"baseline etf.k"}, j.where


def test_the_counts_of_parameters_are_those_of_batch_norm_and_biases(tmp_path):
    one = next(one for one in load_ledger(LEDGER) if one.id == "last_3_saves")
    mnist = {"dataset": {"name": "mnist", "train_size": None}}
    for seed, (norm, bias) in enumerate((("batch", True), ("none", True), ("batch", False))):
        folder = write_run(tmp_path, last(3, bias=bias), seed, model=MLP | {"norm": norm}, **mnist)
        edit(folder, parameters_total=802410 - seed, parameters_learnable=478410)
    (j,) = judged(tmp_path, one)
    assert (j.verdict, j.seeds) == (HOLDS, (0,))
    assert "802,410" in one.why
    assert "803,210" in one.why


def test_what_the_shipped_ledger_asks_of_every_seed():
    ledger = {one.id: one for one in load_ledger(LEDGER)}
    for name, kind in (("ncc_rises", "every_seed_at_least"), ("ncc_never_falls", "every_seed_at_most")):
        for network in ("mlp", "vit", "ffn_etf"):
            one = ledger[f"{name}_{network}"]
            assert (one.kind, one.threshold) == (kind, 1.0)
            assert "1 point" in one.claim  # the sentence says what is tested
    assert {ledger[name].kind for name in ("effective_depth", "adaptive_saves")} == {"every_seed_at_least"}
    assert "separat" in ledger["etf_keeps_collapse"].claim
    assert "collaps" not in ledger["etf_keeps_collapse"].claim


def test_the_command_of_the_other_data_sets_makes_such_a_run():
    (one,) = (one for one in load_ledger(LEDGER) if one.id == "last_k_saves")
    assert one.commands == ("nclab-paper run simplex_etf --part figure1 --dataset cifar10",)
    assert "cifar10" not in one.treatment["dataset.name"]["not"]
