"""The statistics of this paper's own claims, by runs whose numbers are written by hand."""

import math

import pytest
from fake_runs import BASELINE, last, write_run

from nclab.analysis.found import load_registered
from nclab.analysis.runs import load_runs
from nclab.analysis.statistics import STATISTICS, statistic

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
