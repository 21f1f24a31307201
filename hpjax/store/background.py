"""Disk work off the training path: one thread, few copies in memory, errors raised at the next call."""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class BackgroundWriter:
    """Runs tasks one after the other in one background thread.

    Args:
      limit: tasks, and so copies in memory, that may be under way; `submit` waits for the oldest beyond it.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._executor: ThreadPoolExecutor | None = None
        self._futures: deque[Future] = deque()
        self._begin, self._end = 0.0, 0.0

    @property
    def seconds(self) -> float:
        """How long the newest task has taken, so far; of several at once, counted from when it was given."""
        running = bool(self._futures) and not self._futures[-1].done()
        return (time.monotonic() if running else self._end) - self._begin

    def submit(self, task: Callable, *args: object) -> None:
        """Starts a task; raises what an earlier one raised."""
        self.wait(self._limit - 1)
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._begin = time.monotonic()
        self._futures.append(self._executor.submit(self._run, task, *args))

    def _run(self, task: Callable, *args: object) -> None:
        try:
            task(*args)
        finally:
            self._end = time.monotonic()

    def wait(self, left: int = 0) -> None:
        """Returns when at most `left` tasks are under way; raises what one of them raised."""
        while self._futures and (len(self._futures) > left or self._futures[0].done()):
            self._futures.popleft().result()

    def close(self) -> None:
        """Waits for every task and ends the thread; raises what one of them raised."""
        try:
            self.wait()
        finally:
            if self._executor is not None:
                self._executor.shutdown()
                self._executor = None
            self._futures.clear()
