"""The nearest simplex ETF on free features: real runs in small, their numbers, figure, table and ledger."""

import numpy as np
import pytest
from conftest import composed
from run_folders import rows

from nclab.analysis import load_runs
from nclab.analysis.claims import judge
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.found import load_registered
from nclab.analysis.ledger import load_ledger
from nclab.analysis.runs import AnalysisError
from nclab.analysis.statistics import STATISTICS
from nclab.analysis.tables import readable
from nclab.papers.wings import find_wing
from nclab.run.execute import train

LEDGER = find_wing("unconstrained").ledger
ARMS = {
    "nearest ETF": ("optimizer.lr=1000",),
    "nearest ETF, constant": ("optimizer.lr=1000", "etf.gradient=false"),
    "nearest ETF, no bias": ("optimizer.lr=1000", "etf.bias=false"),
    "fixed ETF": ("optimizer.lr=1000", "etf=last_k", "etf.bias=false"),
    "learnt": ("optimizer.lr=100", "etf=none"),
    "learnt, penalised": ("optimizer.lr=10", "etf=none", "loss.l2=0.0187", "loss.l2_features=0"),
}
SMALL = ("experiment=unconstrained/nearest_etf", "dataset.per_class=4", "model.dim=16", "epochs=12", "threads=1")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two seeds of every classifier, and the nearest one at a rate that is too low."""
    root = tmp_path_factory.mktemp("study")
    more = [("optimizer.lr=0.01",)]
    for keys in (*ARMS.values(), *more):
        for seed in (0, 1):
            train(composed(*SMALL, *keys, f"seed={seed}", f"output_root={root}", "checkpoint_seconds=1000"))
    return root


def column(run, metric, layer):
    return {r[0]: r[4] for r in rows(run.path) if r[1:4] == ("train", layer, metric)}


def test_numbers_are_those_of_the_logs(study):
    load_ledger(LEDGER)
    for run in load_runs([study]):
        accuracy, nc1 = column(run, "accuracy", "network"), column(run, "nc1", "scaled")
        expected = {
            "steps_to_train_accuracy": min((e for e, value in accuracy.items() if value == 1), default=13),
            "steps_to_collapse": min((e for e, value in nc1.items() if value <= 0.01), default=13),
            "steps_to_trace_collapse": min(
                (e for e, value in column(run, "nc1_trace_ratio", "scaled").items() if value <= 1), default=13
            ),
            "last_log_nc1_trace_ratio": np.log10(column(run, "nc1_trace_ratio", "scaled")[12]),
            "last_log_nc1": np.log10(nc1[12]),
            "last_log_nc3": np.log10(column(run, "nc3", "scaled")[12]),
            "last_cosine_margin": column(run, "cosine_margin_min", "scaled")[12],
        }
        for name, value in expected.items():
            assert STATISTICS[name].value(run, run) == pytest.approx(value), name


def test_the_figure_draws_each_classifier_at_its_best_rate(study):
    load_registered()
    figure, table = DRAWINGS["nearest_etf"].make(load_runs([study]))
    rates = table.groupby("arm", sort=False).lr.unique().map(list)
    assert dict(rates) == {
        "learnt": [100],
        "learnt, penalised": [10],
        "fixed ETF": [1000],
        "nearest ETF": [1000],
        "nearest ETF, constant": [1000],
        "nearest ETF, no bias": [1000],
    }
    assert set(table.n) == {2}
    runs = [run for run in load_runs([study]) if run.policy == "nearest ETF" and run.config["optimizer"]["lr"] == 1000]
    nc1 = [column(run, "nc1", "scaled")[12] for run in runs]
    drawn = table[(table.arm == "nearest ETF") & (table.step == 12)].set_index("metric")
    assert drawn.value["nc1"] == pytest.approx(np.sqrt(np.prod(nc1)))
    assert (drawn.low["nc1"], drawn.high["nc1"]) == pytest.approx((min(nc1), max(nc1)))
    assert drawn.value["spread_nc1"] == pytest.approx(np.log10(nc1).std(ddof=1))
    ratio = [column(run, "nc1_trace_ratio", "scaled")[12] for run in runs]
    assert drawn.value["nc1_trace_ratio"] == pytest.approx(np.sqrt(np.prod(ratio)))
    assert drawn.value["spread_trace_ratio"] == pytest.approx(np.log10(ratio).std(ddof=1))
    assert len(figure.axes) == 8
    said = DRAWINGS["nearest_etf"].says(table)
    assert list(said["arm"]) == list(rates.index)


def test_the_table_of_rates_has_a_row_a_rate(study):
    load_registered()
    table, _ = DRAWINGS["nearest_rates"].make(load_runs([study]))
    assert list(zip(table.classifier, table.lr, strict=True)) == [
        ("learnt", 100),
        ("learnt, penalised", 10),
        ("fixed ETF", 1000),
        ("nearest ETF", 0.01),
        ("nearest ETF", 1000),
        ("nearest ETF, constant", 1000),
        ("nearest ETF, no bias", 1000),
    ]
    by = table.set_index(["classifier", "lr"])
    assert by.nc1_last["nearest ETF", 1000] < 0.1 * by.nc1_last["nearest ETF", 0.01]
    assert by.seeds_there["nearest ETF", 1000] == 2
    assert by.seeds_there["nearest ETF", 0.01] == 0
    assert readable(table).steps_to_accuracy[3] == "-"  # nan of pandas is no text


def test_other_classifiers_are_refused(study, tmp_path):
    load_registered()
    train(composed(*SMALL, "etf.gradient=false", "etf.bias=false", f"output_root={tmp_path / 'both'}"))
    with pytest.raises(AnalysisError, match="neither gradient nor bias"):
        DRAWINGS["nearest_etf"].make(load_runs([tmp_path / "both"]))
    train(composed(*SMALL, "etf=last_k", "etf.kind=orthogonal", "optimizer.lr=1", f"output_root={tmp_path}"))
    with pytest.raises(AnalysisError, match="expected etf none, last_k or nearest, got last_k"):
        DRAWINGS["nearest_etf"].make(load_runs([tmp_path]))


def test_every_claim_on_the_nearest_etf_finds_its_runs(study, tmp_path):
    for keys in (
        ("optimizer.lr=10000",),
        (*ARMS["fixed ETF"][1:], "optimizer.lr=10000"),
        ("etf=none", "optimizer.lr=1000"),
    ):
        for seed in (0, 1):
            train(composed(*SMALL, *keys, f"seed={seed}", f"output_root={tmp_path}", "checkpoint_seconds=1000"))
    claims = [claim for claim in load_ledger(LEDGER) if claim.id.startswith("nearest_")]
    judgements = judge(claims, load_runs([study, tmp_path]))
    assert len({j.claim.id for j in judgements}) == 23
    assert all(j.seeds == (0, 1) for j in judgements), [j.claim.id for j in judgements if j.seeds != (0, 1)]
