"""LaTeX tables: nothing in a cell is taken for a command, and groups of rows are parted by rules."""

import re

import pandas as pd
import pytest
from fake_runs import BASELINE, FFN, vit, write_run, write_transformers

from nclab.analysis import load_runs, save_table
from nclab.analysis.latex import ESCAPES, escape, latex_table
from nclab.papers.simplex_etf.tables import table2


def test_every_special_character_is_escaped():
    assert escape("50 % & 1_000 #$ {x} ~^") == (r"50 \% \& 1\_000 \#\$ \{x\} \textasciitilde{}\textasciicircum{}")
    assert escape("a\\b 97.1 ± 0.2 −3") == r"a\textbackslash{}b 97.1 $\pm$ 0.2 $-$3"
    assert {*"&%$#_{}~^\\"} < ESCAPES.keys()  # the ten characters that mean something to LaTeX


@pytest.mark.fast
def test_groups_are_parted_and_their_names_stand_once():
    rows = [("a", "1", "x"), ("a", "1", "y"), ("a", "2", "x"), ("b", "2", "x")]
    table = pd.DataFrame(rows, columns=["data_set", "n", "policy"])
    assert latex_table(table, [False, True, False], "50 %", "tab:t", groups=2).splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{50 \%}",
        r"\label{tab:t}",
        r"\begin{tabular}{lrl}",
        r"\toprule",
        r"data\_set & n & policy \\",
        r"\midrule",
        r"a & 1 & x \\",
        r" &  & y \\",
        r"\addlinespace",
        r" & 2 & x \\",
        r"\midrule",
        r"b & 2 & x \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    assert r" & 2 & x \\" not in latex_table(table, [False] * 3, "", "").splitlines()


def test_a_row_that_begins_like_an_option_is_none():
    table = pd.DataFrame([("[0.9, 0.99]", "1"), ("* x", "2")], columns=["[a]", "b"])
    lines = latex_table(table, [False, True], "", "").splitlines()
    for row in (r"{[}a] & b \\", r"{[}0.9, 0.99] & 1 \\", r"{*} x & 2 \\"):
        assert row in lines


def test_table2_as_latex(tmp_path):
    data = {"name": "fashion_mnist", "train_size": None}
    write_transformers(tmp_path, depths=(1, 2), etfs=(BASELINE, FFN), dataset=data)
    write_run(tmp_path, model=vit(3, ratio=0.0), dataset=data)
    table, caption = table2(load_runs([tmp_path]))
    paths = save_table(table, tmp_path / "table_2", caption)
    assert [path.name for path in paths] == ["table_2.csv", "table_2.md", "table_2.tex"]
    text = paths[2].read_text()
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + 5
    assert {line.count(" & ") for line in rows} == {7}
    assert rows[1] == r"fashion\_mnist & 1 & baseline & 2 & 800 & 0.0 & 90.50 $\pm$ 0.71 & 90.50 $\pm$ 0.71 \\"
    assert rows[2].startswith(" &  & FFN-ETF & 2 & 600 & 25.0 & ")
    assert rows[5] == r" & 3 & no FFN & 1 & 1,000 & -- & 90.00 & 90.00 \\"
    assert r"\label{tab:table_2}" in text
    assert text.count(r"\addlinespace") == 2
    body = text.split(r"\label")[0] + text.split(r"\toprule")[1]
    assert not re.search(r"(?<![\\])[%#_]", body)
    assert text.count("{") == text.count("}")
    assert text.isascii()
