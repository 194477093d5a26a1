"""The tests that are marked `gpu`: each runs what it tests on the device."""

import re
import subprocess
import sys
from pathlib import Path

from nclab.bench.gpu.row import Aim, Line, Row, WrongResult

MARK = "mark.gpu"
ALL = Aim("device tests that pass (pytest -m gpu)", "tests", least=1)


def tests_folder() -> Path:
    """That of the checkout in which this package lies, or of the current folder."""
    places = [folder / "tests" for folder in (Path(__file__).parents[4], Path.cwd())]
    for place in places:
        if (place / "conftest.py").exists():
            return place
    raise FileNotFoundError(f"expected a checkout with its tests, looked for {' and '.join(map(str, places))}")


def marked(folder: Path) -> list[Path]:
    """The files with a test for the device: to import the others takes a minute."""
    return sorted(file for file in folder.glob("test_*.py") if MARK in file.read_text())


def passed(output: str) -> int:
    """How many tests the last line of pytest says to have passed."""
    found = re.search(r"(\d+) passed", output.strip().splitlines()[-1] if output.strip() else "")
    return int(found[1]) if found else 0


def measure(device: str) -> list[Row]:
    folder = tests_folder()
    words = ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-rf"]
    done = subprocess.run(
        [sys.executable, *words, *map(str, marked(folder))], cwd=folder.parent, capture_output=True, text=True
    )
    print(done.stdout, done.stderr, sep="\n", flush=True)
    if done.returncode:
        last = (done.stdout.strip() or done.stderr.strip() or "no output").splitlines()[-1]
        raise WrongResult(f"pytest ended with code {done.returncode}: {last}")
    return [ALL.row(passed(done.stdout))]


LINE = Line("device tests", 90, (ALL,), measure)
