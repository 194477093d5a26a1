"""What every other room may import: registry and plug-ins, batches, targets, shapes of samples,
the effective depth."""
