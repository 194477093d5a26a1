"""The page of many runs: what it holds, where it may be written, and how it is kept up to date."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import filter as matching
from pathlib import Path
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.colors import to_hex

import nclab.analysis
from nclab.analysis.labels import dataset_label, model_label, policy_label
from nclab.analysis.looks import COLOURS
from nclab.runs.board.record import MOST_EPOCHS, Record, packed, read
from nclab.runs.export import varying
from nclab.runs.state import RunState, is_run
from nclab.runs.table import counts, progress
from nclab.system.atomic import write_atomic
from nclab.system.progress import telling
from nclab.system.words import install_hint

MARK = '<meta name="generator" content="nclab-runs board">'  # by this a page is known to be one of ours
MARK_WITHIN = 500  # bytes from its beginning
TEMPLATES = [Path(__file__).parent / "templates", Path(nclab.analysis.__file__).parent / "templates"]
# Of the table: name, whether it holds numbers, whether it has a filter.
COLUMNS = (
    *(("state", False, True), ("experiment", False, True), ("dataset", False, True), ("model", False, True)),
    *(("policy", False, True), ("seed", True, True), ("test accuracy", True, False), ("nc1", True, False)),
    *(("headline", False, False), ("epoch", False, False), ("why", False, False), ("settings", False, False)),
    *(("kind", False, True), ("run", False, False)),
)
OWN_COLUMN = ("dataset.name", "model.name", "model.depth", "model.blocks", "model.width", "etf.name", "etf.kind")
LAYERS = 24  # colours for layers; a deeper network repeats none but neighbours look alike


class BoardError(ValueError):
    """The page cannot be made as asked for; one line of text."""


def check_out(out: Path) -> None:
    """Raise BoardError for a place where no page can be, or where a file is that this command did not make."""
    if out.suffix != ".html" or out.is_dir():
        raise BoardError(f"--out: expected a file that ends in .html, got {out}")
    if not out.absolute().parent.is_dir():
        raise BoardError(f"--out: expected a file in a folder that is there, got {out}")
    if is_run(out.absolute().parent):
        raise BoardError(f"--out: expected a file outside the runs, got {out} in a run folder")
    if out.exists():
        with out.open("rb") as file:
            ours = MARK.encode() in file.read(MARK_WITHIN)
        if not ours:
            raise BoardError(f"--out: {out} was not made by nclab-runs board; name another file, or remove it")


def library() -> str:
    """plotly.js, packed. Raises BoardError without the package that holds it."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise BoardError(f"its charts need plotly, which is not installed; {install_hint('board')}") from None
    return packed(get_plotlyjs())


@dataclass
class Board:
    """The page of the runs under some folders, written to a file; `metrics` as in `record.read`.

    A run is read again only where its files changed.
    """

    title: str
    out: Path
    metrics: tuple[str, ...] = ()
    records: dict[Path, tuple[tuple, Record]] = field(default_factory=dict)
    library: str = field(default_factory=library)

    def write(self, runs: list[RunState], reload: float | None = None) -> int:
        """Replace the page at once; returns its size in bytes. With `reload` it loads itself again after so many
        seconds. Raises BoardError for a metric that no run has, OSError where it cannot be written."""
        records = [self._record(run.path) for run in telling(runs, "read")]
        measured = {name for record in records for name in record.measured}
        for pattern in self.metrics:
            if measured and not matching(measured, pattern):
                raise BoardError(f"--metrics: no run has {pattern}; measured: {', '.join(sorted(measured))}")
        page = _render(
            title=self.title,
            library=self.library,
            curves={i: record.packed for i, record in enumerate(records) if record.packed},
            data={
                "columns": [{"name": name, "number": number, "filter": chosen} for name, number, chosen in COLUMNS],
                "rows": _rows(runs, records),
                "paths": [str(run.path) for run in runs],
                "drawn": [bool(record.packed) for record in records],
                "counts": counts(runs),
                "written": time.strftime("%Y-%m-%d %H:%M:%S"),
                "reload": reload,
                "most_epochs": MOST_EPOCHS,
                "colours": [to_hex(colour) for colour in COLOURS],
                "layers": [to_hex(mpl.colormaps["cividis"](0.85 * i / (LAYERS - 1))) for i in range(LAYERS)],
            },
        )
        data = page.encode()
        write_atomic(self.out, data)
        return len(data)

    def _record(self, folder: Path) -> Record:
        stamp = tuple(_stamp(folder / name) for name in ("config.yaml", "metrics.csv", "events.jsonl", "DONE"))
        known = self.records.get(folder)
        if known is None or known[0] != stamp:
            known = self.records[folder] = (stamp, read(folder, self.metrics))
        return known[1]


def watch(board: Board, look: Callable[[], list[RunState]], seconds: float) -> None:
    """Write the page again every so many seconds with what `look` finds, until Ctrl-C; the last page loads itself no
    more."""
    runs: list[RunState] | None = None
    try:
        while True:
            time.sleep(seconds)
            runs = look()
            board.write(runs, reload=seconds)
    except KeyboardInterrupt:
        board.write(look() if runs is None else runs)


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _rows(runs: list[RunState], records: list[Record]) -> list[list[Any]]:
    """The cells of the table, a row a run, in the order of COLUMNS."""
    settings = _settings(runs, records)
    return [_cells(run, record, told) for run, record, told in zip(runs, records, settings, strict=True)]


def _cells(run: RunState, record: Record, settings: str) -> list[Any]:
    config = record.run.config if record.run else None
    named = run.headline is not None and run.headline.name != "test accuracy"
    reasons = [run.reason, f"cannot be read: {record.broken}" if record.broken else ""]
    cells = {
        "run": run.name,
        "experiment": run.experiment,
        "state": run.state,
        "epoch": progress(run),
        "test accuracy": record.last.get("test accuracy"),
        "headline": str(run.headline) if named else "",
        "nc1": record.last.get("nc1"),
        "dataset": dataset_label(config) if config else "",
        "model": model_label(config) if config else "",
        "policy": policy_label(config) if config else "",
        "kind": str(config["etf"].get("kind", "none")) if config else "",
        "seed": config["seed"] if config else None,
        "settings": settings,
        "why": "; ".join(filter(None, reasons)),
    }
    return [cells[name] for name, _, _ in COLUMNS]


def _settings(runs: list[RunState], records: list[Record]) -> list[str]:
    """Of each run what varies within its experiment and has no column of its own: 'optimizer.lr=0.1 etf.k=2'."""
    groups: dict[str, list[int]] = {}
    for i, (run, record) in enumerate(zip(runs, records, strict=True)):
        if record.run:
            groups.setdefault(run.experiment, []).append(i)
    told = [""] * len(runs)
    for group in groups.values():
        of_key = varying([records[i].run for i in group])
        for place, i in enumerate(group):
            values = {key: column[place] for key, column in of_key.items() if key not in OWN_COLUMN}
            told[i] = " ".join(f"{key}={value}" for key, value in values.items() if value is not None)
    return told


def _render(**content: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("board.html").render(**content)
