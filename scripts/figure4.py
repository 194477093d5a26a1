"""NCC accuracy of the feed-forward layers of FFN-ETF transformers over training: PDF, PNG and the table behind them.

python scripts/figure4.py outputs/figure3 --dataset fashion_mnist --out outputs/figures/figure4
python scripts/figure4.py outputs/figure3 --policies baseline,FFN-ETF                       beside the baseline
"""

from nclab.analysis import brief, figure4, save_figure, text_table
from nclab.analysis.cli import command


def make(runs, policies, out):
    figure, table = figure4(runs, policies)
    return text_table(brief(table, across="split")), save_figure(figure, table, out)


if __name__ == "__main__":
    command(__doc__, "outputs/figures/figure4", make)
