"""What a line of the acceptance should reach, and a row of its table: what came, and the verdict."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

MET, MISSED, NO_GPU, FAILED, TOLD = "met", "missed", "no GPU", "failed", ""
NOT_TIMED = "not timed"  # for want of time: no failure


@dataclass(frozen=True)
class Row:
    """number: what was measured, in the unit that `value` writes it with; None where nothing was."""

    what: str
    aim: str
    value: str
    verdict: str
    number: float | None = None


@dataclass(frozen=True)
class Aim:
    """What is measured and the number that it should reach: at `least` or at `most` so many of `unit`; neither: it is
    told, without a verdict."""

    what: str
    unit: str = ""
    least: float | None = None
    most: float | None = None

    @property
    def text(self) -> str:
        bound, word = (self.least, "at least") if self.least is not None else (self.most, "at most")
        return "" if bound is None else f"{word} {bound:g} {self.unit}".strip()

    def row(self, number: float, beside: str = "") -> Row:
        """The row of a measured number; `beside` stands behind it in the table."""
        reached = (self.least is None or number >= self.least) and (self.most is None or number <= self.most)
        verdict = TOLD if self.least is self.most is None else MET if reached else MISSED
        value = f"{number:.3g} {self.unit}".strip() if abs(number) < 1000 else f"{number:,.0f} {self.unit}".strip()
        return Row(self.what, self.text, f"{value}; {beside}" if beside else value, verdict, number)

    def unmeasured(self, verdict: str, why: str = "") -> Row:
        return Row(self.what, self.text, why, verdict)


# measure(device, seconds): the rows of a line, again and again as more are measured, within so many seconds
Measure = Callable[[str, float], Iterable[list[Row]]]


def at_once(measure: Callable[[str], list[Row]]) -> Measure:
    """Of a line whose rows come together, however much time it has."""
    return lambda device, seconds: [measure(device)]


@dataclass(frozen=True)
class Line:
    """One module's part of the acceptance: `measure` gives the rows of `aims`, in at most `seconds`.

    counted: the rows that a machine without a GPU can tell; None: those of `aims`, unmeasured.
    """

    name: str
    seconds: float
    aims: tuple[Aim, ...]
    measure: Measure
    counted: Callable[[], list[Row]] | None = None

    def unmeasured(self, verdict: str, why: str = "") -> list[Row]:
        return [aim.unmeasured(verdict, why) for aim in self.aims]


class WrongResult(RuntimeError):
    """The device computed something else than it must: no aim is missed, the line failed."""


def reason(error: BaseException) -> str:
    """The kind of an error and the first line that it says, the second too where the first only announces it."""
    first, *more = [line.strip() for line in str(error).strip().splitlines()] or [""]
    said = f"{first} {more[0]}" if first.endswith(":") and more else first
    return f"{type(error).__name__}: {said}"[:200]
