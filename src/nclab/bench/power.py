"""Cut the power under runs: what a disk holds at a random moment, and nothing that memory held, goes on.

A run lies on an ext4 file system of its own, in a file behind a loop device. At a random moment the run is stopped and
the file is copied: near what a power cut would leave, as ext4 has not written what it holds back for a while, nor what
nobody flushed. The copy is mounted, which replays the journal, and the same command goes on there. The run that at last
gets to its end must be its undisturbed twin bit for bit. Needs root and loop devices.

Two limits. The file is read over some time while the kernel goes on writing, so its blocks are of slightly different
moments. A disk that loses or reorders what it was told to flush is not played.
"""

import os
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nclab.bench.chaos import LONGEST_LIFE, Life, Report, await_moment, compare, count_moment, whole_twin

SIZE = 64 * 2**20  # bytes of the file system
TRIAL = 2**20  # bytes of one that is only mounted
PROGRAMS = ("mkfs.ext4", "mount", "umount", "e2fsck")


def not_here() -> str | None:
    """Why no power can be cut here; None where it can."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    if os.geteuid() != 0:
        return "mounting needs root"
    with tempfile.TemporaryDirectory() as folder:
        image, at = Path(folder, "image"), Path(folder, "at")
        at.mkdir()
        try:
            _make_disk(image, TRIAL)
            with _mounted(image, at):
                return None
        except subprocess.CalledProcessError as error:
            return f"mounting is refused: {error.stderr.decode().strip()}"


def run_cut(kind: str, seed: int, most_cuts: int, root: Path) -> Report:
    """Train a run of this kind twice below `root`, undisturbed and with the power cut up to `most_cuts` times, and
    compare."""
    draw = random.Random(f"power {kind} {seed}")
    report = Report()
    twin = whole_twin(kind, seed, root, report)
    if report.differences:
        return report
    disk, image = root / f"power-{seed}", root / f"power-{seed}-0.img"
    disk.mkdir(parents=True)
    _make_disk(image, SIZE)
    command = [*twin.overrides, f"output_root={disk}/outputs"]
    for cut in range(1, most_cuts + 1):
        copy = root / f"power-{seed}-{cut}.img"
        with _mounted(image, disk):
            report.counts["resumes"] += bool(list(disk.glob("outputs/*/*/checkpoint*.pt")))
            life = Life(command, twin.log, cold=False)
            await_moment(life, draw, LONGEST_LIFE * twin.seconds, disk / "outputs")
            ended = life.ended
            if not ended:
                os.kill(life.process.pid, signal.SIGSTOP)
            shutil.copyfile(image, copy)  # this moment is the cut
            if not ended:
                life.end(signal.SIGKILL)
                count_moment(report.counts, signal.SIGKILL, life, disk / "outputs")
        image.unlink()
        image = copy
        if ended:
            break
    with _mounted(image, disk):
        if code := Life(command, twin.log, cold=False).wait():
            report.differences.append(f"{kind}, seed {seed}: the last life ended with code {code}, see {twin.log}")
        for folder in twin.folders:
            compare(report, folder, disk / "outputs" / folder.relative_to(twin.root))
    image.unlink()
    return report


def _make_disk(image: Path, size: int) -> None:
    with image.open("wb") as file:
        file.truncate(size)
    _run("mkfs.ext4", "-q", "-F", str(image))


@contextmanager
def _mounted(image: Path, at: Path) -> Iterator[None]:
    _run("mount", "-o", "loop", str(image), str(at))
    try:
        yield
    finally:
        _run("umount", "--lazy", str(at))  # a process of a tracker may outlive its run for a moment


def _run(*command: str) -> None:
    env = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    subprocess.run(command, check=True, env=env, capture_output=True)
