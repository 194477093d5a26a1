"""Numbers that only the claims of arXiv 2412.00884 are about."""

import math

from nclab.analysis.runs import Run
from nclab.analysis.statistics import layers_before_etf, statistic, test_accuracy, train_ncc


@statistic("points", measured=True)
def ncc_above_fixed(run: Run, treated: Run) -> float:
    """Train NCC accuracy, in percent after the last epoch, of the last learnable stage before the fixed ones, minus the
    best of the fixed hidden stages behind it; positive where separation is lost in the fixed layers.

    The classifier is left out: what it separates is what it is trained for. In a baseline the stages are those of the
    treated run. nan where no hidden stage is fixed, or none before them is learnable.
    """
    hidden = [layer["layer"] for layer in treated.layers if layer["stage"] and layer["role"] != "classifier"]
    learnable = layers_before_etf(treated)
    behind = hidden[len(learnable) :]
    if not learnable or not behind:
        return math.nan
    end = train_ncc(run, [learnable[-1], *behind]).reindex([run.end]).iloc[0]
    return float(end.iloc[0] - end.iloc[1:].max(skipna=False))


@statistic("points", split="test", by_errors=True)
def test_accuracy_with_as_many_fixed(run: Run, treated: Run) -> float:
    """Accuracy on the test split after the last epoch, in percent; left out where run and treated run did not fix the
    same number of layers, as accuracies would then differ by that too.
    """
    as_many = len({site for site, _ in run.switches}) == len({site for site, _ in treated.switches})
    return test_accuracy(run, treated) if as_many else math.nan


@statistic("points", split="test", by_errors=True)
def test_accuracy_with_the_same_fixed(run: Run, treated: Run) -> float:
    """Accuracy on the test split after the last epoch, in percent; left out where run and treated run did not fix the
    same layers after the same epochs, as accuracies would then differ by that too.
    """
    return test_accuracy(run, treated) if run.switches == treated.switches else math.nan
