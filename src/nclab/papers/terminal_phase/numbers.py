"""The numbers that this paper's claims are about. The terminal phase (TPT) is that of `phase.terminal_phase`."""

import math

from nclab.analysis.curves import NETWORK
from nclab.analysis.last_layer import series
from nclab.analysis.runs import Run
from nclab.analysis.statistics import statistic
from nclab.analysis.trend import UNIT
from nclab.papers.terminal_phase.phase import in_phase, slope

EARLY = 0.01  # share of the steps after which the direction is judged


def falls(metric: str, of: str) -> None:
    """Register the statistic `tpt_slope_<metric>`."""

    def value(run: Run, treated: Run) -> float:
        return slope(in_phase(run, metric).to_dict())

    value.__name__ = f"tpt_slope_{metric}"
    value.__doc__ = (
        f"Slope of log10({metric}) on log10(epoch) in the terminal phase of training; {of}. Train split, classifier's "
        "input, least squares over the measured epochs."
    )
    statistic(UNIT, measured=True)(value)


for _metric, _of in {
    "nc1": "tr(Sigma_W Sigma_B^+) / C",
    "nc2_equinorm": "spread of the norms of the centred class means",
    "nc2_weight_equinorm": "spread of the norms of the rows of W",
    "nc2_equiangular": "distance of the class means from the maximal angle",
    "nc2_weight_equiangular": "distance of the rows of W from the maximal angle",
    "nc3": "|| W/||W|| - M/||M|| ||",
}.items():
    falls(_metric, _of)


@statistic("points", measured=True)
def tpt_test_accuracy_change(run: Run, treated: Run) -> float:
    """Test accuracy after the last epoch minus that at the first epoch of the terminal phase, in percent."""
    values = in_phase(run, "accuracy", "test", NETWORK)
    return float(100.0 * (values.iloc[-1] - values.iloc[0])) if len(values) > 1 else math.nan


@statistic("share", measured=True)
def tpt_off_central_path(run: Run, treated: Run) -> float:
    """Largest central_path_distance / least_squares_loss, L_perp / L_LS, over the measured epochs of the terminal
    phase."""
    ratio = in_phase(run, "central_path_distance") / in_phase(run, "least_squares_loss")
    return float(ratio.max()) if len(ratio) else math.nan


@statistic("points", measured=True)
def nc4_mismatch_last(run: Run, treated: Run) -> float:
    """Share of train samples for which the network decides otherwise than the nearest class mean (nc4_mismatch), after
    the last epoch, in percent."""
    return float(100.0 * series(run, "nc4_mismatch").get(run.end, math.nan))


@statistic("distance", measured=True)
def last_nc2_equiangular(run: Run, treated: Run) -> float:
    """Distance of the class means from the maximal angle (nc2_equiangular) after the last epoch."""
    return float(series(run, "nc2_equiangular").get(run.end, math.nan))


@statistic("distance", measured=True)
def last_nc3(run: Run, treated: Run) -> float:
    """Self-duality (nc3), || W/||W|| - M/||M|| ||, after the last epoch."""
    return float(series(run, "nc3").get(run.end, math.nan))


@statistic(UNIT, measured=True)
def max_margin_slope(run: Run, treated: Run) -> float:
    """Slope of log10(max_margin_distance) on log10(log t), t the steps of full-batch gradient descent, from a hundredth
    of all steps on; -1 where the distance falls like 1 / log t."""
    values = series(run, "max_margin_distance")
    late = values[values.index >= EARLY * run.end]
    return slope({math.log(t): value for t, value in late.items()})


@statistic("distance", measured=True)
def max_margin_distance_last(run: Run, treated: Run) -> float:
    """Distance between the directions of the classifier and of the max-margin solution, || W/||W|| - V/||V|| ||, after
    the last step."""
    return float(series(run, "max_margin_distance").get(run.end, math.nan))
