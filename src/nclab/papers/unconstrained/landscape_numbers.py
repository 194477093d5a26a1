"""The numbers that the claims on one layer are about (Zhu et al. 2021)."""

import math

from nclab.analysis.last_layer import at_end, classifier_input
from nclab.analysis.runs import Run
from nclab.analysis.statistics import statistic
from nclab.papers.unconstrained.setting import gap, network


@statistic("objective", measured=True)
def optimum_gap(run: Run, treated: Run) -> float:
    """Distance of the objective after the last step from the closed-form global minimum of one layer, |J - J*|; of a
    fixed classifier J holds its l2/2 |W|^2 too."""
    return abs(float(gap(run).get(run.end, math.nan)))


def of_last_layer(metric: str, name: str, unit: str, of: str) -> None:
    """Register the value of a metric of the classifier's input after the last step."""

    def value(run: Run, treated: Run) -> float:
        return float(at_end(run).get((classifier_input(run), metric), math.nan))

    value.__name__ = name
    value.__doc__ = f"{of} ({metric}), train split, after the last step."
    statistic(unit, measured=True)(value)


of_last_layer("nc1", "free_nc1_last", "ratio", "Within-class variability NC1 of the free features")
of_last_layer("nc2_gram", "free_nc2_last", "distance", "Distance NC2 of the class means from a simplex ETF")
of_last_layer("nc3", "free_nc3_last", "distance", "Distance NC3 between the classifier and the class means")


@statistic("gradient", measured=True)
def saddle_gradient(run: Run, treated: Run) -> float:
    """Length of the gradient at the start (gradient_norm), over all parameters."""
    return float(network(run, "gradient_norm").get(0, math.nan))


@statistic("curvature", measured=True)
def saddle_curvature(run: Run, treated: Run) -> float:
    """Least eigenvalue of the Hessian at the start (hessian_least)."""
    return float(network(run, "hessian_least").get(0, math.nan))


@statistic("curvature", measured=True)
def end_curvature(run: Run, treated: Run) -> float:
    """Least eigenvalue of the Hessian after the last step (hessian_least)."""
    return float(network(run, "hessian_least").get(run.end, math.nan))
