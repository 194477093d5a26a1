"""What a sweep says of the layers that its runs fix, whose own lines its terminal does not show."""

from pathlib import Path

from nclab.runs.state import fixed_at_start


class FixedLayers:
    """Says which layers the runs fix, once for runs that differ in nothing but seed and hash."""

    def __init__(self) -> None:
        self.known: set[Path] = set()
        self.said: set[str] = set()

    def look(self, folder: Path) -> None:
        """Say it of the run in this folder, if it has begun and none like it came before."""
        if folder in self.known or (fixed := fixed_at_start(folder)) is None:
            return
        self.known.add(folder)
        line = f"  {folder.name.rsplit('-', 2)[0]}: {fixed}"
        if line not in self.said:
            self.said.add(line)
            print(line, flush=True)
