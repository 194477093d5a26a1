"""Vision transformers of several depths, baseline against FFN-ETF, train and test: PDF, PNG and the table behind them.

python scripts/figure3.py outputs/figure3 --dataset fashion_mnist --out outputs/figures/figure3
python scripts/figure3.py outputs/figure3 --policies "baseline,FFN-ETF,frozen FFN,no FFN"     with the controls
"""

from nclab.analysis import brief, figure3, save_figure, text_table
from nclab.analysis.cli import command


def make(runs, policies, out):
    figure, table = figure3(runs, policies)
    return text_table(brief(table)), save_figure(figure, table, out)


if __name__ == "__main__":
    command(__doc__, "outputs/figures/figure3", make)
