"""Models, schedules and suites of metrics that this wing alone needs; each registers itself."""
