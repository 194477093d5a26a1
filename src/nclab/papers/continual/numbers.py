"""The numbers that claims on forgetting are about (arXiv 2512.07400). Torch-free."""

import math

from nclab.analysis.curves import NETWORK
from nclab.analysis.runs import Run
from nclab.analysis.statistics import statistic
from nclab.papers.continual.tasks import HEADS, PROBE, at_task_ends, final, forgetting, matrix


@statistic("points", measured=True)
def shallow_forgetting(run: Run, treated: Run) -> float:
    """Mean over all tasks but the last of the network's test accuracy on it at its end, minus that at the end of the
    run, in points."""
    return forgetting(matrix(run, HEADS))


@statistic("points", measured=True)
def deep_forgetting(run: Run, treated: Run) -> float:
    """The same of the linear probe, which is fitted anew at the end of every task to all tasks seen, in points."""
    return forgetting(matrix(run, PROBE))


@statistic("points", measured=True)
def shallow_beyond_deep(run: Run, treated: Run) -> float:
    """Shallow minus deep forgetting, in points: what the head forgets and the features do not."""
    return shallow_forgetting(run, treated) - deep_forgetting(run, treated)


@statistic("points", measured=True)
def shallow_forgetting_to_half(run: Run, treated: Run) -> float:
    """Shallow forgetting, of a baseline half of it, in points."""
    return shallow_forgetting(run, treated) / (1 if run.path == treated.path else 2)


@statistic("points", measured=True)
def deep_forgetting_to_half(run: Run, treated: Run) -> float:
    """Deep forgetting, of a baseline half of it, in points."""
    return deep_forgetting(run, treated) / (1 if run.path == treated.path else 2)


@statistic("points", measured=True)
def final_accuracy(run: Run, treated: Run) -> float:
    """Test accuracy of the network after the last task, mean over all tasks, in percent."""
    return final(matrix(run, HEADS))


@statistic("points", measured=True)
def final_probe_accuracy(run: Run, treated: Run) -> float:
    """The same of the linear probe, in percent."""
    return final(matrix(run, PROBE))


@statistic("points", measured=True)
def least_train_accuracy(run: Run, treated: Run) -> float:
    """The lowest over tasks of the train accuracy on a task at its end, in percent."""
    return 100 * float(at_task_ends(run, "present_accuracy", layer=NETWORK).min())


@statistic("ratio", measured=True, positive=True)
def control_nc1_over_buffer(run: Run, treated: Run) -> float:
    """NC1 (nc1) of as many train samples of earlier tasks outside the buffer over that of those in it, at the end; 1 of
    a random buffer without training on it. nan where too few are outside, or it has no variability.

    Not that of all samples: NC1 of few is lower, and their class means are longer, without any training."""
    control, held = (_last(run, f"{of}_nc1") for of in ("control", "memory"))
    return control / held if held > 0 else math.nan


@statistic("decades", measured=True)
def buffer_collapse(run: Run, treated: Run) -> float:
    """log10 of `control_nc1_over_buffer`: how much further the buffer has collapsed than as many samples outside it."""
    ratio = control_nc1_over_buffer(run, treated)
    return math.log10(ratio) if ratio > 0 else math.nan


@statistic("%", measured=True)
def buffer_inflation(run: Run, treated: Run) -> float:
    """How much longer the centred class means of the buffer are than those of as many samples of earlier tasks outside
    it, at the end, in percent: 100 (memory_norm_ratio / control_norm_ratio - 1)."""
    held, control = (_last(run, f"{of}_norm_ratio") for of in ("memory", "control"))
    return 100 * (held / control - 1) if control > 0 else math.nan


@statistic("decades", measured=True)
def last_log_snr(run: Run, treated: Run) -> float:
    """log10 of the mean over pairs of earlier classes of |mu_1 - mu_2|^2 / tr(Sigma_1 + Sigma_2) (past_snr), at the
    end."""
    value = _last(run, "past_snr")
    return math.log10(value) if value > 0 else math.nan


def _last(run: Run, metric: str) -> float:
    """Of the classifier's input, at the end of the last task."""
    return float(at_task_ends(run, metric).iloc[-1])
