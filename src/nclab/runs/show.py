"""`nclab-runs show RUN`: the curves of a run as lines of text, or as a picture."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nclab.analysis.drawing import as_png
from nclab.analysis.metric_curves import SHOWN, drawable, metric_curves
from nclab.analysis.runs import AnalysisError, Run
from nclab.runs.diff import one_run
from nclab.runs.table import aligned

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 32  # letters of a curve
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


@dataclass(frozen=True)
class Chosen:
    """What is shown of a run."""

    run: Run
    metrics: list[str]
    split: str | None  # None: all

    @property
    def drawn(self) -> tuple[str, ...]:
        """The metrics that a picture of one split can show."""
        return drawable(self.run, self.metrics, self.of_picture)

    @property
    def of_picture(self) -> str:
        return self.split or "train"


def chosen(folder: Path, metrics: Sequence[str] = (), split: str | None = None) -> Chosen:
    """These metrics of a run, by default SHOWN, of those that it has. Raises AnalysisError for a folder that is no run,
    and for a metric or split that the run has not."""
    run = one_run(folder)
    there, splits = (list(dict.fromkeys(run.metrics[column])) for column in ("metric", "split"))
    for kind, came, valid in (("metric", metrics, there), ("split", (split,) if split else (), splits)):
        for name in came:
            if name not in valid:
                raise AnalysisError(f"{run.path.name} has no {kind} '{name}'; valid: {', '.join(valid) or 'none yet'}")
    return Chosen(run, [name for name in metrics or SHOWN if name in there], split)


def picture(folder: Path, file: Path, metrics: Sequence[str] = (), split: str | None = None) -> str:
    """Draw the curves of a run, finished or not, into a PNG file, as `nclab-draw curves` does; returns what to say of
    it. Raises AnalysisError as `chosen`, and for a file of another ending; OSError."""
    if file.suffix != ".png":
        raise AnalysisError(f"--png: expected a file that ends in .png, got {file}")
    what = chosen(folder, metrics, split)
    if not what.drawn:
        raise AnalysisError(f"{what.run.path.name} has no curve of split {what.of_picture} to draw yet")
    figure, _ = metric_curves([what.run], metric=what.drawn, split=what.of_picture)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(as_png(figure))
    return f"{file}: {', '.join(what.drawn)} of split {what.of_picture}"


def text(folder: Path, metrics: Sequence[str] = (), split: str | None = None) -> str:
    """A row a curve, in the order of metrics.csv. Raises AnalysisError as `chosen`."""
    what = chosen(folder, metrics, split)
    run, frame = what.run, what.run.metrics
    rows = []
    for name in what.metrics:
        of_name = frame[(frame["metric"] == name) & ((frame["split"] == split) | (split is None))]
        for (part, layer), rest in of_name.groupby(["split", "layer"], observed=True, sort=False):
            values = rest["value"].tolist()
            bars, scale = curve(values)
            rows.append([name, part, layer, f"{values[0]:.4g}", bars, f"{values[-1]:.4g}", scale])
    epochs = f"epochs {frame['epoch'].min()} to {frame['epoch'].max()}" if len(frame) else "nothing measured yet"
    table = aligned(["metric", "split", "layer", "first", "curve", "last", "scale"], rows)
    lines = [f"{run.path}  {epochs}", "", table]
    if run.finished and what.drawn and not run.trial:  # nclab-draw refuses others
        words = ["nclab-draw", "curves", str(run.path), "--metric", ",".join(what.drawn)]
        lines += ["", f"as a picture: {shlex.join([*words, *(['--split', split] if split else [])])}"]
    return "\n".join(lines)
