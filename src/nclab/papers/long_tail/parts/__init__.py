"""Models, datasets, schedules and suites of metrics that this paper alone needs; each registers itself."""
