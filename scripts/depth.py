"""NC1, NC2, NC3 of the last layer against the number of blocks, slopes, train accuracy: PDF, PNG and their table.

python scripts/depth.py outputs/depth_rn1 outputs/depth_rn2 outputs/depth_rn2_constant --dataset mnist
python scripts/depth.py outputs/depth_rn1 --seeds 0,1,2 --out outputs/figures/depth_rn1
"""

from nclab.analysis import depth, save_figure, slopes, text_table
from nclab.analysis.cli import command


def make(runs, policies, out):
    figure, table = depth(runs, policies)
    return text_table(slopes(table)), save_figure(figure, table, out)


if __name__ == "__main__":
    command(__doc__, "outputs/figures/depth", make)
