"""All measurements of many runs as one tidy table in a file: a row a number, with the run it is of and its settings.

Run by run, whatever their number: the table is never in memory as a whole.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nclab.analysis.runs import COLUMNS, MAY_DIFFER, AnalysisError, Run, load_runs
from nclab.system.atomic import replace
from nclab.system.words import install_hint

ROWS = 500_000  # of a row group of Parquet: what is in memory at once


class ExportError(ValueError):
    """The table cannot be written as asked for; one line of text."""


def check_out(out: Path) -> None:
    """Raise ExportError for a file that could not be written after all the reading."""
    if out.suffix not in WRITERS:
        raise ExportError(f"--out: expected a file that ends in {' or '.join(WRITERS)}, got {out}")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise ExportError(f"--out: expected a file in a folder that is there, got {out}")
    if out.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401  # an extra: 150 MB that only this file format needs
        except ImportError:
            raise ExportError(
                f"{out}: Parquet needs pyarrow; {install_hint('parquet')}; .csv needs nothing more"
            ) from None


def export(folders: Iterable[Path], out: Path, unfinished: bool = False) -> tuple[int, int, list[str]]:
    """Write the table; returns runs, rows and the names of the columns that tell runs apart.

    A run that cannot be read is named on stderr and left out. Raises ExportError, AnalysisError where there is no run,
    OSError where the file cannot be written; an earlier one stays then.
    """
    check_out(out)
    runs = load_runs(folders, finished_only=not unfinished, skip_broken=True)
    choices = varying(runs)
    names = ["run", "experiment", "seed", "policy", "finished", *choices]
    done = rows = 0
    with _replacing(out) as part, WRITERS[out.suffix](part, choices) as write:
        for i, run in enumerate(runs):
            finished = run.finished  # before its rows are read: it may finish in between
            try:
                frame = Run(run.path, run.config).metrics  # not run.metrics, which would stay in memory
            except AnalysisError as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            path = run.path.absolute()
            values = [path.name, path.parent.name, run.seed, run.policy, finished]
            write(frame, dict(zip(names, [*values, *(column[i] for column in choices.values())], strict=True)))
            done, rows = done + 1, rows + len(frame)
        if not done:
            raise ExportError("no run could be read; nothing is written")
    return done, rows, names


def varying(runs: list[Run]) -> dict[str, list]:
    """The choices in which runs that have them differ, with the value of each run: None where it means nothing, and
    all as text where they are not of one kind. Neither seeds nor where and how a run was executed are among them."""
    found = {}
    for key in dict.fromkeys(key for run in runs for key in run.settings):
        values = [run.settings.get(key) for run in runs]
        different = {repr(value) for run, value in zip(runs, values, strict=True) if key in run.settings}
        if len(different) > 1 and (key == "etf.name" or not MAY_DIFFER.match(key)):
            found[key] = _of_one_kind(values)
    return found


def _of_one_kind(values: list) -> list:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int} or kinds <= {bool} or kinds <= {str}:
        return values
    if kinds <= {int, float}:
        return [None if value is None else float(value) for value in values]
    return [None if value is None else str(value) for value in values]


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A file beside `out` that takes its place when all is written and on the disk; else nothing changes."""
    part = out.with_name(f"{out.name}.part")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        replace(part, out)
    finally:
        part.unlink(missing_ok=True)


Write = Callable[[pd.DataFrame, dict[str, Any]], None]  # (rows of metrics.csv, what is the same in all of them)


@contextmanager
def _csv(file: Path, _choices: dict[str, list]) -> Iterator[Write]:
    with file.open("w", encoding="utf-8", newline="") as stream:

        def write(frame: pd.DataFrame, same: dict[str, Any]) -> None:
            first = stream.tell() == 0
            frame.assign(**same)[[*same, *COLUMNS]].to_csv(stream, index=False, header=first, lineterminator="\n")

        yield write


@contextmanager
def _parquet(file: Path, choices: dict[str, list]) -> Iterator[Write]:
    """Text as dictionaries: pandas reads it as categories, a few bytes a row."""
    import pyarrow as pa
    from pyarrow import parquet

    text = pa.dictionary(pa.int32(), pa.string())
    kinds = {str: text, bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    of = {key: next((type(value) for value in values if value is not None), str) for key, values in choices.items()}
    types = {"run": text, "experiment": text, "seed": pa.int64(), "policy": text, "finished": pa.bool_()}
    types |= {key: kinds[kind] for key, kind in of.items()}
    types |= {"epoch": pa.int32(), "split": text, "layer": text, "metric": text, "value": pa.float64()}
    schema = pa.schema(list(types.items()))
    waiting: list[pa.Table] = []

    def encoded(codes: Any, texts: list[str]) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(texts, pa.string()))

    def column(name: str, frame: pd.DataFrame, same: dict[str, Any]) -> pa.Array:
        if name not in same:
            values = frame[name]
            if types[name] == text:
                return encoded(values.cat.codes.to_numpy("int32"), [*values.cat.categories])
            return pa.array(values.to_numpy(), types[name])
        if same[name] is None:
            return pa.nulls(len(frame), types[name])
        if types[name] == text:
            return encoded(np.zeros(len(frame), "int32"), [same[name]])
        return pa.repeat(pa.scalar(same[name], types[name]), len(frame))

    def flush() -> None:
        if waiting:
            writer.write_table(pa.concat_tables(waiting).unify_dictionaries().combine_chunks())
            waiting.clear()

    def write(frame: pd.DataFrame, same: dict[str, Any]) -> None:
        waiting.append(pa.Table.from_arrays([column(name, frame, same) for name in types], schema=schema))
        if sum(table.num_rows for table in waiting) >= ROWS:
            flush()

    with parquet.ParquetWriter(file, schema) as writer:
        yield write
        flush()


WRITERS = {".parquet": _parquet, ".csv": _csv}
