"""The ledger of arXiv 2505.15239: every claim finds its runs, and its report and commands are of that paper."""

import shlex

import pytest
from fake_depth_runs import CE, MSE, RN1, RN2, T11, write_depth_run, write_series
from fake_runs import judged

from nclab.analysis.claims import judge
from nclab.analysis.commands import commands
from nclab.analysis.ledger import load_ledger
from nclab.analysis.report import make_report, write_report
from nclab.analysis.runs import load_runs
from nclab.analysis.trend import line
from nclab.analysis.verdict import FAILS, HOLDS
from nclab.config.plan import Plan
from nclab.papers.wings import find_wing

WING = find_wing("depth")
LEDGER = WING.ledger


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
        if j.claim.along and j.seeds and j.claim.statistic.name != "nc2_weight_orthogonal_last":
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
    columns = {"nc1": "nc1_trace_ratio", "nc2": "nc2_weight_gram", "nc3": "nc3_cosine"}
    for name in ("rn1", "t11", "t11_text", "rn2"):
        for nc in ("nc1", "nc3") if name == "t11_text" else ("nc1", "nc2", "nc3"):
            one, other = ledger[f"{name}_{nc}_falls"], ledger[f"rn2_constant_{nc}_stays"]
            assert (one.kind, other.kind) == ("at_most", "at_least")
            assert one.threshold == other.threshold == -0.1
            assert one.statistic.name == other.statistic.name == f"{columns[nc]}_last"
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
    *pages, _ = write_report(report, study / "report")
    for page in pages:
        text = page.read_text()
        assert "Collapse tightens with depth" in text
        assert "2505.15239" in text
        assert "2412.00884" not in text
        assert "Simplex ETFs</em>" not in text
        assert "slope along model.blocks, at most -0.1 decades per decade" in text
        assert "nclab-paper run depth --part depth_rn --dataset mnist --epochs 100" in text.replace("\\_", "_")
    assert "+0." in pages[1].read_text()  # slopes carry their sign


def test_every_command_of_the_report_makes_runs_of_the_setting(study):
    plan = Plan(WING.conf, "depth")
    resolved = {}
    for j in judged(study, *load_ledger(LEDGER)):
        (command,) = commands(j.claim, j.run)
        name, action, wing, *words = shlex.split(command)
        assert (name, action, wing) == ("nclab-paper", "run", "depth")
        words = dict(zip(words[::2], words[1::2], strict=True))
        assert list(words) == ["--part", "--dataset", "--epochs"]  # these runs record no profile
        key = tuple(words.values())
        if key not in resolved:
            part, dataset, epochs = key
            resolved[key] = plan.resolve([part], "paper", [dataset], overrides=[f"epochs={epochs}"])[0].configs
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
