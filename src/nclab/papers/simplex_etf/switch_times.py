"""When layers become fixed while training, and what it costs: who decides, the measured NCC or the clock, and the table
of accuracies around every switch."""

import math

import pandas as pd

from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.labels import policy_order
from nclab.analysis.needs import Needs
from nclab.analysis.runs import AnalysisError, Run, choose, differences
from nclab.analysis.statistics import statistic

LATE = r"Adaptive-ETF|.* at switch|.* by the clock"  # policies that fix layers while training
# Column -> the key of a switch's event. `refreshed`: with batch-norm statistics of the weights as they are then.
# Without them a fall is largely that of statistics which belong to the old layer.
AROUND = {
    "before": "{}_accuracy_before",
    "after": "{}_accuracy_after",
    "before_refreshed": "{}_accuracy_before_refreshed",
    "after_refreshed": "{}_accuracy_after_refreshed",
}


def first_chances(run: Run) -> list[int]:
    """The epochs at which the keys of etf=adaptive allow a switch, whatever is measured: measured ones from `start` on,
    once `patience` can have passed, `pause` apart, and before the last epoch. Empty of other policies."""
    keys = run.settings
    if keys.get("etf.patience") is None or not (every := keys.get("metrics.every")):
        return []
    epochs = run.config["epochs"]
    earliest = max(keys.get("etf.start") or max(1, epochs // 3), every + keys["etf.patience"] - 1)
    chances: list[int] = []
    for epoch in range(every, run.end, every):
        if epoch >= earliest and (not chances or epoch - chances[-1] >= keys.get("etf.pause", 1)):
            chances.append(epoch)
    return chances


def switch_epochs(run: Run) -> list[int]:
    """The epoch of each stage that was fixed while training, earliest first; of a stage, that of its last layer."""
    fixed = {site: epoch for site, epoch in run.switches if epoch}
    stages = [layer["stage"] for layer in run.layers if layer["stage"] is not None]
    return sorted(max(fixed[site] for site in stage if site in fixed) for stage in stages if fixed.keys() & {*stage})


@statistic("epochs", measured=True)
def switch_delay(run: Run, treated: Run) -> float:
    """Longest delay of a switch of Adaptive-ETF behind its first chance, in epochs: 0 where its keys alone say when.

    The chances are the measured epochs from etf.start on, once etf.patience can have passed and etf.pause apart; with
    etf.order=at_once all layers have the first. A run that fixed nothing waited until the end. nan of other policies.
    """
    chances, done = first_chances(run), switch_epochs(run)
    if not chances:
        return math.nan
    if not done:
        return float(run.end - chances[0])
    at_once = run.settings.get("etf.order") == "at_once"
    return float(max(epoch - chances[0 if at_once else i] for i, epoch in enumerate(done)))


@statistic("layers", measured=True)
def layers_kept_learnable(run: Run, treated: Run) -> float:
    """Stages after the first that Adaptive-ETF left learnable though a clock with the same keys would have fixed them:
    0 where its keys alone say how many. nan of other policies.
    """
    if not (chances := first_chances(run)):
        return math.nan
    after_first = len([stage for stage in run.layers if stage["stage"]]) - 1
    within = after_first - (run.settings.get("etf.maps") == "hidden")
    due = within if run.settings.get("etf.order") == "at_once" else min(within, len(chances))
    return float(due - len(switch_epochs(run)))


@DRAWINGS.table(
    "switches",
    of="networks whose layers became fixed while training: accuracy before, after and one epoch after every switch",
    needs=Needs("networks whose layers became fixed while training", policies=LATE),
)
def switch_table(runs: list[Run], policies: list[str] | None = None) -> tuple[pd.DataFrame, None]:
    """A row a policy (and whatever else the runs differ in), layer and split, mean and std over the seeds in which the
    layer became fixed while training.

    Columns: seeds, first and last epoch of the switch, accuracy before, just after (both also with refreshed batch-norm
    statistics) and one epoch after it. Raises AnalysisError where no layer became fixed while training.
    """
    runs = choose(runs, policies) if policies else runs
    by = list(differences(runs))
    rows = []
    for run in sorted(runs, key=lambda run: (policy_order(run.policy), [str(run.settings.get(name)) for name in by])):
        settled = {event["site"]: event for event in run.events if event.get("event") == "switch_settled"}
        for event in run.events:
            if event.get("event") != "switch" or not event["epoch"]:
                continue
            for split in ("train", "test"):
                row = {name: str(run.settings.get(name, "-")) for name in by}
                row |= {"policy": run.policy, "layer": event["layer"], "split": split, "epoch": event["epoch"]}
                row |= {name: event.get(key.format(split), math.nan) for name, key in AROUND.items()}
                rows.append(row | {"epoch_later": settled.get(event["site"], {}).get(f"{split}_accuracy", math.nan)})
    if not rows:
        raise AnalysisError(f"in none of {len(runs)} runs a layer became fixed while training")
    table = pd.DataFrame(rows)
    groups = table.groupby([*by, "policy", "layer", "split"], sort=False)
    epochs = groups["epoch"].agg(seeds="count", first_epoch="min", last_epoch="max")
    values = groups[[*AROUND, "epoch_later"]].agg(["mean", "std"])
    values.columns = [name if kind == "mean" else f"{name}_std" for name, kind in values.columns]
    return epochs.join(values).reset_index(), None
