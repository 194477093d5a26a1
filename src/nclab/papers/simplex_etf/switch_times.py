"""Who decides when layers become fixed, the measured NCC or the clock: numbers of runs of etf=adaptive."""

import math

from nclab.analysis.runs import Run
from nclab.analysis.statistics import statistic


def first_chances(run: Run) -> list[int]:
    """The epochs at which the keys of etf=adaptive allow a switch, whatever is measured: measured ones from `start` on,
    once `patience` can have passed, `pause` apart, and before the last epoch. Empty of other policies."""
    keys = run.settings
    if keys.get("etf.patience") is None or not (every := keys.get("metrics.every")):
        return []
    epochs = run.config["epochs"]
    earliest = max(keys.get("etf.start") or max(1, epochs // 3), every + keys["etf.patience"] - 1)
    chances: list[int] = []
    for epoch in range(every, epochs, every):
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
        return float(run.config["epochs"] - chances[0])
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
