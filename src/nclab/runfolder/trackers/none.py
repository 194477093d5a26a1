"""tracker=none: nothing is mirrored."""

from nclab.runfolder.tracker import TRACKERS, Tracker, TrackerSettings


@TRACKERS.add("none", TrackerSettings)
def no_tracker(settings: TrackerSettings) -> Tracker:
    return Tracker()
