"""Claims judged from run folders: pairing, the statistics, the shipped ledger, and the command."""

import json
import math
import runpy
import sys
from pathlib import Path

import pytest
from fake_runs import ADAPTIVE, BASELINE, FFN, MLP, last, vit, write_run
from scipy import stats

from nclab.analysis.claims import judge
from nclab.analysis.ledger import Claim, load_ledger
from nclab.analysis.runs import AnalysisError, load_runs
from nclab.analysis.statistics import STATISTICS, layers_before_etf
from nclab.analysis.verdict import FAILS, HOLDS, KINDS, NOT_ENOUGH

ROOT = Path(__file__).parents[1]
LEDGER = ROOT / "conf" / "claims.yaml"


def edit(folder, **entries):
    """Set entries of a fake run's summary.json: test=0.9 and train=0.9 are accuracies, the rest as named."""
    file = folder / "summary.json"
    summary = json.loads(file.read_text())
    for split in ("test", "train"):
        if split in entries:
            summary["final"][split]["accuracy"] = entries.pop(split)
    if "effective_depth" in entries:
        summary["final"]["effective_depth"] = entries.pop("effective_depth")
    file.write_text(json.dumps(summary | entries))
    return folder


def claim(kind="not_lower", statistic="test_accuracy", treatment=None, baseline=None, **more):
    treatment = treatment or {"etf.name": "last_k"}
    if KINDS[kind].paired:
        baseline = baseline or {"etf.name": "none"}
        more = {"margin": 0.5} | more
    return Claim("c", "text", "source", STATISTICS[statistic], kind, treatment, baseline, **more)


def pair(root, accuracies, **settings):
    """Baseline and last 1 ETF with test accuracies in percent, {seed: (treatment, baseline)}; None: no such run."""
    for seed, (treatment, baseline) in accuracies.items():
        for etf, value in ((last(1), treatment), (BASELINE, baseline)):
            if value is not None:
                edit(write_run(root, etf, seed, **settings), test=value / 100)


def judged(root, *claims):
    return judge(claims, load_runs([root], finished_only=False))


# Pairing


def test_pairs_are_of_one_seed_and_the_others_are_named(tmp_path):
    pair(tmp_path, {0: (88.0, 88.1), 1: (89.0, 89.2), 2: (90.0, 90.15), 3: (95.0, None), 4: (None, 60.0)})
    (j,) = judged(tmp_path, claim())
    assert (j.verdict, j.seeds) == (HOLDS, (0, 1, 2))
    assert j.treatment == pytest.approx((88.0, 89.0, 90.0))
    assert j.baseline == pytest.approx((88.1, 89.2, 90.15))
    assert j.estimate.values == pytest.approx((-0.1, -0.2, -0.15))
    assert j.note == "treatment alone has seed 3; baseline alone has seed 4"
    assert j.where == "digits, 20 epochs"


def test_no_common_seed(tmp_path):
    pair(tmp_path, {0: (88.0, None), 1: (None, 88.0)})
    (j,) = judged(tmp_path, claim())
    assert (j.verdict, j.estimate, j.seeds) == (NOT_ENOUGH, None, ())
    assert j.reason == "no seed on both sides: treatment 0; baseline 1"


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": {"name": "mnist", "train_size": None}},
        {"dataset": {"name": "digits", "train_size": 100}},
        {"epochs": 8},
        {"model": MLP | {"depth": 4}},
        {"optimizer": {"name": "sgd", "lr": 0.1}},
        {"schedule": {"name": "cosine"}},
    ],
)
def test_runs_of_different_settings_are_never_paired(tmp_path, other):
    pair(tmp_path, {0: (88.0, None), 1: (88.0, None)})
    pair(tmp_path, {0: (None, 88.0), 1: (None, 88.0)}, **other)
    (j,) = judged(tmp_path, claim())
    assert (j.verdict, j.reason) == (NOT_ENOUGH, "no finished run with etf.name=none in this setting")
    pair(tmp_path, {0: (80.0, None), 1: (81.0, None)}, **other)
    two = judged(tmp_path, claim())
    assert [len(j.seeds) for j in two] in ([0, 2], [2, 0])
    assert len({j.where for j in two}) == 2  # the settings are told apart by name


def test_seed_machine_and_experiment_may_differ(tmp_path):
    pair(tmp_path, {0: (88.0, None), 1: (88.3, None)}, experiment="one", device="cuda", threads=4)
    pair(tmp_path, {0: (None, 88.0), 1: (None, 88.1)}, experiment="two", device="cpu", threads=1)
    assert [j.seeds for j in judged(tmp_path, claim())] == [(0, 1)]


