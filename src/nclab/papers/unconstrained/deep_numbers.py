"""The numbers that the claims on deep free features are about (Sukenik et al. 2024, Garrod and Keating 2024)."""

from nclab.analysis.runs import Run
from nclab.analysis.statistics import statistic
from nclab.papers.unconstrained.setting import at_collapse, collapse, final_objective, hidden_rank, penalties, sizes
from nclab.theory import deep
from nclab.theory.regular_graph import classes_of

LEAST_GRAPH, MOST_GRAPH = 4, 7  # r of the claims


@statistic("ratio", measured=True)
def objective_over_dnc(run: Run, treated: Run) -> float:
    """Objective after the last step over the least objective of collapse in all layers (DNC) in closed form; below 1
    where training has found something better than collapse."""
    return final_objective(run) / collapse(run).objective


@statistic("directions", measured=True, positive=True)
def free_rank(run: Run, treated: Run) -> float:
    """Least rank of the class means over the free features and the layers up to the last nonlinearity (up to the
    classifier's input where there is none), after the last step: singular values above 1 % of the largest."""
    return hidden_rank(run)


@statistic("share", measured=True)
def ends_at_dnc(run: Run, treated: Run) -> float:
    """1 where the run ends at collapse in all layers (DNC), its objective within 1 % of it and no layer of lower rank;
    0 elsewhere."""
    return float(at_collapse(run))


def graph_ratio(run: Run, vertices: int, depth: int) -> float:
    """Least objective of the strongly regular graph over that of DNC, squared error, at this run's lambda and samples
    of a class, for r = `vertices` and that depth."""
    per_class, decay = sizes(run)[1], penalties(run)[0]
    graph = deep.regular_graph(vertices, per_class, depth).least(decay).objective
    return graph / deep.collapsed(classes_of(vertices), per_class, depth, "mse", relu=True).least(decay).objective


@statistic("ratio")
def graph_over_dnc_deep(run: Run, treated: Run) -> float:
    """Largest L_SRG / L_DNC over r = 4 to 7 (6 to 21 classes) and 4 and 5 layers, from closed forms at the lambda and
    the number of samples of the run."""
    return max(graph_ratio(run, r, depth) for depth in (4, 5) for r in range(LEAST_GRAPH, MOST_GRAPH + 1))


@statistic("ratio")
def graph_over_dnc_three(run: Run, treated: Run) -> float:
    """Least L_SRG / L_DNC over r = 3 to 7 (3 to 21 classes) of 3 layers, from closed forms as above."""
    return min(graph_ratio(run, r, 3) for r in range(3, MOST_GRAPH + 1))
