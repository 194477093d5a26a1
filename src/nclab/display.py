"""What a person sees while a run trains: a live bar on a terminal, plain lines elsewhere."""

import math

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nclab.evaluate import Evaluation

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
                fields.append(f"depth {'-' if math.isnan(depth) else int(depth)}")
        fields += [f"learn {learnable:,}", f"{seconds:.2f} s"]
        text = "  ".join(fields)
        if self.bar:
            self.bar.update(self.task, completed=epoch, numbers=text)
        elif epoch % self.stride == 0 or epoch == self.epochs:
            self.say(f"  {epoch:>{len(str(self.epochs))}}/{self.epochs}  {text}")
