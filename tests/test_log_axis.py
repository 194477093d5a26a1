"""Numbers on logarithmic axes."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from nclab.analysis.log_axis import log_axis


def labels(low, high):
    """The labels inside a y axis from low to high, with their places."""
    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    log_axis(axes, low, high)
    figure.draw_without_rendering()
    places = zip(axes.yaxis.get_majorticklocs(), axes.yaxis.get_majorticklabels(), strict=True)
    assert not any(label.get_text() for label in axes.yaxis.get_minorticklabels())
    return {float(place): label.get_text() for place, label in places if low <= place <= high}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1e-3, 1.0, ["0.001", "0.01", "0.1", "1"]),
        (0.02, 0.5, ["0.02", "0.05", "0.1", "0.2", "0.5"]),
        (0.62, 0.84, ["0.65", "0.7", "0.75", "0.8"]),
        (70.0, 130.0, ["80", "100", "120"]),
        (1e-9, 1e-3, [f"$\\mathdefault{{10^{{{e}}}}}$" for e in range(-9, -2)]),
    ],
)
def test_the_numbers_depend_on_the_decades(low, high, expected):
    assert list(labels(low, high).values()) == expected


@pytest.mark.parametrize("low", [3e-13, 1e-6, 7e-3, 0.13, 4.0, 900.0])
def test_any_axis_has_two_to_ten_numbers(low):
    for decades in np.linspace(0.02, 14, 120):
        found = labels(low, low * 10**decades)
        assert 2 <= len(found) <= 10, (low, decades, found)
        assert all(found.values())
