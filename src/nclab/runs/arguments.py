"""How the words of `nclab-runs` are read, and how wrong ones are refused: in one line, before any work."""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

BAD_INPUT = 2  # exit code
LEAST_SECONDS = 1.0


class Parser(argparse.ArgumentParser):
    """Its errors are one line, exit status 2. (That of nclab.analysis would bring pandas and matplotlib.)"""

    def error(self, message: str):
        print(f"{self.prog}: {message}", file=sys.stderr)
        raise SystemExit(BAD_INPUT)


def names(text: str) -> tuple[str, ...]:
    """'nc1,nc3' as a list."""
    return tuple(text.split(","))


def seconds(text: str) -> float:
    """A number of them, LEAST_SECONDS or more."""
    try:
        number = float(text)
    except ValueError:
        hint = "; name the folders in front of --watch" if Path(text).is_dir() else ""
        raise argparse.ArgumentTypeError(f"expected seconds, got {text}{hint}") from None
    if not LEAST_SECONDS <= number < math.inf:
        raise argparse.ArgumentTypeError(f"expected {LEAST_SECONDS:g} or more seconds, got {text}")
    return number


def states(valid: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """What reads 'failed,running', each one of the valid states."""

    def chosen(text: str) -> tuple[str, ...]:
        for state in text.split(","):
            if state not in valid:
                raise argparse.ArgumentTypeError(f"unknown state '{state}'; valid: {', '.join(valid)}")
        return tuple(text.split(","))

    return chosen
