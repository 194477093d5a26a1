"""`nclab-runs show RUN`: the curves of a run as lines of text."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from nclab.analysis.runs import AnalysisError
from nclab.runs.diff import one_run
from nclab.runs.table import aligned

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 32  # letters of a curve
SHOWN = ("loss", "accuracy", "ncc_accuracy", "nc1", "nc2_gram", "nc3")
DECADE = 10.0  # a curve of positive numbers that spans more is drawn by their logarithm


def curve(values: Sequence[float]) -> tuple[str, str]:
    """The values as bars of eight heights between their least and largest, and the scale, `log` or empty. At most WIDTH
    of them, evenly spaced, the last one always; a space where a value is not finite.

    >>> curve([1, 2, 3, 4, 5, 6, 7, 8])
    ('▁▂▃▄▅▆▇█', '')
    >>> curve([1, 10, 100, float("nan"), 1])
    ('▁▄█ ▁', 'log')
    """
    if len(values) > WIDTH:
        values = [values[round(i * (len(values) - 1) / (WIDTH - 1))] for i in range(WIDTH)]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return " " * len(values), ""
    log = min(finite) > 0 and max(finite) / min(finite) > DECADE
    heights = [math.log(value) if log and math.isfinite(value) else value for value in values]
    low, high = (f(value for value in heights if math.isfinite(value)) for f in (min, max))
    step = (len(BARS) - 1) / (high - low) if high > low else 0.0
    bars = (BARS[int((height - low) * step + 1e-9)] if math.isfinite(height) else " " for height in heights)
    return "".join(bars), "log" if log else ""


def text(folder: Path, metrics: Sequence[str] = (), split: str | None = None) -> str:
    """A row a curve, in the order of metrics.csv; by default SHOWN, of those that the run has. Raises AnalysisError for
    a folder that is no run, and for a metric or split that the run has not."""
    run = one_run(folder)
    frame = run.metrics
    there, splits = list(dict.fromkeys(frame["metric"])), list(dict.fromkeys(frame["split"]))
    for kind, came, valid in (("metric", metrics, there), ("split", (split,) if split else (), splits)):
        for name in came:
            if name not in valid:
                raise AnalysisError(f"{run.path.name} has no {kind} '{name}'; valid: {', '.join(valid) or 'none yet'}")
    wanted = [name for name in metrics or SHOWN if name in there]
    rows = []
    for name in wanted:
        of_name = frame[(frame["metric"] == name) & ((frame["split"] == split) | (split is None))]
        for (part, layer), rest in of_name.groupby(["split", "layer"], observed=True, sort=False):
            values = rest["value"].tolist()
            bars, scale = curve(values)
            rows.append([name, part, layer, f"{values[0]:.4g}", bars, f"{values[-1]:.4g}", scale])
    epochs = f"epochs {frame['epoch'].min()} to {frame['epoch'].max()}" if len(frame) else "nothing measured yet"
    table = aligned(["metric", "split", "layer", "first", "curve", "last", "scale"], rows)
    lines = [f"{run.path}  {epochs}", "", table]
    numbers = frame[(frame["split"] == (split or "train")) & frame["value"].notna()]
    drawn = [name for name in wanted if (numbers["metric"] == name).any()]
    if run.finished and drawn:  # nclab-draw refuses others
        words = ["nclab-draw", "curves", str(run.path), "--metric", ",".join(drawn)]
        lines += ["", f"as a picture: {shlex.join([*words, *(['--split', split] if split else [])])}"]
    return "\n".join(lines)
