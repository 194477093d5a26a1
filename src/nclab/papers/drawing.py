"""Draw the figures and tables of a wing: those of a plan's parts, or those that the run folders record."""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from nclab.analysis.drawings import DRAWINGS, TABLE
from nclab.analysis.runs import AnalysisError, Run, load_runs
from nclab.papers.wings import Wing

FIGURES, TABLES = "figures", "tables"
Pictures = dict[tuple[str, str], Callable[[], list[Run]]]  # (file name, drawing) -> what loads its runs


def draw(wing: Wing, output: Path, pictures: Pictures) -> list[str]:
    """Write <output>/<wing>/figures/NAME.{pdf,png,csv} and tables/NAME.{csv,md,tex}, and print their paths.

    Returns:
        One line for each picture that could not be drawn.
    """
    failures = []
    for (name, drawing), load in pictures.items():
        try:
            runs = load()
            if not runs:
                raise AnalysisError("none of its runs is finished")
            folder = TABLES if DRAWINGS[drawing].kind == TABLE else FIGURES
            print(*DRAWINGS[drawing].save(runs, output / wing.name / folder / name)[1], sep="\n")
        except (AnalysisError, OSError) as error:
            failures.append(f"not drawn: {name}: {error}")
    return failures


def pictures_of(parts: Iterable[tuple[str, str, str, list[Path]]]) -> Pictures:
    """The pictures of (part, dataset, drawing, finished run folders): a figure a part and dataset, a table a part over
    all datasets."""
    folders: dict[tuple[str, str], list[Path]] = {}
    for part, dataset, drawing, finished in parts:
        folders.setdefault(_name(part, dataset, drawing), []).extend(finished)
    return {key: partial(_loaded, own) for key, own in folders.items()}


def _loaded(folders: list[Path]) -> list[Run]:
    return load_runs(folders) if folders else []


def recorded_pictures(wing: Wing, runs: list[Run], parts: list[str], profile: str | None) -> Pictures:
    """The pictures of the runs that record this wing, and this profile if one is named; of `parts` alone, none: all.

    Raises:
        AnalysisError: No run records the wing and profile.
    """
    records = [(run, wing.record(run.config)) for run in runs]
    known = [(run, record) for run, record in records if record and profile in (None, record.profile)]
    if not known:
        of = f" and profile {profile}" if profile else ""
        raise AnalysisError(
            f"none of {len(runs)} finished runs records paper {wing.name}{of}; older runs record none: "
            f"`nclab-paper run {wing.name}` with their profile draws them and trains no finished run again, "
            "nclab-draw draws any folder"
        )
    if left := len(runs) - len(known):
        print(f"left out: {left} finished runs that record another profile, or none", file=sys.stderr)
    pictures: dict[tuple[str, str], list[Run]] = {}
    absent = []
    for name, part in wing.plan["parts"].items():
        if parts and name not in parts:
            continue
        own = [run for run, record in known if name in record.parts]
        for run in own:
            pictures.setdefault(_name(name, run.config["dataset"]["name"], part["draw"]), []).append(run)
        if not own and parts:
            pictures[(name, part["draw"])] = []
        elif not own and not part.get("extra"):
            absent.append(name)
    if absent:
        print(f"no finished run of part {', '.join(absent)}", file=sys.stderr)
    return {key: partial(list, own) for key, own in pictures.items()}


def _name(part: str, dataset: str, drawing: str) -> tuple[str, str]:
    return (part if DRAWINGS[drawing].kind == TABLE else f"{part}_{dataset}", drawing)
