"""The rows of all lines as one table of Markdown, and as JSON."""

import json
from collections import Counter
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from tabulate import tabulate

from nclab.bench.gpu.row import FAILED, MET, MISSED, NO_GPU, NOT_TIMED, TOLD, Row

HEAD = ["line", "what", "measured", "aim", "verdict"]


def table(result: dict[str, list[Row]]) -> str:
    rows = []
    for name, of_line in result.items():
        for i, row in enumerate(of_line):
            rows.append(["" if i else name, row.what, row.value, row.aim, row.verdict])
    return tabulate(rows, HEAD, tablefmt="github", disable_numparse=True)


def summary(result: dict[str, list[Row]]) -> str:
    """How many rows have which verdict."""
    counts = Counter(row.verdict for rows in result.values() for row in rows)
    names = {MET: "met", MISSED: "missed", FAILED: "failed", NOT_TIMED: "not timed"}
    names |= {NO_GPU: "without a GPU", TOLD: "told without an aim"}
    return ", ".join(f"{counts[verdict]} {name}" for verdict, name in names.items() if counts[verdict])


def save(result: dict[str, list[Row]], folder: Path, about: dict[str, Any], seconds: float) -> None:
    """gpu.json and gpu.md in the folder."""
    rows = [{"line": name, **asdict(row)} for name, of_line in result.items() for row in of_line]
    text = {"date": date.today().isoformat(), "seconds": round(seconds), **about, "rows": rows}
    (folder / "gpu.json").write_text(json.dumps(text, indent=1) + "\n")
    (folder / "gpu.md").write_text(table(result) + "\n\n" + summary(result) + "\n")
