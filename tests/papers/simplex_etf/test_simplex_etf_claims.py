"""The ledger of arXiv 2412.00884: every claim finds its runs, and asks what its sentence says."""

from collections import Counter
from itertools import product

import pytest
import yaml
from fake_runs import ADAPTIVE, BASELINE, FFN, MLP, edit, judged, last, vit, write_run

from nclab.analysis.claims import judge
from nclab.analysis.ledger import load_ledger
from nclab.analysis.runs import Run
from nclab.analysis.verdict import HOLDS
from nclab.config.place import CONF
from nclab.config.plan import Plan
from nclab.config.stored import to_yaml
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
        constant = {"experiment": "author", "model": batch, "schedule": {"name": "constant"}} | mnist
        for frames in (("canonical", "canonical"), ("canonical", "random"), ("random", "random")):
            etf = last(3, bias=True, frame=frames[0], classifier_frame=frames[1])
            write_run(tmp_path, etf, seed, **constant)
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
    for name, count in (("etf_beats_scaled", 3 + 1), ("ffn_etf_test", 4), ("ffn_matters", 4), ("ncc_rises_vit", 3)):
        assert sum(j.seeds == (0, 1) for j in by_id[name]) == count, name


def test_the_claims_of_the_clock_and_of_hard_data_find_their_runs(tmp_path):
    keys = {"start": 6, "pause": 1, "maps": "all"}
    orders = ("deepest_first", "at_once")
    for seed in (0, 1):
        for order in orders:
            fix = [(6 + i * (order == "deepest_first"), f"fc{5 - i}") for i in range(4)]
            for threshold in (0.9, 0.95, 0.98, 0.99):
                adaptive = {"threshold": threshold, "relative": True, "patience": 5, "order": order}
                write_run(tmp_path, ADAPTIVE | keys | adaptive, seed, fix=fix[:2])
            for k in (1, 2, 3, 4):
                clock = {"name": "clock", "kind": "etf", "frame": "nearest", "k": k, "order": order}
                write_run(tmp_path, keys | clock, seed, fix=fix[:k])
        for size, noise in product((1000, 5000), (0.0, 0.2, 0.4)):
            hard = {"dataset": {"name": "digits", "train_size": size, "label_noise": noise}}
            for etf in (BASELINE, *(last(3, kind=kind) for kind in ("etf", "frozen_scaled", "orthogonal"))):
                write_run(tmp_path, etf, seed, **hard)
            write_run(tmp_path, BASELINE, seed, model=MLP | {"depth": 3}, **hard)
    ledger = [one for one in load_ledger(LEDGER) if one.family in OF_THEIR_OWN]
    judgements = judged(tmp_path, *ledger)
    for j in judgements:
        assert j.seeds == (0, 1), (j.claim.id, j.where, j.reason)
        if j.claim.id == "adaptive_beats_clock":  # every policy fixes two layers here
            assert j.setting["baseline etf.k"] == 2
    counts = dict.fromkeys((one.id for one in ledger), 0)
    for j in judgements:
        counts[j.claim.id] += 1
    assert counts == {
        "bar_decides_when": 8,
        "bar_decides_how_many": 8,
        "adaptive_beats_clock": 4,
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
    assert ledger["adaptive_saves"].kind == "every_seed_at_least"
    assert ledger["effective_depth"].kind == "every_seed_at_most"
    assert "separat" in ledger["etf_keeps_collapse"].claim
    assert "collaps" not in ledger["etf_keeps_collapse"].claim


def test_the_command_of_the_other_data_sets_makes_such_a_run():
    (one,) = (one for one in load_ledger(LEDGER) if one.id == "last_k_saves")
    assert one.commands == ("nclab-paper run simplex_etf --part figure1 --dataset cifar10",)
    assert "cifar10" not in one.treatment["dataset.name"]["not"]


# The ledger over the whole plan: every claim is judged on the runs of its own part, and on no others


@pytest.fixture(scope="module")
def expanded(tmp_path_factory):
    """Every run of the profile cpu as finished, with two seeds; and how many seeds the plan trains of each."""
    parts = Plan(CONF, "simplex_etf").resolve([], "cpu", seeds=[0, 1])
    place = tmp_path_factory.mktemp("expanded")
    (place / "DONE").touch()  # no other file is needed to say which runs a claim takes
    plan = Plan(CONF, "simplex_etf")
    seeds = plan.profiles["cpu"]["seeds"]
    runs, trained = {}, {}
    for part in parts:
        size = plan.parts[part.name]["size"]
        for config in part.configs:
            if config.folder not in runs:
                runs[config.folder] = Run(place, yaml.load(to_yaml(config), yaml.CSafeLoader))
            trained[id(runs[config.folder])] = len(seeds.get(size, seeds["other"]))
    return list(runs.values()), trained


EACH_ONCE = (
    *("last_1_saves", "last_2_saves", "last_3_saves", "ncc_rises_mlp", "ncc_never_falls_mlp", "etf_slows_early_ncc"),
    *("effective_depth", "effective_depth_loose", "effective_depth_strict", "norm_alone_fits_better"),
    *("last_learnt_above_fixed", "last_learnt_above_fixed_random", "last_2_beats_shallower", "last_3_beats_shallower"),
    *("canonical_hidden_frames_fall", "canonical_classifier_falls"),
    *("canonical_hidden_frames_cost_fit", "canonical_classifier_costs_fit"),
    *("adaptive_test", "adaptive_comparable", "adaptive_train", "adaptive_saves", "adaptive_beats_scaled"),
    *("ncc_rises_vit", "ncc_never_falls_vit", "ncc_rises_ffn_etf", "ncc_never_falls_ffn_etf"),  # of two blocks
)
EACH_K = (
    *("last_k_test", "last_k_comparable", "last_k_train", "etf_keeps_collapse"),
    *("etf_beats_scaled", "etf_beats_orthogonal", "etf_fits_better"),
)
EACH_DEPTH = (
    *("ffn_etf_test", "ffn_etf_comparable", "ffn_etf_train", "ffn_etf_saves"),
    *("ffn_etf_beats_scaled", "ffn_etf_beats_orthogonal", "ffn_etf_beats_no_ffn", "ffn_matters"),
)
HARD = tuple(f"etf_{what}_hard_data" for what in ("helps", "beats_scaled", "beats_orthogonal", "beats_shallower"))
JUDGEMENTS = {
    **dict.fromkeys(EACH_ONCE, 1),
    **dict.fromkeys(EACH_K, 3),
    **dict.fromkeys(EACH_DEPTH, 2),
    **dict.fromkeys(HARD, 2 * 3),
    "bar_decides_when": 4 + 4 + 2,  # thresholds: relative, absolute, all at once
    "bar_decides_how_many": 4 + 4 + 2,
    "adaptive_beats_clock": 4 * 4,  # no log says here which of four clocks fixed as many layers
    "all_at_once_by_clock": 3,
    "all_at_once_adaptive": 2,
}


def test_on_the_whole_plan_every_claim_takes_the_runs_of_its_own_part(expanded):
    runs, trained = expanded
    ledger = load_ledger(LEDGER)
    judgements = judge(ledger, runs)
    assert Counter(j.claim.id for j in judgements if j.run and not j.absent) == JUDGEMENTS
    assert [(j.claim.id, j.where) for j in judgements if j.run and j.absent] == []  # a setting without a partner
    assert {j.claim.id for j in judgements} == {one.id for one in ledger}
    assert {one.id for one in ledger} - {*JUDGEMENTS} == {"last_k_saves"}  # on other data sets
    assert {j.where for j in judgements if j.absent and j.claim.id in EACH_DEPTH} == {
        "model.blocks=3",
        "model.blocks=4",
    }
    names = Counter((j.claim.id, j.where) for j in judgements)
    assert max(names.values()) == 1
    for j in judgements:  # what a claim states is what the plan trains
        if j.run:
            assert trained[id(j.run)] == j.claim.seeds, j.claim.id


def test_the_families_of_the_plan_are_as_large_as_what_they_ask(expanded):
    empirical = [j for j in judge(load_ledger(LEDGER), expanded[0]) if j.run and not j.arithmetic]
    assert Counter(j.claim.family for j in empirical) == {
        "Figure 1": 3 * 3 + 2 + 3 + 3 + 1,
        "the author's variant": 6,
        "Figure 2": 4,
        "Adaptive-ETF and its clock": 10 + 10 + 16 + 3 + 2,
        "Few and noisy labels": 4 * 6,
        "Figures 3 and 4": 3 * 2 + 4,
        "controls": 3 * 3 + 4 + 4 * 2,
    }


def test_runs_of_before_there_was_label_noise_are_judged(tmp_path):
    old = {"dataset": {"name": "mnist", "train_size": None}}
    for etf in (BASELINE, last(1)):
        folder = write_run(tmp_path, etf, **old)
        assert "label_noise" not in (folder / "config.yaml").read_text()
        write_run(tmp_path, etf, dataset=old["dataset"] | {"label_noise": 0.2})
        write_run(tmp_path, etf, dataset=old["dataset"] | {"train_size": 1000})
    one = next(one for one in load_ledger(LEDGER) if one.id == "last_k_test")
    assert [j.where for j in judged(tmp_path, one) if j.run] == ["mnist, 20 epochs, etf.k=1"]


@pytest.mark.parametrize(("fixed", "seeds"), [((6, 8), (0, 1)), ((6, 9), (0,))])
def test_a_pair_that_did_not_fix_the_same_at_the_same_epochs_does_not_decide(tmp_path, fixed, seeds):
    for seed in (0, 1):
        write_run(tmp_path, ADAPTIVE, seed, fix=[(6, "fc5"), (8, "fc4")])
        last_switch = fixed[1] if seed else 8
        write_run(tmp_path, ADAPTIVE | {"kind": "frozen_scaled"}, seed, fix=[(6, "fc5"), (last_switch, "fc4")])
    one = next(one for one in load_ledger(LEDGER) if one.id == "adaptive_beats_scaled")
    (j,) = judged(tmp_path, one)
    assert j.seeds == seeds
    assert ("undefined with seed 1" in j.note) == (seeds == (0,))
