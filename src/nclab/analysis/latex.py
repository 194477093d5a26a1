"""A table of strings as LaTeX, for \\input; the document needs \\usepackage{booktabs}."""

import pandas as pd

ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": r"$-$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
GAPS = (r"\midrule", r"\addlinespace")  # where the first, a later grouping column changes


def escape(text: str) -> str:
    """Text in which no character means anything to LaTeX."""
    return text.translate(str.maketrans(ESCAPES))


def latex_table(table: pd.DataFrame, right: list[bool], caption: str, label: str, groups: int = 0) -> str:
    """A table environment with booktabs rules; `right` says which columns are aligned to the right.

    The first `groups` columns group the rows: a value stands in the first row of its group only, and a rule (where the
    first of them changes) or a gap parts the groups.
    """
    cells = [["--" if cell == "-" else escape(cell) for cell in row] for row in table.to_numpy().tolist()]
    lines = [_line(escape(name) for name in table), r"\midrule"]
    for above, row in zip([None, *cells], cells, strict=False):
        level = _first_change(above, row, groups)
        if above is not None and level < groups:
            lines.append(GAPS[min(level, 1)])
        lines.append(_line("" if i < level else cell for i, cell in enumerate(row)))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(caption)}}}",
            rf"\label{{{label}}}",
            rf"\begin{{tabular}}{{{''.join('r' if end else 'l' for end in right)}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _first_change(above: list[str] | None, row: list[str], groups: int) -> int:
    """The first grouping column in which a row differs from the one above; `groups` if none does."""
    return next((i for i in range(groups) if above is None or above[i] != row[i]), groups)


def _line(cells) -> str:
    """A row. Without the braces [ or * at its start would be an option of what ends the line above."""
    row = " & ".join(cells)
    return ("{}" if row.startswith(("[", "*")) else "") + row + r" \\"
