"""What each classifier costs and reaches: parameters, memory, accuracy, epochs (arXiv 2105.02375, 2411.01248)."""

import pandas as pd

from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.labels import dataset_label
from nclab.analysis.runs import Run
from nclab.analysis.statistics import test_accuracy, train_accuracy
from nclab.analysis.tables import median_and_range
from nclab.papers.etf_networks.arms import NEEDED, arms
from nclab.papers.etf_networks.numbers import activations, epochs_to_train_99, learnable_parameters, training_state


@DRAWINGS.table("etf_networks_table", of="networks below learnt, fixed and nearest classifiers: parameters, memory, "
                "accuracy, epochs", needs=NEEDED)  # fmt: skip
def costs(runs: list[Run], policies: list[str] | None = None) -> tuple[pd.DataFrame, None]:
    """A row a dataset and arm: learnable parameters; MiB of weights, gradients and optimizer state, and of what a
    forward pass keeps; median [least, greatest] over seeds of train and test accuracy in percent and of the epochs to
    99 % train accuracy, among them runs that never get there as one more than they have; how many get there; seeds."""
    rows = []
    for dataset in dict.fromkeys(dataset_label(run.config) for run in runs):
        for name, group in arms([run for run in runs if dataset_label(run.config) == dataset]).items():
            epochs = [epochs_to_train_99(run, run) for run in group]
            rows.append(
                {
                    "dataset": dataset,
                    "classifier": name,
                    "parameters": int(learnable_parameters(group[0], group[0])),
                    "state_mib": round(training_state(group[0], group[0]), 3),
                    "activations_mib": round(activations(group[0]), 2),
                    "train_accuracy": median_and_range([train_accuracy(run, run) for run in group]),
                    "test_accuracy": median_and_range([test_accuracy(run, run) for run in group]),
                    "epochs_to_99": median_and_range(epochs, 0),
                    "seeds_there": sum(e <= run.config["epochs"] for e, run in zip(epochs, group, strict=True)),
                    "seeds": len(group),
                }
            )
    return pd.DataFrame(rows), None
