"""NC1 and NCC accuracy behind every block of networks of several depths: PDF, PNG and the table behind them.

python scripts/depth_blocks.py outputs/depth_rn1 outputs/depth_rn2 --dataset mnist
python scripts/depth_blocks.py outputs/depth_t11_text --out outputs/figures/depth_blocks_text
"""

from nclab.analysis import depth_blocks, ends, save_figure, text_table
from nclab.analysis.cli import command


def make(runs, policies, out):
    figure, table = depth_blocks(runs, policies)
    return text_table(ends(table)), save_figure(figure, table, out)


if __name__ == "__main__":
    command(__doc__, "outputs/figures/depth_blocks", make)
