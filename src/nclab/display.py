"""What a person sees while a run trains: a live bar on a terminal, plain lines elsewhere."""

import math
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINES = 10  # plain lines a run, about


class Display:
    """Shows epoch, loss, train/test accuracy, train NCC accuracy behind every map, learnable parameters, seconds."""

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

    def update(
        self, epoch: int, seconds: float, learnable: int, loss: float, accuracies: Mapping[str, float], ncc: list[float]
    ) -> None:
        """After an epoch; accuracies by split and train NCC accuracies by layer are empty where not measured."""
        fields = [f"loss {loss:.4f}"]
        if accuracies:
            fields.append(f"{'/'.join(accuracies)} acc {'/'.join(f'{a:.4f}' for a in accuracies.values())}")
        if ncc:
            fields.append("ncc " + " ".join(f"{v:.2f}".lstrip("0") for v in ncc))
        fields += [f"learn {learnable:,}", f"{seconds:.2f} s"]
        text = "  ".join(fields)
        if self.bar:
            self.bar.update(self.task, completed=epoch, numbers=text)
        elif epoch % self.stride == 0 or epoch == self.epochs:
            self.say(f"  {epoch:>{len(str(self.epochs))}}/{self.epochs}  {text}")
