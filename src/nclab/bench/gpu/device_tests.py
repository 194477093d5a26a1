"""The tests that are marked `gpu`: each runs what it tests on the device."""

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from nclab.bench.gpu.row import Aim, Line, Row, WrongResult, at_once

MARK = "mark.gpu"
KINDS = ("tests", "errors", "failures", "skipped")  # counts of a JUnit report
ALL = Aim("device tests that pass (pytest -m gpu)", "of all", least=1)


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


def counted(report: Path) -> tuple[int, int]:
    """How many tests passed and how many there are, by pytest's JUnit report. One that is skipped did not pass."""
    suites = list(ElementTree.parse(report).iter("testsuite"))  # noqa: S314 - our own pytest wrote it
    tests, *others = (sum(int(suite.get(kind, 0)) for suite in suites) for kind in KINDS)
    return tests - sum(others), tests


def measure(device: str) -> list[Row]:
    folder = tests_folder()
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.xml"
        words = ["-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-rfEs", f"--junitxml={report}"]
        done = subprocess.run(
            [sys.executable, *words, *map(str, marked(folder))], cwd=folder.parent, capture_output=True, text=True
        )
        print(done.stdout, done.stderr, sep="\n", flush=True)
        if done.returncode:
            last = (done.stdout.strip() or done.stderr.strip() or "no output").splitlines()[-1]
            raise WrongResult(f"pytest ended with code {done.returncode}: {last}")
        passed, tests = counted(report)
    return [ALL.row(passed / tests, f"{passed} of {tests} tests")]


LINE = Line("device tests", 90, (ALL,), at_once(measure))
