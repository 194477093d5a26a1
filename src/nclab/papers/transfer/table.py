"""Where trainings end, setting by setting: complexity, collapse, transfer."""

import numpy as np
import pandas as pd

from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.labels import dataset_label
from nclab.analysis.runs import Run
from nclab.analysis.statistics import STATISTICS
from nclab.analysis.tables import median_and_range
from nclab.papers.transfer.numbers import is_matched
from nclab.papers.transfer.settings import NEEDED, name_of, settings_of, splits_of

COLUMNS = {  # statistic -> digits
    "last_running_loss": 3,
    "last_train_loss": 3,
    "source_complexity": 2,
    "source_geometric_collapse": 4,
    "source_cdnv": 3,
    "target_cdnv": 3,
    "few_shot_1": 1,
    "few_shot_5": 1,
    "target_linear": 1,
    "test_accuracy": 1,
}


@DRAWINGS.table("transfer_table", of="networks on source classes: complexity, collapse, transfer by setting",
                needs=NEEDED)  # fmt: skip
def ends(runs: list[Run], policies: list[str] | None = None) -> tuple[pd.DataFrame, None]:
    """A row a dataset and setting: medians [least, greatest] over class splits and seeds, of the runs that are at their
    loss (`at_loss` of them); epochs, both losses and test accuracy of all."""
    rows = []
    for dataset in dict.fromkeys(dataset_label(run.config) for run in runs):
        for at, group in settings_of([run for run in runs if dataset_label(run.config) == dataset]).items():
            columns = {name: [STATISTICS[name].value(run, run) for run in group] for name in COLUMNS}
            own = {name: _where_known(values, COLUMNS[name]) for name, values in columns.items()}
            epochs = median_and_range([run.end for run in group], 0)
            seeds = len({run.seed for run in group})
            rows.append(
                {"dataset": dataset, "setting": name_of(at), "epochs": epochs}
                | own
                | {"at_loss": sum(map(is_matched, group)), "splits": len(splits_of(group)), "seeds": seeds}
            )
    return pd.DataFrame(rows), None


def _where_known(values: list[float], digits: int) -> str:
    """'98.1 [97.9, 98.3]' of those that are numbers; a dash where none is."""
    there = [value for value in values if np.isfinite(value)]
    return median_and_range(there, digits) if there else "–"
