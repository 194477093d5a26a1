"""The figures and tables found in a folder, as a report shows them."""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from nclab.analysis.runs import AnalysisError

KINDS = {".png": ("PNG", "image/png"), ".gif": ("GIF", "image/gif")}  # what a folder's pictures may be
MOST_ROWS = 60
INCH = 120  # pixels of a page: a figure's 7 point letters are as large as small print of the page
LEAST = 0.75  # of this size, below which a picture is not shrunk but scrolled


@dataclass(frozen=True)
class Picture:
    """A PNG or GIF file; `numbers` names the table behind it, which is too long to be shown. `width` is how wide a page
    shows it, in pixels: by its size in print, where it says that, so that its letters can be read."""

    path: Path
    caption: str
    data: bytes
    width: int
    kind: str = "image/png"
    numbers: str = ""

    @property
    def least(self) -> int:
        """The least width at which it can be read, in pixels of the page."""
        return round(LEAST * self.width)


@dataclass(frozen=True)
class Table:
    """A Markdown or CSV table as text cells."""

    path: Path
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def find_pictures(folder: Path, captions: Mapping[str, str] | None = None) -> list[Picture]:
    """Every *.png and *.gif of the folder, by name.

    `captions` maps the start of a name, such as a part of a plan, to its caption. The longest that fits counts; without
    one the name is the caption.
    """
    pictures = []
    for path in sorted(path for path in folder.iterdir() if path.suffix in KINDS):
        name, kind = KINDS[path.suffix]
        data = path.read_bytes()
        try:
            with Image.open(io.BytesIO(data), formats=[name]) as image:
                pixels, dots = image.width, image.info.get("dpi", (INCH, INCH))[0]
        except (UnidentifiedImageError, OSError):
            raise AnalysisError(f"{path}: not a {name} picture ({len(data)} bytes)") from None
        starts = [start for start, caption in (captions or {}).items() if caption and path.stem.startswith(start)]
        caption = captions[max(starts, key=len)] if starts else path.stem.replace("_", " ")
        behind = path.with_suffix(".csv")
        width = round(INCH * pixels / dots)
        pictures.append(Picture(path, caption, data, width, kind, behind.name if behind.is_file() else ""))
    return pictures


def find_tables(folder: Path) -> list[Table]:
    """Every *.md of the folder, and every *.csv that is not the numbers of a figure or Markdown table there."""
    tables = [_markdown(path) for path in folder.glob("*.md")]
    for path in folder.glob("*.csv"):
        if not any(path.with_suffix(ending).is_file() for ending in (".md", ".png")):
            tables.append(_csv(path))
    return sorted(tables, key=lambda table: table.path.name)


def _markdown(path: Path) -> Table:
    lines = [line.strip() for line in _text(path).splitlines()]
    cells = [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines
        if line.startswith("|")
    ]
    if len(cells) < 2:
        raise AnalysisError(f"{path}: no Markdown table in it")
    return _table(path, cells[0], cells[2:])


def _csv(path: Path) -> Table:
    rows = list(csv.reader(_text(path).splitlines()))
    if not rows:
        raise AnalysisError(f"{path}: empty")
    return _table(path, rows[0], [[_short(cell) for cell in row] for row in rows[1:]])


def _short(cell: str) -> str:
    """A fraction with six digits; the file keeps all of them."""
    try:
        return f"{float(cell):.6g}" if "." in cell else cell
    except ValueError:
        return cell


def _table(path: Path, header: list[str], rows: list[list[str]]) -> Table:
    for row in rows:
        if len(row) != len(header):
            raise AnalysisError(f"{path}: expected rows of {len(header)} cells, got {len(row)}: {' | '.join(row)[:60]}")
    note = f"the first {MOST_ROWS} of {len(rows):,} rows" if len(rows) > MOST_ROWS else ""
    return Table(path, header, rows[:MOST_ROWS], note)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AnalysisError(f"{path}: {' '.join(str(error).split())}") from None
