"""One module a sequence of phases beside that of `nclab.training.phases`; each registers itself in its `PHASES`."""
