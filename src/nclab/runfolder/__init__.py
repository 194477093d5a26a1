"""What observes a fit and writes: run folder, checkpoint, trackers, terminal."""
