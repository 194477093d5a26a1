"""NCC accuracy of every layer, baseline against 1, 2, 3 fixed last layers: PDF, PNG and the table behind them.

python scripts/figure1.py outputs/figure1 --dataset fashion_mnist --out outputs/figures/figure1
"""

from nclab.analysis import brief, figure1, save_figure, text_table
from nclab.analysis.cli import command


def make(runs, policies, out):
    figure, table = figure1(runs, policies)
    return text_table(brief(table)), save_figure(figure, table, out)


if __name__ == "__main__":
    command(__doc__, "outputs/figures/figure1", make)
