"""One row a policy: learnable parameters, accuracies, effective depth; CSV holds numbers, Markdown the printed table.

python scripts/summary.py outputs/figure1 outputs/figure2 --dataset fashion_mnist --out outputs/figures/summary
"""

from nclab.analysis import choose, readable, save_table, summary_table, text_table
from nclab.analysis.cli import command


def make(runs, policies, out):
    table = summary_table(choose(runs, policies) if policies else runs)
    return text_table(readable(table)), save_table(table, out)


if __name__ == "__main__":
    command(__doc__, "outputs/figures/summary", make)
