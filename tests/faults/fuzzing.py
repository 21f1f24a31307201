"""Draws inputs with hypothesis, always the same ones, and limits how long each may take."""

import contextlib
import signal
from collections.abc import Callable, Iterator

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

SECONDS = 120  # that an input may take, on a busy machine, until it counts as a hang


def fuzz(examples: int, draws: SearchStrategy, test: Callable) -> None:
    """Calls `test` with so many examples of `draws`."""
    health = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    decorate = settings(
        max_examples=examples,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        derandomize=True,
        database=None,
        suppress_health_check=[*health, HealthCheck.function_scoped_fixture],
    )
    decorate(given(draws)(test))()


@contextlib.contextmanager
def time_limit(tried: object) -> Iterator[None]:
    """Fails where what is tried takes too long."""

    def hang(number, frame):
        raise AssertionError(f"it hangs: {tried}")

    previous = signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
