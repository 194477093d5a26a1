"""`nclab-runs`: what became of the runs, while they run and after. Reads run folders; imports no torch, and pandas only
to export, so that a look at thousands of folders takes a second or two."""

from nclab.runs.command import main

__all__ = ["main"]
