"""One module a suite; each registers itself in `nclab.metrics.suite.METRICS`."""
