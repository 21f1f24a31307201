"""Side work takes its share of the time and no more, what it leaves to a thread included."""

import threading

import pytest

from hpjax.store.background import BackgroundWriter
from hpjax.sweep.pacing import Pace


def _count_over_an_hour(seconds, aside):
    now, begun = [0.0], []
    pace = Pace(lambda: now[0])
    while now[0] < 3600:
        now[0] += 1
        if pace.affords("save", 0.1, aside):
            pace.begin("save")
            begun.append(now[0])
            now[0] += seconds
            pace.end("save")
    return begun


@pytest.mark.parametrize(("seconds", "aside", "times"), [(1.0, 0.0, 3600 / 11), (1.0, 4.0, 3600 / 51)])
def test_work_takes_its_share_of_the_time(seconds, aside, times):
    begun = _count_over_an_hour(seconds, aside)
    assert begun[0] == 1
    assert len(begun) == pytest.approx(times, abs=1)


def test_work_is_up_to_date_until_the_next_boundary():
    pace = Pace()
    assert not pace.fresh("save")
    pace.begin("save")
    pace.end("save")
    assert pace.fresh("save")
    pace.age()
    assert not pace.fresh("save")


def test_a_write_counts_while_it_lasts_and_afterwards(monkeypatch):
    now, go = [0.0], threading.Event()
    monkeypatch.setattr("hpjax.store.background.time.monotonic", lambda: now[0])
    writer = BackgroundWriter(1)
    writer.submit(go.wait)
    now[0] = 5.0
    assert writer.seconds == 5.0
    now[0] = 7.0
    go.set()
    writer.wait()
    now[0] = 9.0
    assert writer.seconds == 7.0
    writer.close()
