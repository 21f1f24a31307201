"""Standard output and error that may be gone, full, closed, or unable to write a character: work goes on."""

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_SUBSTITUTES = {"±": "+-", "…": "...", "–": "-", "≤": "<=", "≥": ">=", "’": "'", "→": "->", "×": "x"}
ENCODING_ERRORS = "hpjax.substitute"


class LastingStream(io.TextIOBase):
    """A text stream that drops what can't be written any more, and remembers why.

    Args:
      stream: what is written to.

    Attributes:
      error: what the first failure was; None before one.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.error: Exception | None = None

    def write(self, text: str, /) -> int:
        """Writes text, or drops it."""
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes the stream; what it can't take is dropped."""
        with self._dropping():
            self._stream.flush()

    def close(self) -> None:
        """Leaves the stream open: it isn't this object's own."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's."""
        return self._stream.encoding

    def isatty(self) -> bool:
        """Returns whether a person sees what is written as it is written."""
        try:
            return self._stream.isatty()
        except ValueError:  # it is closed
            return False

    def fileno(self) -> int:
        """Returns the stream's file descriptor."""
        return self._stream.fileno()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            self.error = self.error or error
            _lead_nowhere(self._stream)


@contextlib.contextmanager
def lasting_output() -> Iterator[LastingStream]:
    """Replaces `sys.stdout` and `sys.stderr` by streams that don't fail, while entered; gives the former."""
    _occupy_descriptors()
    before = sys.stdout, sys.stderr
    streams = [LastingStream(stream or open(os.devnull, "w", encoding="utf-8")) for stream in before]  # noqa: SIM115
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ENCODING_ERRORS)
    sys.stdout, sys.stderr = streams
    try:
        yield streams[0]
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before


def describe_lost_output(error: Exception) -> str:
    """Returns why nothing more could be written to stdout; nothing where its reader has just gone away."""
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        return ""
    return getattr(error, "strerror", None) or str(error)


def _occupy_descriptors() -> None:
    """Opens what is closed of the first three file descriptors: a file of ours must not become one of them.

    Libraries write to them without asking, and would write into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(opened, True)


def _lead_nowhere(stream: TextIO) -> None:
    """Has a stream's file descriptor lead to the null device: what is still buffered goes there, too."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, stream.fileno())
        finally:
            os.close(null)


def _substitute(error: UnicodeError) -> tuple[str | bytes, int]:
    """Writes what an encoding lacks as plain ASCII; what has no such form as an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    plain = "".join(_SUBSTITUTES.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking)
    return plain, error.end


codecs.register_error(ENCODING_ERRORS, _substitute)
