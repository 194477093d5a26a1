"""A table of strings as LaTeX, for \\input; the document needs \\usepackage{booktabs}."""

import pandas as pd

ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": r"$-$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    # At the start of a row they would be an option of the \\ that ends the row above.
    **{character: f"{{{character}}}" for character in "[*"},
}


def escape(text: str) -> str:
    """Text in which no character means anything to LaTeX."""
    return text.translate(str.maketrans(ESCAPES))


def latex_table(table: pd.DataFrame, right: list[bool], caption: str, label: str, groups: int = 0) -> str:
    """A table environment with booktabs rules; `right` says which columns are aligned to the right.

    The first `groups` columns group the rows: a value stands in the first row of its group only, and a rule (where the
    first of them changes) or a gap parts the groups.
    """
    cells = table.map(lambda cell: "--" if cell == "-" else escape(cell)).rename(columns=escape)
    if groups:
        names = cells.iloc[:, :groups]
        changes = (names != names.shift()).cummax(axis=1)  # (rows, groups): another group begins in this row
        cells.iloc[:, :groups] = names.where(changes, "")
        rules = changes.any(axis=1).map({True: "\\addlinespace\n", False: ""}).mask(changes.iloc[:, 0], "\\midrule\n")
        rules.iloc[0] = ""  # the header's rule is above it
        cells.isetitem(0, rules + cells.iloc[:, 0])
    return cells.style.hide(axis="index").to_latex(
        column_format="".join("r" if end else "l" for end in right),
        hrules=True,
        position_float="centering",
        caption=escape(caption),
        label=label,
    )
