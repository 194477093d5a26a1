"""One module a sampler beside those of `nclab.training.sampler`; each registers itself in its `SAMPLERS`."""
