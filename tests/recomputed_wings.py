"""The numbers that only the claims of one paper are about, by their definitions. Part of the judge of recomputed.py."""

import math

import numpy as np
from recomputed_runs import STATISTICS, Statistic, accuracy, before_etf, last, read_by_classifier, stages

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
