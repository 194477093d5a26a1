"""What a run records of the command that planned it: the key `paper` of its configuration.

`WING/PROFILE/PART,PART WORDS`: the paper's wing, the profile, every part of the plan that needs the run, and the
further arguments of the command, if there were any. The planner writes it and the analysis reads it.
"""

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """The key `paper`, taken apart.

    >>> record = Record.read("simplex_etf/cpu/figure1,table1 optimizer.lr=0.02")
    >>> record.wing, record.profile, record.parts, record.words
    ('simplex_etf', 'cpu', ('figure1', 'table1'), ('optimizer.lr=0.02',))
    >>> str(record)
    'simplex_etf/cpu/figure1,table1 optimizer.lr=0.02'
    """

    wing: str
    profile: str
    parts: tuple[str, ...]
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join([f"{self.wing}/{self.profile}/{','.join(self.parts)}", *map(shlex.quote, self.words)])

    @classmethod
    def read(cls, text: object) -> "Record | None":
        """The record of a run; None where it has none, or holds what no planner writes."""
        try:
            head, *words = shlex.split(text) if isinstance(text, str) else []
            wing, profile, parts = head.split("/")
        except ValueError:
            return None
        return cls(wing, profile, tuple(parts.split(",")), tuple(words)) if wing and profile and parts else None
