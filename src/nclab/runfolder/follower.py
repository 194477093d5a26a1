"""What the processes of a run that are not its first have in the place of its folder."""

import json
import time
from pathlib import Path

from nclab.runfolder.folder import RunFolder, RunLocked

SECONDS_FOR_THE_FIRST = 10.0  # to write why it ends, and to let go of the folder
ENDS = ("failed", "stopped", "diverged", "done")  # last events of a process that could still write


class Follower(RunFolder):
    """Writes nothing; the first process does. Where that one died, `speak_for_the_first` writes its last event."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> "Follower":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def speak_for_the_first(self, reason: str) -> bool:
        """Note in events.jsonl that the run failed, if nobody did; true where the first process cannot have told the
        user: it died, or its folder is out of reach from here."""
        deadline = time.monotonic() + SECONDS_FOR_THE_FIRST
        while True:
            try:
                with RunFolder(self.path) as folder:
                    lines = (self.path / "events.jsonl").read_text().splitlines()
                    if lines and json.loads(lines[-1])["event"] in ENDS:
                        return False
                    folder.open_events()
                    folder.event("failed", reason=reason)
                    return True
            except RunLocked:  # it lives
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.1)
            except (OSError, ValueError):
                return True
