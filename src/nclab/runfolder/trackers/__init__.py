"""One module a tracker; each registers itself in `nclab.runfolder.tracker.TRACKERS`."""
