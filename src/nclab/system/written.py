"""The names of what a run writes into its folder. Imports no torch: `nclab-runs` must start fast."""

from pathlib import Path

from nclab.system import lock

CHECKPOINTS = ("checkpoint.pt", "checkpoint.previous.pt")
BEST = "checkpoint.best.pt"
DONE = "DONE"
LOGS = ("metrics.csv", "events.jsonl")
WANDB_ID = "wandb_id"
OF_WANDB = ("wandb", WANDB_ID)
OF_TENSORBOARD = ("tensorboard",)
FILES = {DONE, *CHECKPOINTS, BEST, *LOGS, "config.yaml", "summary.json", "slurm.json", lock.NAME}
WRITTEN = {*FILES, *OF_WANDB, *OF_TENSORBOARD}


def is_finished(folder: Path) -> bool:
    """Whether the run of this folder is finished."""
    return (folder / DONE).is_file()


def is_written(name: str) -> bool:
    """Whether a run writes a file or folder of this name, or began to.

    >>> is_written("DONE.part"), is_written("notes.txt")
    (True, False)
    """
    return name.removesuffix(".part") in WRITTEN
