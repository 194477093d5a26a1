"""The numbers that the claims on forgetting are about (arXiv 2512.07400), by their definitions. Part of the judge of
recomputed.py."""

import math

from recomputed_runs import Statistic, read_by_classifier
from recomputed_wings import STATISTICS


def accuracies(run, metric):
    """{(after, task): accuracy}: both counted from 1, on the test samples of `task` at the end of task `after`."""
    count = run.settings["phases.count"]
    found = {}
    for task in range(1, count + 1):
        column = run.column(metric, f"task{task}")
        for (epoch, layer), value in column.items():
            if layer == ("network" if metric == "accuracy" else read_by_classifier(run)):
                found[epoch * count / run.settings["epochs"], task] = value
    return found, count


def forgetting(metric, of_baseline=1.0):
    def value(run, treated):
        found, last = accuracies(run, metric)
        lost = [found[task, task] - found[last, task] for task in range(1, last)]
        return 100 * sum(lost) / len(lost) * (of_baseline if run is not treated else 1)

    return value


def final(metric):
    def value(run, treated):
        found, last = accuracies(run, metric)
        return 100 * sum(found[last, task] for task in range(1, last + 1)) / last

    return value


def least_train_accuracy(run, treated):
    count, column = run.settings["phases.count"], run.column("present_accuracy")
    return 100 * min(column[run.settings["epochs"] // count * (i + 1), "network"] for i in range(count))


def at_end(run, metric):
    return run.column(metric)[run.settings["epochs"], read_by_classifier(run)]


def ratio(run, treated):
    held = at_end(run, "memory_nc1")
    return at_end(run, "control_nc1") / held if held > 0 else math.nan


def inflation(run, treated):
    control = at_end(run, "control_norm_ratio")
    return 100 * (at_end(run, "memory_norm_ratio") - control) / control if control > 0 else math.nan


def decades(value):
    def log(run, treated):
        number = value(run, treated)
        return math.log10(number) if number > 0 else math.nan

    return log


A, A_STAR = "accuracy", "seen_probe_accuracy"
STATISTICS |= {
    "shallow_forgetting": Statistic(forgetting(A)),
    "deep_forgetting": Statistic(forgetting(A_STAR)),
    "shallow_beyond_deep": Statistic(lambda *given: forgetting(A)(*given) - forgetting(A_STAR)(*given)),
    "shallow_forgetting_to_half": Statistic(forgetting(A, 0.5)),
    "deep_forgetting_to_half": Statistic(forgetting(A_STAR, 0.5)),
    "final_accuracy": Statistic(final(A)),
    "final_probe_accuracy": Statistic(final(A_STAR)),
    "least_train_accuracy": Statistic(least_train_accuracy),
    "control_nc1_over_buffer": Statistic(ratio),
    "buffer_collapse": Statistic(decades(ratio)),
    "buffer_inflation": Statistic(inflation),
    "last_log_snr": Statistic(decades(lambda run, _: at_end(run, "past_snr"))),
}
