"""Vision transformers, one row a dataset, number of blocks and policy: CSV (numbers), Markdown and LaTeX.

python scripts/table2.py outputs/figure3 --dataset fashion_mnist,cifar10 --out outputs/figures/table2
"""

from nclab.analysis import readable, save_table, table2, text_table
from nclab.analysis.cli import command


def make(runs, policies, out):
    table, caption = table2(runs, policies)
    return text_table(readable(table)), save_table(table, out, caption)


if __name__ == "__main__":
    command(__doc__, "outputs/figures/table2", make)
