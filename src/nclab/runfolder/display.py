"""What a person sees while a run trains: a live bar on a terminal, plain lines elsewhere."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.tree import Tree

from nclab.metrics.suite import NETWORK
from nclab.runfolder.config_tree import config_tree
from nclab.runfolder.fixed import fixed_layers, how
from nclab.runfolder.recorder import other_number_of_processes
from nclab.system.terminal import divert
from nclab.training.ending import STOP_PATIENCE
from nclab.training.evaluate import Evaluation
from nclab.training.observer import EpochEnd, Measured, Observer, Start, Switched

LINES = 10  # plain lines a run, about


class LostTerminal(Console):
    """A console that falls silent where nobody reads it any more (`| head -1`, a closed terminal), in the place of
    ending the process: training goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        divert(sys.stdout)


class Display(Observer):
    """Shows epoch, loss, accuracy of every split, train NCC accuracy of every stage, effective depth, learnable
    parameters and seconds."""

    def __init__(self, title: str, epochs: int, console: Console | None = None, keys: dict[str, Any] | None = None):
        """keys: the configuration, to be shown as a tree; None: it is not shown."""
        self.console = console or LostTerminal(soft_wrap=True)
        self.title, self.epochs, self.keys = title, epochs, keys
        self.bar: Progress | None = None
        self.folder: Path | None = None
        self.layers = ""

    finishes = 1

    @property
    def stride(self) -> int:
        """Epochs between plain lines."""
        return max(1, math.ceil(self.epochs / LINES))

    def open(self) -> None:
        """Show the title and, on a terminal, the bar."""
        title = f"{self.title}: {self.epochs} epoch{'s' if self.epochs > 1 else ''}"
        if self.keys is None:
            self.say(title)
            if self.layers:
                self.say(f"  {self.layers}")
        else:
            self.say(config_tree(title, self.keys, self.layers), soft_wrap=False)
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

    def close(self) -> None:
        """The bar stays as it is."""
        if self.bar:
            self.bar.stop()

    def say(self, text: str | Tree, soft_wrap: bool | None = None) -> None:
        """A line that stays, or several."""
        try:
            self.console.print(text, markup=False, highlight=False, soft_wrap=soft_wrap)
        except (OSError, ValueError):  # a full disk, a lost terminal, letters that it lacks: nothing is shown any more
            self.console.quiet = True

    def begin(self, start: Start) -> None:
        self.folder = start.folder
        self.epochs = start.epochs or self.epochs
        self.layers = fixed_layers(start)
        self.open()
        if text := other_number_of_processes(start):
            self.say(f"  {text}")

    def measured(self, measured: Measured) -> None:
        if measured.falls:
            fell = ", ".join(f"{layer} ({before} -> {now})" for layer, (before, now) in measured.falls.items())
            self.say(f"  epoch {measured.epoch}: rank fell at {fell}; nc1 there is not comparable with earlier epochs")

    def switched(self, switched: Switched) -> None:
        at, score = switched.scores, switched.score
        plain, fresh = (
            f"{at[f'train_{score}_before{kind}']:.4f} -> {at[f'train_{score}_after{kind}']:.4f}"
            for kind in ("", "_refreshed")
        )
        for _, s in switched.switches:
            self.say(
                f"  epoch {switched.epoch}: {s.site} is fixed ({how(s.recipe)}), {s.parameters_freed:,} parameters "
                f"fewer, train {score} {plain}, with refreshed norms {fresh}"
            )

    def epoch(self, end: EpochEnd) -> None:
        """The numbers of this very epoch: without an evaluation its loss alone."""
        fields = [f"loss {end.running_loss:.4f}", *_measured(end.evaluation)]
        fields += [f"learn {end.learnable:,}", f"{end.train_seconds + end.measure_seconds:.2f} s"]
        text = "  ".join(fields)
        if self.bar:
            self.bar.update(self.task, completed=end.epoch, numbers=text)
        elif end.epoch % self.stride == 0 or end.epoch == self.epochs:
            self.say(f"  {end.epoch:>{len(str(self.epochs))}}/{self.epochs}  {text}")

    def failed(self, error: BaseException) -> None:
        self.close()

    def finished(self, summary: dict[str, Any]) -> None:
        self.close()
        if text := said_of_best(summary):
            self.say(f"  {text}")
        if debug := summary.get("debug"):
            self.say(f"  {said_of_trial(debug, summary)}")
        self.say(f"finished: {self.folder}")


def said_of_best(summary: dict[str, Any]) -> str | None:
    """Which epoch was the best, and whether the training ended because of it, by a run's summary; None: nothing was
    compared."""
    best = summary.get("best")
    if best is None or best["epoch"] is None:
        return None
    early = f"; ended after epoch {summary['epochs']}" if summary.get("ended_by") == STOP_PATIENCE else ""
    return f"best {best['split']} {best['metric']} {best['value']:.4f} in epoch {best['epoch']}{early}"


