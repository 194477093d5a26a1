"""The console command `nclab-train`: help and completion at once, all else by `nclab.train`."""

import sys

from nclab.config.shown import shown


def main() -> None:
    """Console entry; the exit codes are those of `nclab.train.main`."""
    if shown(sys.argv[1:]):
        return
    from nclab.train import main as train

    train()
