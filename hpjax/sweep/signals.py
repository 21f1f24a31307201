"""SIGINT and SIGTERM as a flag that the loop looks at; the second one ends the process at once."""

import signal
import threading
from types import FrameType


class Signals:
    """Notes the first SIGINT or SIGTERM while it is entered; a context manager.

    Attributes:
      received: the signal's number, or 0.
    """

    def __init__(self):
        self.received = 0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = number