def test_shared_keys_of_the_policy_must_agree_where_they_mean_something(tmp_path):
    frozen = ADAPTIVE | {"kind": "frozen"}
    both = claim("higher", treatment={"etf.name": "adaptive", "etf.kind": "etf"},
                 baseline={"etf.name": "adaptive", "etf.kind": "frozen"})  # fmt: skip
    for seed in (0, 1):
        write_run(tmp_path, ADAPTIVE, seed)
        write_run(tmp_path, frozen | {"threshold": 0.5}, seed)
    assert not judged(tmp_path, both)[0].seeds
    for seed in (0, 1):
        write_run(tmp_path, frozen | {"frame": "random"}, seed)  # a frozen map has no frame
    assert judged(tmp_path, both)[0].seeds == (0, 1)


def test_variants_of_the_treatment_are_judged_apart(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, BASELINE, seed)
        write_run(tmp_path, last(1), seed)
        write_run(tmp_path, last(1, frame="canonical"), seed)
        write_run(tmp_path, last(2), seed)
    assert {j.where for j in judged(tmp_path, claim())} == {
        "digits, 20 epochs, last 1 ETF, etf.frame=random",
        "digits, 20 epochs, last 1 ETF, etf.frame=canonical",
        "digits, 20 epochs, last 2 ETF, etf.frame=random",
    }


def test_variants_of_the_baseline_are_judged_apart(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, last(3), seed)
        for depth in (3, 4):
            write_run(tmp_path, BASELINE, seed, model=MLP | {"depth": depth})
    shallow = claim(
        "higher",
        treatment={"model.depth": 5, "etf.name": "last_k"},
        baseline={"model.depth": [3, 4], "etf.name": "none"},
    )
    assert [j.where for j in judged(tmp_path, shallow)] == [
        "digits, 20 epochs, baseline model.depth=3",
        "digits, 20 epochs, baseline model.depth=4",
    ]


def test_a_case_of_per_without_runs_is_not_enough_and_comes_last(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, BASELINE, seed)
        write_run(tmp_path, last(2), seed)
    one, two = judged(tmp_path, claim(per={"etf.k": [1, 2]}))
    assert (one.where, one.seeds) == ("digits, 20 epochs, etf.k=2", (0, 1))
    assert (two.where, two.verdict) == ("etf.k=1", NOT_ENOUGH)
    assert two.reason == "no finished run with etf.name=last_k, etf.k=1"
    (none,) = judged(tmp_path, claim(treatment={"etf.name": "adaptive"}))
    assert (none.where, none.verdict) == ("no runs", NOT_ENOUGH)


def test_the_same_run_twice_counts_once_and_two_different_ones_are_refused(tmp_path):
    pair(tmp_path, {0: (88.0, 88.0), 1: (88.2, 88.1)})
    pair(tmp_path, {0: (88.0, None)}, experiment="copy")
    assert judged(tmp_path, claim())[0].estimate.n == 2
    pair(tmp_path, {0: (88.5, None)}, experiment="other")
    with pytest.raises(
        AnalysisError, match=r"claim c: seed 0 is there twice with different test_accuracy: .*/copy/.* and .*/other/"
    ):
        judged(tmp_path, claim())


def test_a_run_on_both_sides_is_refused(tmp_path):
    write_run(tmp_path, last(1))
    with pytest.raises(AnalysisError, match="meets the conditions of both"):
        judged(tmp_path, claim(baseline={"etf.k": 1}))


def test_diverged_seeds_keep_a_claim_from_holding(tmp_path):
    pair(tmp_path, {0: (88.0, 88.1), 1: (89.0, 89.2), 2: (90.0, 90.15), 3: (None, 90.0)})
    diverged = write_run(tmp_path, last(1), 3, done=False)
    running = write_run(tmp_path, last(1), 4, done=False)
    with (diverged / "events.jsonl").open("a") as file:
        file.write('{"event": "diverged", "epoch": 3}\n')
    with (running / "events.jsonl").open("a") as file:
        file.write('{"event": "epo')
    (j,) = judged(tmp_path, claim())
    assert (j.verdict, j.seeds) == (NOT_ENOUGH, (0, 1, 2))
    assert j.reason == "interval above -0.50, but training diverged with seed 3: leaving it out would flatter"
    pair(tmp_path / "bad", {0: (80.0, 88.1), 1: (81.0, 89.0), 2: (82.0, 90.1)})
    write_run(tmp_path / "bad", last(1), 3, done=False).joinpath("events.jsonl").write_text('{"event": "diverged"}\n')
    assert judged(tmp_path / "bad", claim())[0].verdict == FAILS
    (alone,) = judged(diverged, claim("at_least", "saved_share"))
    assert alone.reason == "training diverged with seed 3"


