"""How far a sweep is: one living line on a terminal, plain lines elsewhere."""

import contextlib
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from hpjax.errors import one_line


class Progress:
    """Shows a sweep's progress; a context manager that ends the line.

    On a terminal one line is rewritten; elsewhere (a log file) a line is written at most every
    `interval` seconds, and one at the end. Where nothing can be written (any more), it shows nothing.

    Args:
      total: epochs of all trials together, the measure of the bar; may be changed by `set_total`.
      stream: where to; stderr by default.
      interval: seconds between plain lines; 0 writes every update.
      clock: returns seconds; for tests.
    """

    def __init__(
        self,
        total: int,
        stream: TextIO | None = None,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total, self._stream = max(1, total), stream or sys.stderr
        self._interval, self._clock = interval, clock
        self._terminal = _is_terminal(self._stream)
        self._done, self._first_done = 0, None
        self._start = self._clock()
        self._last = -math.inf
        self._line = ""
        self._unwritten = False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_total(self, total: int) -> None:
        """Changes how many trial epochs there are, e.g. after trials were pruned."""
        self._total = max(1, total)

    def update(
        self,
        done: int,
        running: int,
        images_per_second: float | None = None,
        best: str = "",
        detail: str = "",
    ) -> None:
        """Shows a new state.

        Args:
          done: trial epochs done since the sweep began, earlier processes included.
          running: trials that train now.
          images_per_second: training images of all lanes together.
          best: the best trial so far, e.g. `trial 3, test acc. 0.91`.
          detail: what else is worth a word, e.g. `epoch 3/10`.
        """
        self._note(done)
        self._show(self._describe(running, images_per_second, best, detail))

    def count(self, done: int, what: str) -> None:
        """Shows how far something else than trials is, e.g. `decoding images`."""
        self._note(done)
        share = f"{min(1.0, done / self._total):4.0%} {done:,}/{self._total:,}"
        self._show(one_line(" | ".join(filter(None, [f"{what} {share}", self._describe_left()]))))

    def _note(self, done: int) -> None:
        if self._first_done is None:
            # Epochs of an earlier process and the one that compiled say little about the pace.
            self._first_done, self._start = done, self._clock()
        self._done = done

    def _show(self, line: str) -> None:
        self._line = line
        if self._terminal:
            self._rewrite(self._line)
        elif self._clock() - self._last >= self._interval:
            self._print_line()
        else:
            self._unwritten = True

    def message(self, text: str) -> None:
        """Writes a line that stays, above the living one."""
        line = one_line(text)
        if self._terminal:
            self._write(f"\r\x1b[K{line}\n")
            self._rewrite(self._line)
        else:
            self._write(f"{line}\n")

    def close(self) -> None:
        """Leaves the last state standing; a second call does nothing."""
        if self._terminal and self._line:
            self._write("\n")
        elif self._unwritten:
            self._print_line()
        self._line = ""

    def _describe(self, running: int, images_per_second: float | None, best: str, detail: str) -> str:
        share = min(1.0, self._done / self._total)
        parts = [f"{share:4.0%} {self._done}/{self._total} trial epochs", detail]
        parts += [f"{running} running" if running else "", f"best: {best}" if best else ""]
        parts += [f"{images_per_second:,.0f} images/s" if images_per_second else "", self._describe_left()]
        return one_line(" | ".join(part for part in parts if part))

    def _describe_left(self) -> str:
        assert self._first_done is not None
        seen = self._done - self._first_done
        if self._done >= self._total:
            return ""
        if seen <= 0:
            return "time left unknown"
        seconds = (self._clock() - self._start) / seen * (self._total - self._done)
        return f"{format_seconds(seconds)} left"

    def _rewrite(self, line: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        self._write(f"\r\x1b[K{line[:width]}")

    def _print_line(self) -> None:
        self._last, self._unwritten = self._clock(), False
        self._write(f"{self._line}\n")

    def _write(self, text: str) -> None:
        # None, closed, full, or a terminal that is gone: training goes on.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.write(text)
            self._stream.flush()


@contextlib.contextmanager
def counting(what: str, stream: TextIO | None = None) -> Iterator[Callable[[int, int], None]]:
    """Yields `show(done, total)`, which shows how far something is; where all is done at once, nothing is.

    Args:
      what: is done, e.g. `decoding images`.
      stream: where to; stderr by default.
    """
    shown: Progress | None = None

    def show(done: int, total: int) -> None:
        nonlocal shown
        if shown is None and done < total:
            shown = Progress(total, stream)
        if shown is not None:
            shown.set_total(total)
            shown.count(done, what)
        if shown is not None and done >= total:
            shown.close()
            shown = None

    try:
        yield show
    finally:
        if shown is not None:
            shown.close()


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def format_seconds(seconds: float) -> str:
    """Returns a duration as a person would say it: `45 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    seconds = round(seconds)
    if seconds < 90:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
