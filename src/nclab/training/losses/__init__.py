"""One module a loss beside those of `nclab.training.objective`; each registers itself in its `LOSSES`."""