def test_a_diverged_baseline_is_noted(tmp_path):
    pair(tmp_path, {0: (88.0, 88.1), 1: (89.0, 89.2), 2: (90.0, 90.15)})
    folder = write_run(tmp_path, BASELINE, 5, done=False)
    folder.joinpath("events.jsonl").write_text('{"event": "diverged"}\n')
    assert judged(tmp_path, claim())[0].note == "baseline diverged with seed 5"


def test_undefined_numbers_do_not_count(tmp_path):
    pair(tmp_path, {0: (88.0, 88.0), 1: (88.2, 88.1), 2: (88.1, 88.0)})
    edit(next(tmp_path.glob("exp/last_k-s1-*")), test=None)
    (j,) = judged(tmp_path, claim())
    assert (j.seeds, j.note) == ((0, 2), "undefined with seed 1")
    for folder in tmp_path.glob("exp/last_k-*"):
        edit(folder, test=None)
    (j,) = judged(tmp_path, claim())
    assert (j.verdict, j.reason) == (NOT_ENOUGH, "test_accuracy is undefined in every run, seed 0, 1, 2")


# Statistics


def value(name, folder, treated=None):
    run = load_runs([folder])[0]
    return STATISTICS[name].value(run, load_runs([treated])[0] if treated else run)


def set_ncc(folder, ncc):
    """Replace metrics.csv: {epoch: {layer: train NCC accuracy}}."""
    lines = [f"{e},train,{layer},ncc_accuracy,{v}" for e, layers in ncc.items() for layer, v in layers.items()]
    (folder / "metrics.csv").write_text("\n".join(["epoch,split,layer,metric,value", *lines]) + "\n")
    return folder


def test_accuracies_and_shares_are_percent(tmp_path):
    folder = edit(write_run(tmp_path), test=0.881, train=0.99, parameters_learnable=798410, parameters_total=802410)
    assert value("test_accuracy", folder) == pytest.approx(88.1)
    assert value("train_accuracy", folder) == pytest.approx(99.0)
    assert value("saved_share", folder) == pytest.approx(0.4985, abs=1e-4)


def test_rank_correlation_is_spearmans(tmp_path):
    folder = write_run(tmp_path)
    ncc = [0.7, 0.8, 0.95, 0.95, 0.9]
    at_end = dict(zip(("fc1", "fc2", "fc3", "fc4", "fc5"), ncc, strict=True)) | {"act4": 0.1}  # no stage
    set_ncc(folder, {19: dict.fromkeys(at_end, 0.5), 20: at_end})
    assert value("ncc_rank_correlation", folder) == pytest.approx(stats.spearmanr(range(5), ncc).statistic)
    assert math.isnan(value("ncc_rank_correlation", set_ncc(folder, {20: dict.fromkeys(at_end, 1.0)})))
    assert math.isnan(value("ncc_rank_correlation", set_ncc(folder, {19: at_end})))  # not measured at the end


def test_layers_beyond_the_effective_depth(tmp_path):
    mlp, transformer = write_run(tmp_path), write_run(tmp_path, model=vit(3))
    assert value("layers_beyond_effective_depth", edit(mlp, effective_depth=4)) == 1
    assert value("layers_beyond_effective_depth", edit(mlp, effective_depth=5)) == 0
    assert value("layers_beyond_effective_depth", edit(mlp, effective_depth=None)) == 0
    assert value("layers_beyond_effective_depth", edit(transformer, effective_depth=2)) == 2  # of block1..3, head


def test_layers_before_the_etfs(tmp_path):
    first = [layers_before_etf(load_runs([write_run(tmp_path, last(k))])[0]) for k in (1, 3, 5)]
    assert first == [["fc1", "fc2", "fc3", "fc4"], ["fc1", "fc2"], []]
    blocks = write_run(tmp_path, FFN | {"blocks": "last1"}, model=vit(3))
    assert layers_before_etf(load_runs([blocks])[0]) == ["block1", "block2"]
    assert layers_before_etf(load_runs([write_run(tmp_path)])[0]) == []


def test_ncc_before_the_etfs_is_that_of_the_treated_runs_layers(tmp_path):
    treated, baseline = write_run(tmp_path, last(3)), write_run(tmp_path)
    for folder, shift in ((treated, 0.0), (baseline, 0.1)):
        curve = {e: {"fc1": 0.01 * e + shift, "fc2": 0.02 * e + shift, "fc3": 0.9} for e in range(21)}
        set_ncc(folder, curve)
    assert value("ncc_before_etf", treated) == pytest.approx(40.0)  # fc2 at epoch 20
    assert value("ncc_before_etf", baseline, treated) == pytest.approx(50.0)
    assert value("early_ncc", treated) == pytest.approx(100 * 0.015 * 3)  # epochs 1 to 5, fc1 and fc2
    assert value("early_ncc", baseline, treated) == pytest.approx(100 * (0.015 * 3 + 0.1))
    everything = write_run(tmp_path, last(5))
    assert math.isnan(value("early_ncc", everything))
    assert math.isnan(value("ncc_before_etf", everything))
    assert math.isnan(value("early_ncc", set_ncc(treated, {0: {"fc1": 0.1, "fc2": 0.1}, 20: {"fc1": 1, "fc2": 1}})))


