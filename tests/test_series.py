"""Claims about series of depths: one slope a seed, seeds and depths that do not count, and the depth study's ledger."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_depth_runs import CE, MSE, RN1, RN2, T11, diverge_at, write_depth_run, write_series
from fake_runs import claim, judged, write_run

from nclab.analysis.claims import judge
from nclab.analysis.commands import PlanSizes, commands, load_plan
from nclab.analysis.effects import axis_label
from nclab.analysis.ledger import load_ledger
from nclab.analysis.report import make_report, write_report
from nclab.analysis.runs import AnalysisError, load_runs
from nclab.analysis.trend import line
from nclab.analysis.verdict import FAILS, HOLDS, NOT_ENOUGH
from nclab.config.plan import Plan

ROOT = Path(__file__).parents[1]
LEDGER = ROOT / "conf" / "claims_depth.yaml"
OVER_DEPTH = {"loss.l2": {"times": "model.blocks", "is": 0.005}}


def falls(runs=None, statistic="nc1_last", kind="at_most", **more):
    runs = runs or {"model.name": "rn"}
    return claim(kind, statistic, runs, along="model.blocks", **{"threshold": -0.1} | more)


def only(root, *how, **more):
    (judgement,) = judged(root, falls(*how, **more))
    return judgement


# Numbers


def test_a_seed_has_one_number_the_slope_over_its_depths(tmp_path):
    write_series(tmp_path, (2, 5, 13, 34))
    j = only(tmp_path)
    assert (j.verdict, j.seeds) == (HOLDS, (0, 1, 2))
    slopes = []
    for seed in range(3):
        points = {}
        for run in load_runs([tmp_path], seeds=[seed]):
            rows = run.metrics.query("epoch == 100 and split == 'train' and metric == 'nc1_trace_ratio'")
            blocks = run.settings["model.blocks"]
            points[blocks] = rows[rows.layer == f"block{blocks}"].value.item()
        slopes.append(np.polyfit(np.log10([*points]), np.log10([*points.values()]), 1)[0])
    assert j.treatment == pytest.approx(slopes)
    assert j.estimate.values == pytest.approx(slopes)
    assert j.estimate.high < -0.1
    assert j.where == "mnist, 100 epochs, model.blocks=2|5|13|34"
    assert j.note == ""
    assert axis_label(j.claim) == "nc1 last, slope along model.blocks (decades per decade)"


@pytest.mark.parametrize(
    ("slope", "kind", "verdict"),
    [(-1 / 3, "at_most", HOLDS), (0.0, "at_most", FAILS), (0.0, "at_least", HOLDS), (-1 / 3, "at_least", FAILS)],
)
def test_falling_and_not_falling(tmp_path, slope, kind, verdict):
    write_series(tmp_path, slope=slope, noise=0.005)
    for statistic in ("nc1_last", "nc2_last", "nc3_last"):
        assert only(tmp_path, None, statistic, kind).verdict == verdict


def test_lambda_over_depth_is_one_series_and_constant_lambda_another(tmp_path):
    write_series(tmp_path, (3, 5, 13), over_depth=True, model=RN2, experiment="depth_rn2")
    write_series(tmp_path, (3, 5, 13), model=RN2, experiment="depth_rn2_constant", slope=0.0, noise=0.005)
    scaled = only(tmp_path, OVER_DEPTH)
    assert (scaled.verdict, scaled.seeds) == (HOLDS, (0, 1, 2))
    constant = only(tmp_path, {"loss.l2": 0.005})
    assert (constant.verdict, constant.seeds) == (FAILS, (0, 1, 2))
    apart = judged(tmp_path, falls())  # without the condition every lambda is a series of its own
    assert sorted(len(j.seeds) for j in apart) == [0, 0, 0, 3]
    assert {"loss.l2=0.001" in j.where for j in apart} == {True, False}
    (wrong,) = judged(tmp_path, falls({"loss.l2": {"times": "model.blocks", "is": 0.004}}))
    assert wrong.reason == "no finished run with loss.l2 × model.blocks=0.004"


def test_everything_else_must_agree_within_a_series(tmp_path):
    write_series(tmp_path, (2, 5))
    write_series(tmp_path, (13, 34), optimizer={"name": "sgd", "lr": 0.01})
    two = judged(tmp_path, falls())
    assert [(j.verdict, j.seeds) for j in two] == [(NOT_ENOUGH, ())] * 2
    assert {j.reason for j in two} == {
        "a slope takes at least 3 values, there is model.blocks=2|5",
        "a slope takes at least 3 values, there is model.blocks=13|34",
    }


def test_networks_without_blocks_stand_nowhere_in_the_series(tmp_path):
    write_series(tmp_path)
    write_run(tmp_path)  # an MLP
    assert only(tmp_path, {"etf.name": "none"}).seeds == (0, 1, 2)
    with pytest.raises(AnalysisError, match=r"along etf\.name takes numbers above 0, got none in"):
        judged(tmp_path, claim("at_most", "nc1_last", {"model.name": "rn"}, along="etf.name"))


def test_depths_one_by_one_without_along(tmp_path):
    write_series(tmp_path, (2, 5), noise=0.0, over_depth=True)
    target = claim("at_most", "nc2_etf_minus_orthogonal", {"model.name": "rn"})
    assert [j.seeds for j in judged(tmp_path, target)] == [(0, 1, 2)] * 2
    accuracy = claim("every_seed_at_least", "train_accuracy", OVER_DEPTH, threshold=90.0)
    assert [j.verdict for j in judged(tmp_path, accuracy)] == [HOLDS, HOLDS]


# What does not count


def test_a_seed_that_lacks_a_depth_does_not_count(tmp_path):
    write_series(tmp_path, seeds=range(4))
    write_series(tmp_path, (2, 5, 8, 13), seeds=(4,), slope=5.0)  # and it would have spoken against the claim
    j = only(tmp_path)
    assert (j.verdict, j.seeds) == (NOT_ENOUGH, (4,))
    assert j.note == "model.blocks: no number at 8 with seed 0, 1, 2, 3"


def test_a_depth_that_diverged_keeps_the_claim_from_holding(tmp_path):
    write_series(tmp_path, (2, 5, 13, 34))
    write_series(tmp_path, (2, 5, 13), seeds=(3,))
    assert only(tmp_path).verdict == HOLDS  # not trained yet, as any unfinished run
    diverge_at(tmp_path, 34, 3)
    j = only(tmp_path)
    assert (j.verdict, j.seeds) == (NOT_ENOUGH, (0, 1, 2))
    assert "but training diverged with seed 3: leaving it out would flatter" in j.reason
    assert j.note == "training diverged at model.blocks=34 with seed 3"
    write_depth_run(tmp_path, 34, 3, noise=0.01, tracker={"entity": "b"})  # trained again, and finished
    assert only(tmp_path).seeds == (0, 1, 2, 3)


def test_a_depth_that_diverged_with_every_seed_is_not_forgotten(tmp_path):
    write_series(tmp_path, (2, 5, 13))
    for seed in range(3):
        diverge_at(tmp_path, 34, seed)
    j = only(tmp_path)
    assert (j.verdict, j.seeds, j.estimate) == (NOT_ENOUGH, (), None)
    assert j.reason == "training diverged with seed 0, 1, 2"
    assert j.where.endswith("model.blocks=2|5|13|34")


@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_a_number_without_a_logarithm_keeps_the_claim_from_holding(tmp_path, value):
    write_series(tmp_path)
    for blocks in (2, 5, 13):
        write_depth_run(tmp_path, blocks, 3, end={"nc1_trace_ratio": value} if blocks == 13 else None)
    j = only(tmp_path)
    assert (j.verdict, j.seeds) == (NOT_ENOUGH, (0, 1, 2))
    assert "but nc1_last is undefined with seed 3: leaving it out would flatter" in j.reason
    assert j.note == f"model.blocks: {'not positive' if value == 0 else 'undefined'} at 13 with seed 3"
    assert only(tmp_path, None, "nc3_last").seeds == (0, 1, 2, 3)


def test_twins_undo_the_verdict_and_the_same_run_counts_once(tmp_path):
    write_series(tmp_path, noise=0.0)
    write_depth_run(tmp_path, 5, 0, experiment="copy")
    assert only(tmp_path).seeds == (0, 1, 2)
    write_depth_run(tmp_path, 5, 1, slope=-0.3, experiment="other")
    j = only(tmp_path)
    assert j.verdict == NOT_ENOUGH
    assert j.reason.startswith("seed 1 is there twice with different nc1_last: ")


def test_a_broken_run_takes_its_seed_with_it(tmp_path):
    write_series(tmp_path, seeds=range(4))
    broken = next(tmp_path.glob("depth_rn1/L5-s2-*/metrics.csv"))
    broken.unlink()
    j = only(tmp_path)
    assert (j.verdict, j.seeds) == (HOLDS, (0, 1, 3))
    assert str(broken) in j.note
    assert len(j.broken) == 1


# The ledger of the depth study


@pytest.fixture
def study(tmp_path):
    """A series of every variant of arXiv 2505.15239, as its figures have them."""
    depths = (2, 13, 34)
    how = {"noise": 0.003, "seeds": (0, 1, 2)}
    for name, model, loss in (
        ("depth_rn1", RN1, CE),
        ("depth_t11", T11, CE),
        ("depth_rn1_mse_bias", RN1, MSE | {"l2_skip": "head_bias"}),
    ):
        write_series(tmp_path, depths, model=model, loss=loss, experiment=name, **how)
    text = {"name": "imdb", "train_size": None, "length": 256}
    write_series(tmp_path, depths, model=T11 | {"norm": "pre"}, experiment="depth_t11_text", dataset=text, **how)
    write_series(tmp_path, depths, model=RN2, experiment="depth_rn2", over_depth=True, **how)
    constant = CE | {"l2": 0.0025}
    # At two blocks the same configuration as a run above, with other bits: told apart by the experiment's name.
    write_series(tmp_path, depths, model=RN2, loss=constant, slope=0.0, experiment="depth_rn2_constant", **how)
    for blocks in depths:
        for seed in range(3):
            end = {"nc2_weight_gram": 0.4 + 0.01 * seed, "nc2_weight_orthogonal": (0.1 + 0.001 * seed) * blocks**-0.3}
            write_depth_run(
                tmp_path,
                blocks,
                seed,
                model=RN1 | {"head_bias": False},
                loss=MSE,
                experiment="mse",
                end=end,
                noise=0.003,
            )
    return tmp_path


def test_every_claim_of_the_depth_study_finds_its_runs(study):
    ledger = load_ledger(LEDGER)
    judgements = judged(study, *ledger)
    assert len(ledger) == 34
    found = {j.claim.id for j in judgements if j.seeds == (0, 1, 2)}
    assert found == {one.id for one in ledger}
    for j in judgements:
        if j.claim.along and j.seeds and j.claim.statistic.name != "nc2_orthogonal_last":
            assert j.verdict == HOLDS, (j.claim.id, j.where, j.reason)
        if j.claim.id == "mse_target_is_orthogonal":
            assert j.verdict == HOLDS, j.reason
        if j.claim.id.endswith("_classifies") and j.seeds:
            assert j.verdict == HOLDS
        if j.claim.id.endswith("_is_stationary") and j.seeds:
            assert (j.verdict, j.claim.threshold) == (HOLDS, 5.0)


def test_the_depth_studys_ledger_names_keys_that_its_runs_have(study):
    keys = {key for run in load_runs([study]) for key in run.settings}
    for one in load_ledger(LEDGER):
        assert {*one.named, *one.per, *filter(None, [one.along])} <= keys, one.id


def test_what_falls_and_what_stays_meet_at_one_bound():
    ledger = {one.id: one for one in load_ledger(LEDGER)}
    for name in ("rn1", "t11", "t11_text", "rn2"):
        for nc in ("nc1", "nc3") if name == "t11_text" else ("nc1", "nc2", "nc3"):
            one, other = ledger[f"{name}_{nc}_falls"], ledger[f"rn2_constant_{nc}_stays"]
            assert (one.kind, other.kind) == ("at_most", "at_least")
            assert one.threshold == other.threshold == -0.1
            assert one.statistic.name == other.statistic.name == f"{nc}_last"
        assert ledger[f"{name}_classifies"].treatment == ledger[f"{name}_nc1_falls"].treatment
    assert "1.26" in ledger["rn1_nc1_falls"].why
    assert pytest.approx(1.26, abs=0.005) == 10**0.1
    assert pytest.approx(1.33, abs=0.005) == 17**0.1
    assert line({2: 1.0, 20: 1 / 10**0.1, 200: 1 / 10**0.2})[0] == pytest.approx(-0.1)


def test_every_control_has_the_runs_of_its_claims():
    ledger = {one.id: one for one in load_ledger(LEDGER)}
    for name in ("rn1", "t11", "t11_text", "rn2", "rn2_constant", "rn1_mse"):
        classifies, rests = ledger[f"{name}_classifies"], ledger[f"{name}_is_stationary"]
        assert classifies.treatment == rests.treatment
        assert classifies.commands == rests.commands
    assert not [name for name in ledger if name.startswith("t11_text") and ("nc2" in name or "target" in name)]


def test_a_network_that_still_learns_does_not_rest(tmp_path):
    write_series(tmp_path, change=0.06)
    one = next(one for one in load_ledger(LEDGER) if one.id == "rn1_is_stationary")
    assert [j.verdict for j in judged(tmp_path, one)] == [FAILS] * 3


def test_the_number_and_the_argument_of_the_bound_stand_once():
    text = LEDGER.read_text()
    assert text.count("-0.1 decades") == text.count("by 1.26") == 1


def test_the_report_is_of_the_ledgers_paper(study):
    ledger, runs = load_ledger(LEDGER), load_runs([study])
    report = make_report(judge(ledger, runs), runs, title=ledger.title, paper=ledger.paper)
    pages = write_report(report, study / "report")
    for page in pages:
        text = page.read_text()
        assert "Collapse tightens with depth" in text
        assert "2505.15239" in text
        assert "2412.00884" not in text
        assert "Simplex ETFs</em>" not in text
        assert "slope along model.blocks, at most -0.1 decades per decade" in text
        assert "make depth ARGS=depth_rn DATASET=mnist EPOCHS=100" in text.replace("\\_", "_")
    assert "+0." in pages[1].read_text()  # slopes carry their sign


def test_every_command_of_the_report_makes_runs_of_the_setting(study):
    plan, known = Plan(ROOT / "conf", "depth"), load_plan(ROOT / "conf" / "plan" / "depth.yaml")
    default = re.search(r"^PROFILE \?= (\w+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    resolved = {}
    for j in judged(study, *load_ledger(LEDGER)):
        (command,) = commands(j.claim, j.run, known)
        make, target, *words = shlex.split(command)
        assert (make, target) == ("make", "depth")
        words = dict(word.split("=", 1) for word in words)
        part, profile, epochs = words.pop("ARGS"), words.pop("PROFILE", default), words.pop("EPOCHS")
        dataset = words.pop("DATASET", None)
        assert not words
        assert known.parts[part] in plan.profiles[profile]
        key = (part, profile, dataset, epochs)
        if key not in resolved:
            datasets = dataset and [dataset]
            resolved[key] = plan.resolve([part], profile, datasets, overrides=[f"epochs={epochs}"])[0].configs
        settings = j.run.settings
        same = [
            config
            for config in resolved[key]
            if config.dataset.name == settings["dataset.name"]
            and config.model.name == settings["model.name"]
            and (j.claim.along or config.model.blocks == settings["model.blocks"])
            and config.loss.name == settings["loss.name"]
        ]
        assert same, command
    assert {part for part, *_ in resolved} == {"depth_rn", "depth_mse", "depth_t11", "depth_text"}
    assert {dataset for part, _, dataset, _ in resolved if part == "depth_text"} == {None}  # the size says imdb


# The command


def run_script(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["claims.py", *map(str, arguments)])
    runpy.run_path(str(ROOT / "scripts" / "claims.py"), run_name="__main__")


def test_the_plan_of_the_ledger_names_the_profile_of_the_commands(tmp_path, monkeypatch, capsys):
    write_series(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    text = LEDGER.read_text()
    (tmp_path / "paper.yaml").write_text(text.replace("plan: depth", "plan: paper"))
    run_script(monkeypatch, "runs", "--ledger", "paper.yaml", "--out", "report")
    assert "no plan" not in capsys.readouterr().err
    (tmp_path / "absent.yaml").write_text(text.replace("plan: depth", "plan: absent"))
    run_script(monkeypatch, "runs", "--ledger", "absent.yaml", "--out", "report")
    printed = capsys.readouterr()
    assert "no plan absent: the commands name no profile; there are: " in printed.err
    assert "rn1_nc1_falls" in printed.out
    report = (tmp_path / "report" / "report.md").read_text()
    assert "make depth ARGS=depth_rn DATASET=mnist EPOCHS=100" in report.replace("\\_", "_")


def test_a_profile_is_named_though_the_series_goes_over_its_depths(tmp_path):
    write_series(tmp_path)
    (j,) = judged(tmp_path, falls(commands=("make depth",)))
    profiles = {
        "cpu": {"rn": {"epochs": [100], "model.width": [64], "model.blocks": [99]}},
        "paper": {"rn": {"model.width": [8]}},
    }
    assert commands(j.claim, j.run, PlanSizes(profiles)) == ["make depth DATASET=mnist EPOCHS=100 PROFILE=cpu"]
