"""How columns are drawn, and where errors of 0 stand on a log axis."""

import numpy as np
import pytest
from fake_runs import BASELINE, edit, write_run

from nclab.analysis import load_runs
from nclab.analysis.columns import floor_of, kind_of, log_limits
from nclab.analysis.panels import epoch_ticks


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("distance", "nc1 nc1_trace_ratio cdnv nc2_gram nc2_weight_equinorm nc3 nc3_cosine nc5 dnc3_gram loss ece nll"),
        ("distance", "past_nc1 memory_nc2_equinorm memory_nc3 control_nc1"),
        ("distance", "classifier_bias_collapse gnc2 least_squares_loss central_path_distance l2_penalty objective"),
        ("share", "accuracy ncc_accuracy linear_probe_accuracy knn_accuracy seen_probe_accuracy"),
        ("error", "nc4_mismatch"),
        ("linear", "rank subspace_alignment effective_rank stable_rank effective_depth learnable_parameters r2"),
        ("linear", "past_snr past_snr_in_span past_mean_in_span memory_norm_ratio control_norm_ratio seen_rank"),
    ],
)
def test_kinds(kind, names):
    assert {name: kind_of(name) for name in names.split()} == dict.fromkeys(names.split(), kind)


def test_the_floor_is_half_of_the_smallest_error_that_could_be(tmp_path):
    for seed in range(3):
        write_run(tmp_path, seed=seed, dataset={"name": "digits", "train_size": 500})
    runs = load_runs([tmp_path])
    floor, told = floor_of(runs, "train", [0.1, 1 / 1500, 0.0])
    assert floor == pytest.approx(1 / 3000)  # one error of one seed is 1/1500 of a mean of three
    assert told == "1/(2n), n = 500 train samples × 3 seeds"
    assert floor_of(runs[:1], "train", [0.1]) == (1 / 1000, "1/(2n), n = 500 train samples")


def test_the_floor_lies_below_every_error_that_is_there(tmp_path):
    """Accuracies in summary.json reveal a divisor of n alone: 0.9 is nine of ten."""
    for accuracy, errors in ((0.9, [0.03]), (1.0, [0.03])):
        run = load_runs([edit(write_run(tmp_path / f"{accuracy}", BASELINE), test=accuracy)])
        assert floor_of(run, "test", [*errors, 0.0, np.nan]) == (0.015, "half of the smallest test error")


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([3e-6, 0.9], (2e-6, 1.0)),
        ([0.1, 1.0], (0.1, 1.0)),
        ([0.2], (0.1, 0.4)),
        ([np.nan, 0.0], (0.1, 1.0)),
        ([4, 70], (2, 100)),
    ],
)
def test_log_axes_end_at_1_2_or_5_outside_the_values(values, ends):
    assert log_limits(np.array(values, float)) == ends


@pytest.mark.parametrize("last", [1, 2, 3, 7, 15, 17, 20, 23, 30, 45, 60, 97, 400])
def test_ticks_begin_at_0_and_end_where_the_axis_ends(last):
    ticks = epoch_ticks(last)
    assert ticks[0] == 0
    assert ticks[-1] == last
    assert ticks == sorted(set(ticks))
    assert 2 <= len(ticks) <= 6
