"""Standard streams that outlive their terminal: what is printed never ends a command.

A reader may leave (`| head -1`), a stream be closed from the start (`>&-`), the disk behind it be full, or a terminal
know no letters but those of ASCII. Output is then dropped, or shown with question marks, and the work goes on.
"""

import codecs
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO


def _marked(error: UnicodeError) -> tuple[bytes, int]:
    """Bytes of a file's name that Python could not read stand as they are (PEP 383), for others a question mark."""
    letters = error.object[error.start : error.end]
    return b"".join(bytes([ord(c) - 0xDC00]) if "\udc80" <= c <= "\udcff" else b"?" for c in letters), error.end


codecs.register_error("nclab.marked", _marked)


class Lasting:
    """A text stream that never raises: after the first failure what is written to it is dropped. Characters that its
    encoding lacks become question marks. All else is the stream's own."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="nclab.marked")

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except (OSError, ValueError):  # a ValueError where the stream was closed
            divert(self._stream)
        except RuntimeError:  # a signal handler prints in the middle of a print
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def divert(stream: TextIO) -> None:
    """Let what is written to the stream from now on, and what it still holds, go nowhere: Python would fail to flush it
    at its end, with exit code 120."""
    with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


@contextlib.contextmanager
def lasting_terminal() -> Iterator[None]:
    """Within, stdin, stdout and stderr are there, and printing never raises."""
    _open_missing()
    with contextlib.redirect_stdout(Lasting(sys.stdout)), contextlib.redirect_stderr(Lasting(sys.stderr)):
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()


def _open_missing() -> None:
    """Python has None in the place of a stream that was closed at its start. Its number must be taken all the same: the
    next file that is opened would get it, and whatever a library prints."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open(mode)  # noqa: SIM115 (it stays)
            setattr(sys, name, nowhere)
            try:
                os.fstat(number)
            except OSError:
                os.dup2(nowhere.fileno(), number)
            os.set_inheritable(number, True)  # for the commands that this one starts
