"""How often side work is done: tables and checkpoints may take a share of the wall time, no more."""

import time
from collections.abc import Callable


class Pace:
    """Spaces out work so that it takes at most a share of the wall time.

    Args:
      clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._begun: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._cost: dict[str, float] = {}
        self._fresh: set[str] = set()
        self._start = clock()

    def affords(self, name: str, share: float, aside: float = 0.0) -> bool:
        """Returns whether the work, as dear as the last time, may be done now.

        Args:
          name: of the work.
          share: of the wall time that it may take.
          aside: seconds that it took besides, the last time: what it left to a thread.
        """
        return name not in self._cost or self.since(name) >= (self._cost[name] + aside) / share

    def begin(self, name: str, ago: float = 0.0) -> None:
        """Says that the work begins, or that it has cost so many seconds already."""
        self._begun[name] = self._clock() - ago

    def end(self, name: str) -> None:
        """Says that the work is done; it costs what has passed since its beginning."""
        self._last[name] = self._clock()
        self._cost[name] = self._last[name] - self._begun.get(name, self._last[name])
        self._fresh.add(name)

    def since(self, name: str) -> float:
        """Returns the seconds since the work was last done, or since the start."""
        return self._clock() - self._last.get(name, self._start)

    def age(self) -> None:
        """Says that a new boundary has come: nothing that was done before is up to date."""
        self._fresh.clear()

    def refresh(self, name: str) -> None:
        """Says that nothing has happened since the work was done."""
        self._fresh.add(name)

    def fresh(self, name: str) -> bool:
        """Returns whether the work was done at the last boundary."""
        return name in self._fresh
