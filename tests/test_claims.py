"""Claims judged from run folders: pairing, the shipped ledger, and the command."""

import runpy
import sys
from pathlib import Path

import pytest
from fake_runs import ADAPTIVE, BASELINE, FFN, MLP, claim, edit, judged, last, pair, vit, write_run

from nclab.analysis.ledger import load_ledger
from nclab.analysis.runs import AnalysisError
from nclab.analysis.verdict import HOLDS, NOT_ENOUGH

ROOT = Path(__file__).parents[1]
LEDGER = ROOT / "conf" / "claims.yaml"


# Pairing


@pytest.mark.fast
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
    fix = [(9, "fc5")]
    for seed in (0, 1):
        write_run(tmp_path, ADAPTIVE, seed, fix=fix)
        write_run(tmp_path, frozen | {"threshold": 0.5}, seed, fix=fix)
    assert not judged(tmp_path, both)[0].seeds
    for seed in (0, 1):
        write_run(tmp_path, frozen | {"frame": "random"}, seed, fix=fix)  # a frozen map has no frame
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


def test_a_run_on_both_sides_is_refused(tmp_path):
    write_run(tmp_path, last(1))
    with pytest.raises(AnalysisError, match="meets the conditions of both"):
        judged(tmp_path, claim(baseline={"etf.k": 1}))


# The shipped ledger


@pytest.fixture
def paper(tmp_path):
    """A run of every experiment of the contract, two seeds, mnist."""
    mnist = {"dataset": {"name": "mnist", "train_size": None}}
    batch = MLP | {"norm": "batch"}
    for seed in (0, 1):
        for kind, experiment in (("etf", "figure1"), ("frozen", "controls")):
            for k in (1, 2, 3):
                write_run(tmp_path, last(k, kind=kind, bias=True), seed, experiment=experiment, model=batch, **mnist)
            fix = [(9, "fc5"), (11, "fc4")]
            write_run(tmp_path, ADAPTIVE | {"kind": kind}, seed, experiment="figure2", fix=fix, model=batch, **mnist)
            for blocks in (1, 2, 3, 4):
                write_run(tmp_path, FFN | {"kind": kind}, seed, experiment="figure3", model=vit(blocks), **mnist)
        for depth in (3, 4, 5):
            write_run(tmp_path, BASELINE, seed, experiment="figure1", model=batch | {"depth": depth}, **mnist)
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
    (tmp_path / "outputs" / "figures").mkdir(parents=True)
    run_script(monkeypatch, "runs", "--out", "report")
    assert "showing the figures and tables of outputs/figures\n" in capsys.readouterr().err


def test_the_figures_are_those_of_the_ledgers_plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs")
    figures = tmp_path / "figures"
    figures.mkdir()
    for name in ("figure1_digits", "depth_rn_digits", "own"):
        (figures / f"{name}.md").write_text(f"| a |\n|---|\n| of {name} |\n")
    text = LEDGER.read_text()
    (tmp_path / "none.yaml").write_text(text.replace("plan: paper\n", ""))
    (tmp_path / "absent.yaml").write_text(text.replace("plan: paper\n", "plan: absent\n"))
    shown = {}
    for ledger in (LEDGER, LEDGER.with_name("claims_depth.yaml"), "none.yaml", "absent.yaml"):
        run_script(monkeypatch, "runs", "--figures", figures, "--ledger", ledger, "--out", "report")
        page = (tmp_path / "report" / "index.html").read_text()
        shown[Path(ledger).stem] = [name for name in ("figure1", "depth_rn", "own") if f"of {name}" in page]
    everything = ["figure1", "depth_rn", "own"]
    assert shown == {"claims": ["figure1"], "claims_depth": ["depth_rn"], "none": everything, "absent": everything}


def test_a_broken_run_is_named_and_the_report_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # a checkout may hold outputs/figures, which the script would show
    pair(tmp_path / "runs", {0: (88.0, 88.1), 1: (89.0, 89.2), 2: (90.0, 90.15), 3: (91.0, 91.1), 4: (88.0, 88.1)})
    first, second, third = (next(tmp_path.glob(f"runs/exp/last_k-s{seed}-*")) for seed in (2, 3, 4))
    (first / "config.yaml").write_text("seed: 0\n")
    (second / "summary.json").write_text("{")
    (third / "events.jsonl").write_text('{"event": "start"}\n')  # of an older version; the accuracy is there
    run_script(monkeypatch, tmp_path / "runs", "--out", tmp_path / "report")
    errors = capsys.readouterr().err.splitlines()
    assert any(line.startswith(f"left out: {first}/config.yaml: lacks epochs") for line in errors)
    assert any(line.startswith(f"left out: {second}/summary.json: not JSON") for line in errors)
    assert any(line.startswith(f"left out: {third}/events.jsonl: no layers in the start event") for line in errors)
    assert len(errors) == len(set(errors)) == 3
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| 3 (0, 1, 4) |" in text
    assert "summary.json: not JSON" in text.replace("\\", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "no such folder: absent"),
        (["empty"], "no run folder there at all"),
        (["runs", "--dataset", "mnist"], "no run under runs, dataset.name = mnist"),
        (["unfinished"], "1 runs there, none finished"),
        (["runs", "--ledger", "broken.yaml"], "broken.yaml: lacks claims; required: claims"),
        (["runs", "--figures", "absent"], "no such folder: absent"),
        (["runs", "--figures", "pictures", "--out", "pictures"], "--out must not be the folder of the figures"),
        (["runs", "--figures", "pictures"], r"figure1_a.png: not a PNG picture (0 bytes)"),
        (["runs", "--epochs", "many"], "invalid int value"),
        ([], "required: FOLDER"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, message):
    write_run(tmp_path / "runs")
    write_run(tmp_path / "unfinished", done=False)
    for name in ("empty", "pictures"):
        (tmp_path / name).mkdir()
    (tmp_path / "pictures" / "figure1_a.png").touch()
    (tmp_path / "broken.yaml").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run_script(monkeypatch, *arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error
    assert error.count("\n") == 1
