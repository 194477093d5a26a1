"""The statistics of this paper's own claims, by runs whose numbers are written by hand."""

import math

import pytest
from fake_runs import ADAPTIVE, BASELINE, edit, judged, last, write_run

from nclab.analysis.found import load_registered
from nclab.analysis.ledger import load_ledger
from nclab.analysis.runs import load_runs
from nclab.analysis.statistics import STATISTICS, statistic
from nclab.papers.wings import find_wing

load_registered()


def with_ncc(folder, values):
    """The run with these train NCC accuracies after its last epoch, fc1 to fc5."""
    rows = [f"20,train,fc{i},ncc_accuracy,{value}" for i, value in enumerate(values, 1)]
    (folder / "metrics.csv").write_text("\n".join(["epoch,split,layer,metric,value", *rows, ""]))
    (run,) = load_runs([folder])
    return run


@pytest.mark.parametrize(
    ("k", "values", "above"),
    [
        (3, (0.7, 0.95, 0.90, 0.92, 0.99), 3.0),  # the best of fc3 and fc4; not fc5, the classifier
        (3, (0.7, 0.90, 0.95, 0.92, 0.99), -5.0),
        (2, (0.7, 0.90, 0.95, 0.92, 0.99), 3.0),
        (1, (0.7, 0.90, 0.95, 0.92, 0.99), math.nan),  # no hidden layer is fixed
        (5, (0.7, 0.90, 0.95, 0.92, 0.99), math.nan),  # none before them is learnable
        (3, (0.7, 0.95, math.nan, 0.92, 0.99), math.nan),
    ],
)
def test_the_last_learnable_layer_against_the_fixed_ones_behind_it(tmp_path, k, values, above):
    run = with_ncc(write_run(tmp_path, last(k)), values)
    assert STATISTICS["ncc_above_fixed"].value(run, run) == pytest.approx(above, nan_ok=True)


def test_a_baseline_is_read_at_the_stages_of_the_treated_run(tmp_path):
    treated = with_ncc(write_run(tmp_path, last(3)), (0.7, 0.95, 0.90, 0.92, 0.99))
    baseline = with_ncc(write_run(tmp_path, BASELINE), (0.7, 0.80, 0.90, 0.95, 0.99))
    assert STATISTICS["ncc_above_fixed"].value(baseline, treated) == pytest.approx(-15.0)


def test_a_statistic_registered_twice_is_refused():
    with pytest.raises(ValueError, match="statistic 'ncc_above_fixed' is registered twice"):

        @statistic("points")
        def ncc_above_fixed(run, treated):
            """Taken."""


def late(tmp_path, *fix, **settings):
    (run,) = load_runs([write_run(tmp_path, ADAPTIVE | settings, fix=fix)])
    return run


@pytest.mark.parametrize(
    ("fix", "as_many", "the_same"),
    [
        ([(6, "fc5"), (7, "fc4")], True, True),
        ([(6, "fc5"), (8, "fc4")], True, False),  # at another epoch
        ([(6, "fc5"), (7, "fc3")], True, False),  # another layer
        ([(6, "fc5")], False, False),
    ],
)
def test_accuracies_that_count_only_where_the_same_was_fixed(tmp_path, fix, as_many, the_same):
    treated = late(tmp_path, (6, "fc5"), (7, "fc4"))
    control = late(tmp_path, *fix, kind="frozen_scaled")
    edit(control.path, test=0.875)
    for name, counts in (("with_as_many_fixed", as_many), ("with_the_same_fixed", the_same)):
        value = STATISTICS[f"test_accuracy_{name}"].value
        assert value(control, treated) == pytest.approx(87.5 if counts else math.nan, nan_ok=True)
        assert value(treated, treated) == pytest.approx(90.0)


def test_a_clock_is_compared_where_it_fixed_as_many_layers(tmp_path):
    clock = {"name": "clock", "kind": "etf", "frame": "nearest", "order": "deepest_first"}
    one_by_one = [(6, "fc5"), (7, "fc4"), (8, "fc3")]
    for seed in range(3):
        write_run(tmp_path, ADAPTIVE, seed, fix=[(6, "fc5"), (9 + seed, "fc4")])
        for k in (1, 2, 3):
            write_run(tmp_path, clock | {"k": k}, seed, fix=one_by_one[:k])
    one = next(one for one in load_ledger(find_wing("simplex_etf").ledger) if one.id == "adaptive_beats_clock")
    (found,) = (j for j in judged(tmp_path, one) if j.run)
    assert (found.setting["baseline etf.k"], found.seeds) == (2, (0, 1, 2))
    assert found.note == "no seed counts with 2 other baselines"
