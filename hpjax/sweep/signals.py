"""SIGINT, SIGTERM and SIGHUP as a flag that the loop looks at; the second one ends the process at once."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from hpjax.errors import Signalled

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Notes the first of the signals while it is entered; a context manager.

    SIGHUP stays ignored where it is (`nohup`).

    Attributes:
      received: the signal's number, or 0.
    """

    def __init__(self):
        self.received = 0
        self._at_once = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in _NUMBERS:
                if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Has a signal interrupt what runs meanwhile: work of which nothing would be saved.

        Raises:
          Signalled: One arrived, meanwhile or before.
        """
        self._at_once = True
        try:
            if self.received:
                raise Signalled(self.received)
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self.received = bool(self.received), number
        if again or self._at_once:
            raise Signalled(number)