def said_of_trial(debug: dict[str, Any], summary: dict[str, Any]) -> str:
    """The end of a run of debug=fast or debug=overfit, by its summary."""
    epochs, train = summary["epochs"], summary["final"]["train"]
    no_evidence = "no figure or claim takes this run"
    if "fitted" not in debug:
        return f"debug={debug['mode']}: the run works; {no_evidence}"
    accuracy = "accuracy" in train
    if debug["fitted"]:
        what = "all of these samples are right" if accuracy else "the loss is 1 % of that of the mean, or less"
        return f"debug=overfit: fitted in epoch {epochs}: {what}; {no_evidence}"
    score = "accuracy" if accuracy else "loss"
    return f"debug=overfit: not fitted after {epochs} epochs: train {score} {train[score]:.4f}; {no_evidence}"


def _measured(evaluation: Evaluation | None) -> list[str]:
    """Accuracies (without them the losses) of the splits, NCC accuracy of every stage, effective depth."""
    if evaluation is None:
        return []
    networks = {split: layers[NETWORK] for split, layers in evaluation.values.items()}
    score = "accuracy" if all("accuracy" in values for values in networks.values()) else "loss"
    numbers = "/".join(f"{values[score]:.4f}" for values in networks.values())
    fields = [f"{'/'.join(networks)}{'' if score == 'accuracy' else ' loss'} {numbers}"]
    if ncc := evaluation.ncc():
        fields.append("ncc " + " ".join(f"{v:.2f}".lstrip("0") for v in ncc.values()))
    depth = networks["train"].get("effective_depth")
    if depth is not None:
        fields.append(f"depth {'-' if math.isnan(depth) else f'{depth:.3g}'}")
    return fields


class SeedsDisplay(Display):
    """One line for all seeds that are trained at once: means of what `Display` shows; seconds are their sum.

    Use as a context manager. It never raises: what went wrong with the line is the `failure` that every seed's own
    display then raises, so that each run notes it.
    """

    def __init__(self, title: str, epochs: int, console: Console | None = None):
        super().__init__(title, epochs, console)
        self.ends: list[EpochEnd] = []
        self.failure: Exception | None = None

    def __enter__(self) -> "SeedsDisplay":
        self._show(self.open)
        return self

    def __exit__(self, *_: object) -> None:
        self._show(self.close)

    def _show(self, what: Callable[[], None]) -> None:
        try:
            what()
        except Exception as error:
            self.failure = error

    def of(self, seed: int) -> "SeedDisplay":
        """What the fit of this seed reports to."""
        return SeedDisplay(self, seed)

    def flush(self) -> None:
        """Show the mean of what was reported since the last time, which is of one epoch; nothing where none was."""
        if self.ends and self.failure is None:
            ends, self.ends = self.ends, []
            self._show(lambda: self.epoch(_mean_of(ends)))


class SeedDisplay(Display):
    """Collects the numbers of one seed and says which seed a line is about."""

    def __init__(self, whole: SeedsDisplay, seed: int):
        super().__init__(f"seed {seed}", whole.epochs, whole.console)
        self.whole = whole

    def say(self, text: str) -> None:
        self.whole.say(f"  {self.title}: {text.strip()}")

    def open(self) -> None:
        """The line is the whole's."""

    def begin(self, start: Start) -> None:
        self._raise_failure()
        self.whole.epochs = start.epochs or self.whole.epochs
        self.whole.layers = fixed_layers(start)  # the same of all seeds, but where one goes on
        super().begin(start)

    def epoch(self, end: EpochEnd) -> None:
        self._raise_failure()
        self.whole.ends.append(end)

    def finished(self, summary: dict[str, Any]) -> None:
        self._raise_failure()
        super().finished(summary)

    def _raise_failure(self) -> None:
        if self.whole.failure is not None:
            raise self.whole.failure


def _mean_of(ends: list[EpochEnd]) -> EpochEnd:
    known = [end.evaluation for end in ends if end.evaluation]
    return EpochEnd(
        epoch=ends[0].epoch,
        running_loss=fmean(end.running_loss for end in ends),
        evaluation=Evaluation(_mean([e.values for e in known]), known[0].stages) if known else None,
        learnable=round(fmean(end.learnable for end in ends)),
        train_seconds=sum(end.train_seconds for end in ends),
        measure_seconds=sum(end.measure_seconds for end in ends),
    )


def _mean(trees: list[Any]) -> Any:
    """Of numbers, or of dicts of them, key by key: where all have the key."""
    if not isinstance(trees[0], dict):
        return fmean(trees)
    return {key: _mean([tree[key] for tree in trees]) for key in trees[0] if all(key in tree for tree in trees)}
