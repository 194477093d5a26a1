"""Baseline against Adaptive-ETF, with a mark where each seed fixed a layer: PDF, PNG and the table behind them.

python scripts/figure2.py outputs/figure1 outputs/figure2 --dataset fashion_mnist --out outputs/figures/figure2
"""

from nclab.analysis import brief, figure2, save_figure, text_table
from nclab.analysis.cli import command


def make(runs, policies, out):
    figure, table = figure2(runs, policies)
    return text_table(brief(table)), save_figure(figure, table, out)


if __name__ == "__main__":
    command(__doc__, "outputs/figures/figure2", make)
