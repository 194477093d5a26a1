"""What a person sees while a run trains: a live bar on a terminal, plain lines elsewhere."""

import math
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINES = 10  # plain lines a run, about


class Display:
    """Shows epoch, accuracies, NCC accuracy behind every map, effective depth, learnable parameters, seconds."""

    def __init__(self, title: str, epochs: int, console: Console | None = None):
        self.console = console or Console(soft_wrap=True)
        self.title, self.epochs = title, epochs
        self.stride = max(1, math.ceil(epochs / LINES))
        self.bar: Progress | None = None
        self.text = ""

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[numbers]}"),
            )
            self.bar = Progress(*columns, console=self.console)
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=self.epochs, numbers="")
        else:
            self.say(f"{self.title}: {self.epochs} epochs")
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, markup=False, highlight=False)

    def update(
        self, epoch: int, seconds: float, learnable: int, numbers: Mapping[str, float], ncc: list[float]
    ) -> None:
        """After an epoch; `numbers` are named scalars, `ncc` the train NCC accuracies by layer, if measured."""
        fields = [f"{name} {value:.4f}" for name, value in numbers.items()]
        if ncc:
            fields.append("ncc " + " ".join(f"{v:.2f}".lstrip("0") for v in ncc))
        fields += [f"learnable {learnable:,}", f"{seconds:.2f} s/epoch"]
        text = "  ".join(fields)
        if self.bar:
            self.bar.update(self.task, completed=epoch, numbers=text)
        elif epoch % self.stride == 0 or epoch == self.epochs:
            self.say(f"  {epoch:>{len(str(self.epochs))}}/{self.epochs}  {text}")
