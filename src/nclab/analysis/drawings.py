"""The registry of drawings: a name, what runs it is made of, and the function that makes a figure or a table of them.

Papers' wings and users' packages register their own:

    @DRAWINGS.figure("figure1", of="an MLP, baseline and fixed last layers", needs=Needs("MLPs", ...), caption="...")
    def figure1(runs, policies=None): ...           # -> (Figure, table of the numbers behind it)

`nclab-draw NAME FOLDER` draws one from any run folders, `nclab-paper` those that the plan of a paper names.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from nclab.analysis.drawing import save_figure
from nclab.analysis.found import load_registered
from nclab.analysis.needs import Needs, described, folders_of
from nclab.analysis.runs import AnalysisError, Run
from nclab.analysis.tables import readable, save_table, text_table
from nclab.interfaces.valid import unknown

FIGURE, TABLE = "figure", "table"

Make = Callable[..., tuple[Any, Any]]  # make(runs, policies, **options)


@dataclass(frozen=True)
class Drawing:
    """A figure of one dataset, or a table over all of them.

    Args:
        name: What it is called on the command line and in plans.
        kind: `figure` or `table`.
        of: For people: what runs it is made of.
        make: make(runs, policies) -> (Figure, its numbers) for a figure, (table, caption or None) for a table; a table
            with a caption is written as LaTeX too. The options that it takes come as keywords.
        needs: What runs it can show; None: whatever it gets.
        caption: Of a figure, in a report.
        says: The numbers of a figure -> the table of texts that a terminal shows.
        takes: Names of its options, such as `metric`.
        beside: beside(numbers, OUT) writes a further file of a figure, such as an animation, and returns its path.
    """

    name: str
    kind: str
    of: str
    make: Make
    needs: Needs | None = None
    caption: str = ""
    says: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    takes: tuple[str, ...] = ()
    beside: Callable[[pd.DataFrame, Path], Path] | None = None

    def save(
        self, runs: list[Run], out: Path, policies: list[str] | None = None, **options: Any
    ) -> tuple[str, list[Path]]:
        """`draw` them, write the files OUT.pdf, OUT.png, OUT.csv and what is `beside` them; of a table OUT.csv, OUT.md
        and, with a caption, OUT.tex.

        Returns:
            What a terminal shows of it, and the paths of the files.

        Raises:
            AnalysisError: As `draw`.
            OSError: A file cannot be written.
        """
        made, about = self.draw(runs, policies, **options)
        if self.kind == TABLE:
            return text_table(readable(made)), save_table(made, out, about)
        paths = save_figure(made, about, out)
        paths += [self.beside(about, out)] if self.beside else []
        return text_table(self.says(about)) if self.says else "", paths

    def draw(self, runs: list[Run], policies: list[str] | None = None, **options: Any) -> tuple[Any, Any]:
        """What `make` gives of those runs that it can show; the others are left out and counted on stderr.

        Raises:
            AnalysisError: These runs make no such drawing; the message says why, and which drawings they fit. Or it
                takes no such option.
        """
        for option in options:
            if option not in self.takes:
                able = [name for name in DRAWINGS.names() if option in DRAWINGS[name].takes]
                raise AnalysisError(f"{self.name} takes no --{option}; drawings that do: {', '.join(able) or 'none'}")
        return self.make(self._fitting(runs, policies), policies, **options)

    def _fitting(self, runs: list[Run], policies: list[str] | None) -> list[Run]:
        """The runs that it can show. Raises AnalysisError where there are none."""
        if self.needs is None:
            return runs
        fitting = self.needs.drawn_of(runs, policies)
        if not fitting:
            came = f"{len(runs)} run(s) in {folders_of(runs)}: {described(runs)}"
            raise AnalysisError(f"{self.name} draws {self.needs.says}; {came}; {_what_fits(runs)}")
        kept = {run.path for run in fitting}
        if left := [run for run in runs if run.path not in kept]:
            print(
                f"left out: {len(left)} of {len(runs)} runs, {described(left)}: {self.name} draws {self.needs.says}",
                file=sys.stderr,
            )
        return fitting


@dataclass
class Drawings:
    """Drawings by name, those of the wings and of installed packages found when first asked for."""

    _entries: dict[str, Drawing] = field(default_factory=dict)

    def figure(
        self,
        name: str,
        of: str,
        caption: str = "",
        says: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
        needs: Needs | None = None,
        takes: tuple[str, ...] = (),
        beside: Callable[[pd.DataFrame, Path], Path] | None = None,
    ) -> Callable[[Make], Make]:
        """Decorator: register a figure under `name`. Raises ValueError for a name taken twice."""
        return self._add(name, lambda make: Drawing(name, FIGURE, of, make, needs, caption, says, takes, beside))

    def table(self, name: str, of: str, needs: Needs | None = None) -> Callable[[Make], Make]:
        """Decorator: register a table under `name`. Raises ValueError for a name taken twice."""
        return self._add(name, lambda make: Drawing(name, TABLE, of, make, needs))

    def names(self) -> list[str]:
        """All registered names, sorted. Raises AnalysisError for an installed package that cannot be imported."""
        load_registered()
        return sorted(self._entries)

    def __getitem__(self, name: str) -> Drawing:
        names = self.names()
        if name not in self._entries:
            raise AnalysisError(unknown("drawing", name, names))
        return self._entries[name]

    def _add(self, name: str, drawing: Callable[[Make], Drawing]) -> Callable[[Make], Make]:
        def register(make: Make) -> Make:
            if name in self._entries:
                raise ValueError(f"drawing '{name}' is registered twice")
            self._entries[name] = drawing(make)
            return make

        return register


def _what_fits(runs: list[Run]) -> str:
    """The drawings that show all of these runs, else some of them."""
    others = (DRAWINGS[name] for name in DRAWINGS.names())
    shown = {other.name: len(other.needs.drawn_of(runs)) for other in others if other.needs}
    if whole := [name for name, count in shown.items() if count == len(runs)]:
        return f"they fit {', '.join(whole)}"
    if some := [name for name, count in shown.items() if count]:
        return f"some of them fit {', '.join(some)}"
    return "no drawing shows them, nclab-runs export writes their numbers"


DRAWINGS = Drawings()
