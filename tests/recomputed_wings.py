"""The numbers that only the claims of one paper are about, by their definitions. Part of the judge of recomputed.py."""

import math

import numpy as np
from recomputed_runs import STATISTICS, Statistic, accuracy, before_etf, last, read_by_classifier, stages
from scipy.optimize import brentq

# arXiv 2412.00884


def last_ncc(run):
    ncc = run.column("ncc_accuracy")
    return [ncc.get((run.end, name), math.nan) for name in stages(run)]


def where_fixed(same):
    """The test accuracy, where run and treated run are the same in what was fixed."""

    def value(run, treated):
        return accuracy("test")(run, treated) if same(run) == same(treated) else math.nan

    return Statistic(value, "test", measured=False, by_errors=True)


def ncc_above_fixed(run, treated):
    hidden = [layer["layer"] for layer in treated.layers if layer["stage"] and layer["role"] != "classifier"]
    learnable = before_etf(treated)
    fixed = hidden[len(learnable) :]
    if not learnable or not fixed:
        return math.nan
    at = {layer: value for (epoch, layer), value in run.column("ncc_accuracy").items() if epoch == run.end}
    return 100 * (at.get(learnable[-1], math.nan) - max(at.get(name, math.nan) for name in fixed))


def chances(run):
    """The epochs at which the keys of etf=adaptive allow a switch, whatever is measured."""
    keys = run.settings
    every, patience = keys.get("metrics.every"), keys.get("etf.patience")
    if patience is None or not every:
        return []
    found = []
    for epoch in range(1, run.end):
        measured = epoch % every == 0
        settled = epoch >= every + patience - 1 and epoch >= (keys.get("etf.start") or max(1, run.end // 3))
        if measured and settled and (not found or epoch >= found[-1] + keys.get("etf.pause", 1)):
            found.append(epoch)
    return found


def switched(run):
    """When each stage that was fixed while training was complete, in order."""
    at = {event["site"]: event["epoch"] for event in run.events if event["event"] == "switch" and event["epoch"]}
    whole = [[at[site] for site in layer["stage"] or () if site in at] for layer in run.layers]
    return sorted(max(epochs) for epochs in whole if epochs)


def switch_delay(run, treated):
    allowed, done = chances(run), switched(run)
    if not allowed:
        return math.nan
    if not done:
        return run.end - allowed[0]
    if run.settings.get("etf.order") == "at_once":
        return max(done) - allowed[0]
    return max(epoch - allowed[i] for i, epoch in enumerate(done))


def layers_kept_learnable(run, treated):
    if not chances(run):
        return math.nan
    due = len([layer for layer in run.layers if layer["stage"]]) - 1 - (run.settings.get("etf.maps") == "hidden")
    if run.settings.get("etf.order") != "at_once":
        due = min(due, len(chances(run)))
    return due - len(switched(run))


STATISTICS |= {
    "test_accuracy_with_as_many_fixed": where_fixed(lambda run: len(run.fixed)),
    "test_accuracy_with_the_same_fixed": where_fixed(
        lambda run: {(event["site"], event["epoch"]) for event in run.events if event["event"] == "switch"}
    ),
    "tolerance_for_one_layer": Statistic(lambda run, _: 100 * (1 - min(last_ncc(run)[-2:]))),
    "ncc_above_fixed": Statistic(ncc_above_fixed),
    "switch_delay": Statistic(switch_delay),
    "layers_kept_learnable": Statistic(layers_kept_learnable),
}

# Networks with fixed and nearest classifiers: arXiv 2105.02375, 2411.01248


def fitted(run):
    """The epochs, from 1 on, at whose end 99 % of the train split is right."""
    accuracy = run.column("accuracy")
    return [epoch for (epoch, layer), value in accuracy.items() if layer == "network" and epoch and value >= 0.99]


def epochs_to_train_99(run, treated):
    if own := fitted(run):
        return min(own)
    return math.nan if run is not treated and not fitted(treated) else run.settings["epochs"] + 1


def training_state(run, treated):
    parts = ("weights_learnable", "weights_fixed", "gradients", "optimizer")
    return sum(run.summary[f"memory.{part}_bytes"] for part in parts) / 1024**2


STATISTICS |= {
    "epochs_to_train_99": Statistic(epochs_to_train_99),
    "learnable_parameters": Statistic(lambda run, _: run.summary["parameters_learnable"], measured=False),
    "training_state": Statistic(training_state, measured=False),
}

# The terminal phase: Papyan, Han, Donoho 2020 and what followed


def in_phase(run, metric, split="train", network=False):
    """{epoch: value} from the first measured epoch of 100 % train accuracy on; where none is in the first three
    quarters of training, of 99.6 %."""
    accuracy = {epoch: value for (epoch, layer), value in run.column("accuracy").items() if layer == "network"}
    full, nearly = (
        min((epoch for epoch, value in accuracy.items() if epoch > 0 and value >= level), default=math.inf)
        for level in (1.0, 0.996)
    )
    start = full if full <= 0.75 * run.end else nearly
    where = "network" if network else read_by_classifier(run)
    column = run.column(metric, split)
    return {epoch: value for (epoch, layer), value in sorted(column.items()) if layer == where and epoch >= start}


def slope(points):
    if len(points) < 3 or not all(0 < value < math.inf for value in points.values()):
        return math.nan
    return float(np.polyfit(np.log10([*points]), np.log10([*points.values()]), 1)[0])


def tpt_test_accuracy_change(run, treated):
    values = [*in_phase(run, "accuracy", "test", network=True).values()]
    return 100 * (values[-1] - values[0]) if len(values) > 1 else math.nan


def tpt_off_central_path(run, treated):
    away, loss = in_phase(run, "central_path_distance"), in_phase(run, "least_squares_loss")
    return max((away[epoch] / loss[epoch] for epoch in away), default=math.nan)


def max_margin_slope(run, treated):
    where = read_by_classifier(run)
    column = run.column("max_margin_distance")
    late = {t: value for (t, layer), value in sorted(column.items()) if layer == where and t >= 0.01 * run.end}
    return slope({math.log(t): value for t, value in late.items()})


def ending(metric, factor=1.0):
    return Statistic(lambda run, _: factor * last(metric)(run, None))


STATISTICS |= {
    **{
        f"tpt_slope_{metric}": Statistic(lambda run, _, metric=metric: slope(in_phase(run, metric)))
        for metric in (
            "nc1",
            "nc3",
            *(f"nc2{of}_{what}" for of in ("", "_weight") for what in ("equinorm", "equiangular")),
        )
    },
    "tpt_test_accuracy_change": Statistic(tpt_test_accuracy_change),
    "tpt_off_central_path": Statistic(tpt_off_central_path),
    "max_margin_slope": Statistic(max_margin_slope),
    "nc4_mismatch_last": ending("nc4_mismatch", 100.0),
    "last_nc2_equiangular": ending("nc2_equiangular"),
    "last_nc3": ending("nc3"),
    "max_margin_distance_last": ending("max_margin_distance"),
}

# Regression collapse: Andriopoulos et al. 2024


def matrix(run, name, epoch):
    """The symmetric matrix of which metrics.csv holds the upper triangle."""
    n = 1
    while run.column(f"{name}_{n + 1}_{n + 1}"):
        n += 1
    entries = {(i, j): run.column(f"{name}_{i}_{j}") for i in range(1, n + 1) for j in range(i, n + 1)}
    at = {place: next(v for (t, _), v in column.items() if t == epoch) for place, column in entries.items()}
    return np.array([[at[min(i, j), max(i, j)] for j in range(1, n + 1)] for i in range(1, n + 1)])


def root_of(s):
    u, values, _ = np.linalg.svd(s)  # of a covariance: its eigenvectors
    return u @ np.diag(np.sqrt(values)) @ u.T


def nrc3_at(gram, s, root_g):
    away = root_of(s) - root_g * np.eye(len(s))
    return np.sum((gram / np.linalg.norm(gram) - away / np.linalg.norm(away)) ** 2)


def root_of_best_g(run):
    """Where the cosine between W W^T and S^(1/2) - r I no longer rises with r, found by bisection."""
    gram, s = matrix(run, "weight_gram", run.end), matrix(run, "target_covariance", run.end)
    if len(s) == 1:
        return math.nan
    root, n = root_of(s), len(s)
    gram = gram / np.linalg.norm(gram)

    def slope_at(r):
        away = root - r * np.eye(n)
        return np.sum(gram * away) * np.trace(away) - np.trace(gram) * np.sum(away**2)

    low, high = 0.0, math.sqrt(np.linalg.svd(s)[1][-1])
    if slope_at(low) <= 0 or slope_at(high) >= 0:
        return low if slope_at(low) <= 0 else high
    return brentq(slope_at, low, high, xtol=1e-15, rtol=1e-14)


def of_regression(metric):
    """{epoch: value} of the head's input."""

    def curve(run):
        where = read_by_classifier(run)
        epochs = sorted(epoch for epoch, layer in run.column("nrc1") if layer == where)
        if metric == "nrc3":
            s, root_g = matrix(run, "target_covariance", run.end), root_of_best_g(run)
            return {t: nrc3_at(matrix(run, "weight_gram", t), s, root_g) for t in (0, run.end)}
        if metric == "unexplained_variance":
            n = len(matrix(run, "target_covariance", run.end))
            return {
                t: 1 - sum(run.column(f"explained_variance_{i}")[t, where] for i in range(1, n + 1)) for t in epochs
            }
        return {t: run.column(metric)[t, where] for t in epochs}

    return curve


def regression_last(curve):
    return lambda run, _: max(curve(run)[run.end], 1e-12)


def regression_fall(curve):
    return lambda run, _: math.log10(max(curve(run)[0], 1e-12)) - math.log10(max(curve(run)[run.end], 1e-12))


def r2(split):
    return lambda run, _: 100 * run.column("r2", split).get((run.end, "network"), math.nan)


def agreeing(gap):
    return -math.log10(max(gap, 1e-12))


def closed_form(run):
    """S, W W^T, objective, rank, c and sqrt(lambda_H/lambda_W) of the minimum with unconstrained features."""
    s, keys = matrix(run, "target_covariance", run.end), run.settings
    l_w = keys["loss.l2"]
    l_h = keys["dataset.samples"] * (l_w if keys.get("loss.l2_features") is None else keys["loss.l2_features"])
    c, ratio = l_h * l_w, math.sqrt(l_h / l_w)
    u, values, _ = np.linalg.svd(s)
    gram = sum(
        (ratio * max(math.sqrt(v) - math.sqrt(c), 0.0) * np.outer(w, w) for v, w in zip(values, u.T, strict=True)),
        np.zeros_like(s),
    )
    loss = sum(math.sqrt(v * c) - c / 2 if v > c else v / 2 for v in values)
    return s, gram, loss, sum(v > c for v in values), c, ratio


def ufm_loss_digits(run, treated):
    loss = run.column("loss")[run.end, "network"] + run.column("l2_penalty")[run.end, "network"]
    least = closed_form(run)[2]
    return agreeing(abs(loss / least - 1))


def ufm_gram_digits(run, treated):
    s, gram, *_, ratio = closed_form(run)
    away = np.sqrt(np.sum((matrix(run, "weight_gram", run.end) - gram) ** 2))
    return agreeing(away / (ratio * np.sqrt(np.trace(s))))


def ufm_rank(run, treated):
    s, *_, ratio = closed_form(run)
    sizes = np.linalg.svd(matrix(run, "weight_gram", run.end))[1]
    return float(np.sum(sizes > 1e-6 * ratio * np.sqrt(np.linalg.norm(s, 2))))


def ufm_g_digits(run, treated):
    s, *_, c, _ = closed_form(run)
    return agreeing(abs(root_of_best_g(run) ** 2 / c - 1)) if c < np.linalg.svd(s)[1][-1] else math.nan


for _metric in ("nrc1", "nrc2", "nrc3", "unexplained_variance"):
    STATISTICS[f"{_metric}_last"] = Statistic(regression_last(of_regression(_metric)))
    STATISTICS[f"{_metric}_fall"] = Statistic(regression_fall(of_regression(_metric)))
STATISTICS |= {
    "train_r2": Statistic(r2("train")),
    "test_r2": Statistic(r2("test")),
    "ufm_loss_digits": Statistic(ufm_loss_digits),
    "ufm_gram_digits": Statistic(ufm_gram_digits),
    "ufm_g_digits": Statistic(ufm_g_digits),
    "ufm_rank": Statistic(ufm_rank),
    "ufm_rank_gap": Statistic(lambda run, _: abs(ufm_rank(run, _) - closed_form(run)[3])),
}
