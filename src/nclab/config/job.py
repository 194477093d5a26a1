"""One run of a command line."""

from dataclasses import dataclass

from nclab.config.schema import RunConfig

Words = tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """One run of a command line, or with `seeds` several: its words, and the checked configuration that they make."""

    words: Words
    config: RunConfig
