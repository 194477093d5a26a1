"""MLPs, one row a dataset and policy: learnable parameters and accuracies as CSV (numbers), Markdown and LaTeX.

python scripts/table1.py outputs/figure1 outputs/figure2 --dataset mnist,fashion_mnist --out outputs/figures/table1
"""

from nclab.analysis import readable, save_table, table1, text_table
from nclab.analysis.cli import command


def make(runs, policies, out):
    table, caption = table1(runs, policies)
    return text_table(readable(table)), save_table(table, out, caption)


if __name__ == "__main__":
    command(__doc__, "outputs/figures/table1", make)
