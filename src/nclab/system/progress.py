"""Something that takes minutes says how far it is."""

import sys
import time
from collections.abc import Collection, Iterator
from typing import TypeVar

T = TypeVar("T")
SECONDS = 5.0  # between lines, and before the first: what is quick says nothing


def telling(items: Collection[T], done: str) -> Iterator[T]:
    """The items one after the other; a line on stderr every few seconds: '{done} 1200 of 10000 runs'."""
    said = time.monotonic()
    for number, item in enumerate(items):
        if number and time.monotonic() - said >= SECONDS:
            said = time.monotonic()
            print(f"{done} {number} of {len(items)} runs", file=sys.stderr, flush=True)
        yield item
