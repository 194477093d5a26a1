"""The names of what a run writes into its folder. Imports no torch: `nclab-runs` must start fast."""

from nclab.system import lock

CHECKPOINTS = ("checkpoint.pt", "checkpoint.previous.pt")
LOGS = ("metrics.csv", "events.jsonl")
WANDB_ID = "wandb_id"
OF_WANDB = ("wandb", WANDB_ID)
WRITTEN = {"DONE", *CHECKPOINTS, *LOGS, *OF_WANDB, "config.yaml", "summary.json", "slurm.json", lock.NAME}


def is_written(name: str) -> bool:
    """Whether a run writes a file or folder of this name, or began to.

    >>> is_written("DONE.part"), is_written("notes.txt")
    (True, False)
    """
    return name.removesuffix(".part") in WRITTEN
