"""What every other room may import: registry, shapes of samples."""
