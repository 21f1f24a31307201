"""How often side work is done: tables and checkpoints may take a share of the wall time, no more."""

import time
from collections.abc import Callable


class Pace:
    """Spaces out work so that it takes at most a share of the wall time."""

    def __init__(self):
        self._last: dict[str, float] = {}
        self._cost: dict[str, float] = {}
        self._fresh: set[str] = set()
        self._start = time.monotonic()

    def every(
        self, share: float, name: str, work: Callable[[], None], aside: Callable[[], float] = lambda: 0.0
    ) -> None:
        """Does the work unless it was done too recently for its cost.

        Args:
          share: of the wall time that the work may take.
          name: of the work.
          work: what is to be done.
          aside: returns the seconds that it took besides, the last time, so far: what it left to a thread.
        """
        if name in self._cost and self.since(name) < (self._cost[name] + aside()) / share:
            return
        begin = time.monotonic()
        work()
        self._last[name] = time.monotonic()
        self._cost[name] = self._last[name] - begin
        self._fresh.add(name)

    def since(self, name: str) -> float:
        """Returns the seconds since the work was last done, or since the start."""
        return time.monotonic() - self._last.get(name, self._start)

    def age(self) -> None:
        """Says that a new boundary has come: nothing that was done before is up to date."""
        self._fresh.clear()

    def refresh(self, name: str) -> None:
        """Says that nothing has happened since the work was done."""
        self._fresh.add(name)

    def fresh(self, name: str) -> bool:
        """Returns whether the work was done at the last boundary."""
        return name in self._fresh