def test_every_statistic_says_what_it_is():
    for statistic in STATISTICS.values():
        assert statistic.description
        assert statistic.unit
        assert bool(statistic.margin) == bool(statistic.margin_reason)


# The shipped ledger


@pytest.fixture
def paper(tmp_path):
    """A run of every experiment of the contract, two seeds, mnist."""
    mnist = {"dataset": {"name": "mnist", "train_size": None}}
    for seed in (0, 1):
        for kind, experiment in (("etf", "figure1"), ("frozen", "controls")):
            for k in (1, 2, 3):
                write_run(tmp_path, last(k, kind=kind), seed, experiment=experiment, **mnist)
            fix = [(9, "fc5"), (11, "fc4")]
            write_run(tmp_path, ADAPTIVE | {"kind": kind}, seed, experiment="figure2", fix=fix, **mnist)
            for blocks in (1, 2, 3, 4):
                write_run(tmp_path, FFN | {"kind": kind}, seed, experiment="figure3", model=vit(blocks), **mnist)
        for depth in (3, 4, 5):
            write_run(tmp_path, BASELINE, seed, experiment="figure1", model=MLP | {"depth": depth}, **mnist)
        for blocks in (1, 2, 3, 4):
            for ratio in (0, 4.0):
                write_run(tmp_path, BASELINE, seed, experiment="controls_vit", model=vit(blocks, ratio), **mnist)
        for etf in (BASELINE, last(1), last(1, kind="frozen")):
            write_run(tmp_path, etf, seed, experiment="smoke")  # digits
    return tmp_path


def test_every_shipped_claim_finds_its_runs(paper):
    judgements = judged(paper, *load_ledger(LEDGER))
    assert [(j.claim.id, j.where, j.reason) for j in judgements if not j.seeds] == []
    by_id = {}
    for j in judgements:
        by_id.setdefault(j.claim.id, []).append(j)
    assert {one.id for one in load_ledger(LEDGER)} == set(by_id)
    for name, count in (("etf_beats_frozen", 3 + 1), ("ffn_etf_test", 4), ("ffn_matters", 4), ("ncc_rises_vit", 3)):
        assert sum(j.seeds == (0, 1) for j in by_id[name]) == count, name


# The command


def run_script(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["claims.py", *map(str, arguments)])
    runpy.run_path(str(ROOT / "scripts" / "claims.py"), run_name="__main__")


def test_the_command_prints_verdicts_and_writes_the_report(tmp_path, monkeypatch, capsys):
    pair(tmp_path / "runs", {0: (88.0, 88.1), 1: (89.0, 89.2), 2: (90.0, 90.15)})
    unfinished = write_run(tmp_path / "runs", BASELINE, 7, done=False)
    monkeypatch.chdir(tmp_path)
    run_script(monkeypatch, "runs", "--dataset", "digits", "--epochs", 20, "--out", "report")
    printed = capsys.readouterr()
    assert "last_k_test" in printed.out
    assert "-0.15 [-0.27, -0.03] points" in printed.out
    assert printed.out.splitlines()[-2:] == ["report/index.html", "report/report.md"]
    assert printed.err == f"skipped 1 unfinished: {unfinished.relative_to(tmp_path)}\n"
    assert (tmp_path / "report" / "index.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "no such folder: absent"),
        (["empty"], "no run folder there at all"),
        (["runs", "--dataset", "mnist"], "no run under runs, dataset.name = mnist"),
        (["unfinished"], "1 runs there, none finished"),
        (["runs", "--ledger", "broken.yaml"], "broken.yaml: expected a list of claims"),
        (["runs", "--figures", "absent"], "no such folder: absent"),
        (["runs", "--figures", "pictures", "--out", "pictures"], "--out must not be the folder of the figures"),
        (["runs", "--figures", "pictures"], r"a.png: not a PNG picture (0 bytes)"),
        (["runs", "--epochs", "many"], "invalid int value"),
        ([], "required: FOLDER"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, message):
    write_run(tmp_path / "runs")
    write_run(tmp_path / "unfinished", done=False)
    for name in ("empty", "pictures"):
        (tmp_path / name).mkdir()
    (tmp_path / "pictures" / "a.png").touch()
    (tmp_path / "broken.yaml").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run_script(monkeypatch, *arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error
    assert error.count("\n") == 1
