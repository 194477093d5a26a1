"""A Slurm whose commands are scripts that say what a test wants to hear; a real one is in test_slurm.py."""

from pathlib import Path

from nclab.cluster.slurm import SlurmSettings

QUICK = SlurmSettings(poll_seconds=0.1, wait=False)


class FakeSlurm:
    """sbatch, squeue, scontrol and srun on the PATH: files say what they print, `calls` what they were called with."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        self.script("sbatch", 'cp "$1" script; echo "Submitted batch job $(cat next)"')
        self.script("squeue", "cat queue")
        self.script("srun", "exit 1")  # submitit looks for it before it submits
        self.script("scontrol", 'if [ "$1" = show ]; then cat job; else cat requeued >&2; [ ! -s requeued ]; fi')
        self.say(next="42", queue="", job="", requeued="")

    def script(self, name: str, body: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> {self.folder}/calls\n'
                        f"cd {self.folder}\n{body}\n")  # fmt: skip
        path.chmod(0o755)

    def say(self, **files: str) -> None:
        for name, text in files.items():
            (self.folder / name).write_text(text)

    def calls(self, name: str) -> list[str]:
        path = self.folder / "calls"
        return [line for line in path.read_text().splitlines() if line.split()[0] == name] if path.exists() else []
