"""The figures and tables found in a folder, as a report shows them."""

import csv
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from nclab.analysis.runs import AnalysisError

PNG = b"\x89PNG\r\n\x1a\n"
MOST_ROWS = 60
KNOWN = re.compile(r"figure[1-4]|depth(?=(?P<blocks>.*_blocks)?(_|$))")  # depth_rn_mnist, depth_rn_blocks_mnist
CAPTIONS = {
    "figure1": "Figure 1: an MLP trained in full against the same MLP with its last 1, 2, 3 layers as simplex ETFs.",
    "figure2": "Figure 2: an MLP trained in full against Adaptive-ETF, where layers beyond the effective depth become "
    "simplex ETFs while training.",
    "figure3": "Figure 3: vision transformers of 1 to 4 blocks, trained in full against ETF feed-forward maps.",
    "figure4": "Figure 4: NCC accuracy of the feed-forward layers of ETF-Transformers.",
    "depth_blocks": "NC1 and NCC accuracy behind every block of networks of several depths: where along the depth "
    "collapse happens.",
    "depth": "NC1, NC2 and NC3 of the last layer against the number of blocks, with the slope of each line and its "
    "95 % interval; the train accuracy beside them says which networks classify.",
}


@dataclass(frozen=True)
class Picture:
    """A PNG file; `numbers` names the table behind it, which is too long to be shown."""

    path: Path
    caption: str
    data: bytes
    numbers: str = ""


@dataclass(frozen=True)
class Table:
    """A Markdown or CSV table as text cells."""

    path: Path
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def find_pictures(folder: Path, parts: Collection[str] | None = None) -> list[Picture]:
    """Every *.png of the folder, by name; with `parts` those alone whose name starts with one of them."""
    pictures = []
    for path in sorted(_files(folder, "png", parts)):
        data = path.read_bytes()
        if not data.startswith(PNG):
            raise AnalysisError(f"{path}: not a PNG picture ({len(data)} bytes)")
        known = KNOWN.search(path.stem)
        behind = path.with_suffix(".csv")
        caption = CAPTIONS[known[0] + ("_blocks" if known["blocks"] else "")] if known else path.stem.replace("_", " ")
        pictures.append(Picture(path, caption, data, behind.name if behind.is_file() else ""))
    return pictures


def find_tables(folder: Path, parts: Collection[str] | None = None) -> list[Table]:
    """Every *.md of the folder, and every *.csv that is not the numbers of a figure or Markdown table there; with
    `parts` those alone whose name starts with one of them."""
    tables = [_markdown(path) for path in _files(folder, "md", parts)]
    for path in _files(folder, "csv", parts):
        if not any(path.with_suffix(ending).is_file() for ending in (".md", ".png")):
            tables.append(_csv(path))
    return sorted(tables, key=lambda table: table.path.name)


def _files(folder: Path, ending: str, parts: Collection[str] | None) -> list[Path]:
    return [path for path in folder.glob(f"*.{ending}") if parts is None or path.stem.startswith(tuple(parts))]


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
