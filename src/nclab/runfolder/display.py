"""What a person sees while a run trains: a live bar on a terminal, plain lines elsewhere."""

import math
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nclab.training.evaluate import Evaluation

LINES = 10  # plain lines a run, about


class Display:
    """Shows epoch, loss, train/test accuracy, train NCC accuracy behind every map, effective depth, learnable
    parameters and seconds."""

    def __init__(self, title: str, epochs: int, console: Console | None = None):
        self.console = console or Console(soft_wrap=True)
        self.title, self.epochs = title, epochs
        self.stride = max(1, math.ceil(epochs / LINES))
        self.bar: Progress | None = None

    def __enter__(self) -> "Display":
        self.say(f"{self.title}: {self.epochs} epochs")
        if self.console.is_terminal:
            columns = (
                MofNCompleteColumn(),
                BarColumn(bar_width=12),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[numbers]}"),
            )
            self.bar = Progress(*columns, console=self.console)
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=self.epochs, numbers="")
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, markup=False, highlight=False)

    def update(self, epoch: int, seconds: float, learnable: int, loss: float, last: Evaluation | None) -> None:
        """After an epoch; `last` is the latest evaluation, None before the first."""
        fields = [f"loss {loss:.4f}"]
        if last:
            accuracies = [f"{last.network(split, 'accuracy'):.4f}" for split in last.values]
            fields.append(f"{'/'.join(last.values)} {'/'.join(accuracies)}")
            if ncc := last.ncc():
                fields.append("ncc " + " ".join(f"{v:.2f}".lstrip("0") for v in ncc.values()))
                depth = last.network("train", "effective_depth")
                fields.append(f"depth {'-' if math.isnan(depth) else f'{depth:.3g}'}")
        fields += [f"learn {learnable:,}", f"{seconds:.2f} s"]
        text = "  ".join(fields)
        if self.bar:
            self.bar.update(self.task, completed=epoch, numbers=text)
        elif epoch % self.stride == 0 or epoch == self.epochs:
            self.say(f"  {epoch:>{len(str(self.epochs))}}/{self.epochs}  {text}")


class SeedsDisplay(Display):
    """One line for all seeds that are trained together: means of what `Display` shows; seconds are their sum."""

    def __init__(self, title: str, epochs: int, console: Console | None = None):
        super().__init__(title, epochs, console)
        self.reports: list[tuple[int, float, int, float, Evaluation | None]] = []

    def of(self, seed: int) -> "SeedDisplay":
        """What the fit of this seed reports to."""
        return SeedDisplay(self, seed)

    def flush(self) -> None:
        """Show the mean of what was reported since the last time, which is of one epoch; nothing where none was."""
        if self.reports:
            epochs, seconds, learnable, losses, last = zip(*self.reports, strict=True)
            self.reports.clear()
            known = [evaluation for evaluation in last if evaluation]
            mean = Evaluation(_mean([e.values for e in known]), known[0].stages) if known else None
            self.update(epochs[0], sum(seconds), round(fmean(learnable)), fmean(losses), mean)


class SeedDisplay(Display):
    """Collects the numbers of one seed and says which seed a line is about."""

    def __init__(self, whole: SeedsDisplay, seed: int):
        super().__init__(f"seed {seed}", whole.epochs, whole.console)
        self.whole = whole

    def say(self, text: str) -> None:
        self.whole.say(f"  {self.title}: {text.strip()}")

    def update(self, epoch: int, seconds: float, learnable: int, loss: float, last: Evaluation | None) -> None:
        self.whole.reports.append((epoch, seconds, learnable, loss, last))


def _mean(trees: list[Any]) -> Any:
    """Of numbers, or of dicts of them, key by key: where all have the key."""
    if not isinstance(trees[0], dict):
        return fmean(trees)
    return {key: _mean([tree[key] for tree in trees]) for key in trees[0] if all(key in tree for tree in trees)}
