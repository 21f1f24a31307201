"""Side work takes its share of the time and no more, what it leaves to a thread included."""

import threading
import time

import pytest

from hpjax.store.background import BackgroundWriter
from hpjax.sweep import pacing
from hpjax.sweep.pacing import Pace


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""
    now = [0.0]
    monkeypatch.setattr(pacing.time, "monotonic", lambda: now[0])
    return now


def _count_over_an_hour(clock, seconds, aside):
    pace, begun = Pace(), []

    def work():
        begun.append(clock[0])
        clock[0] += seconds

    while clock[0] < 3600:
        clock[0] += 1
        pace.every(0.1, "save", work, lambda: aside)
    return begun


@pytest.mark.parametrize(("seconds", "aside", "times"), [(1.0, 0.0, 3600 / 11), (1.0, 4.0, 3600 / 51)])
def test_work_takes_its_share_of_the_time(seconds, aside, times, clock):
    begun = _count_over_an_hour(clock, seconds, aside)
    assert begun[0] == 1
    assert len(begun) == pytest.approx(times, abs=1)


def test_a_write_counts_while_it_lasts_and_afterwards():
    writer, go = BackgroundWriter(1), threading.Event()
    writer.submit(go.wait)
    time.sleep(0.05)
    so_far = writer.seconds
    time.sleep(0.05)
    assert 0.05 <= so_far < writer.seconds
    go.set()
    writer.wait()
    took = writer.seconds
    assert took >= 0.1 and writer.seconds == took
    writer.close()
