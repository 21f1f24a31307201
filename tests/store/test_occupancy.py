"""Lanes are followed by the order of events."""

from hpjax.store.occupancy import Occupancy


def _follow(*events):
    occupancy = Occupancy()
    for kind, trial, *more in events:
        getattr(occupancy, kind)(trial, *more)
    return {s.trial: (s.lane, s.begin, s.end) for s in occupancy.stays}, occupancy.seconds


def test_a_trial_takes_the_lane_that_became_free():
    stays, seconds = _follow(
        ("start", 0, 0), ("start", 1, 0),
        ("train", 0, 2.0), ("train", 1, 2.0), ("finish", 0), ("start", 2, 0),
        ("train", 2, 3.0), ("train", 1, 3.0), ("finish", 1),
        ("train", 2, 1.0), ("finish", 2),
    )  # fmt: skip
    assert stays == {0: (0, 0, 2), 1: (1, 0, 5), 2: (0, 2, 6)} and seconds == 6


def test_groups_follow_each_other():
    stays, seconds = _follow(
        ("start", 0, 0), ("train", 0, 1.0), ("train", 0, 1.0), ("finish", 0),
        ("start", 1, 1), ("start", 2, 1), ("train", 1, 4.0), ("train", 2, 4.0),
    )  # fmt: skip
    assert stays == {0: (0, 0, 2), 1: (0, 2, 6), 2: (1, 2, 6)} and seconds == 6


def test_groups_side_by_side():
    """The third takes the place of the one that ended first."""
    stays, seconds = _follow(
        ("start", 0, 0), ("start", 1, 1), ("start", 2, 1),
        ("train", 1, 2.0), ("train", 2, 2.0), ("train", 0, 5.0),
        ("train", 1, 2.0), ("train", 2, 2.0), ("finish", 1), ("finish", 2), ("start", 3, 2),
        ("train", 0, 5.0), ("train", 3, 1.0), ("finish", 0), ("train", 3, 1.0), ("finish", 3),
    )  # fmt: skip
    assert stays == {0: (0, 0, 10), 1: (1, 0, 4), 2: (2, 0, 4), 3: (1, 4, 6)} and seconds == 10


def test_a_trial_that_diverged_at_once_was_in_no_round():
    stays, _ = _follow(("start", 0, 0), ("start", 1, 0), ("train", 1, 1.0), ("finish", 0), ("start", 2, 0))
    assert stays[0] == (0, 0, 0) and stays[2] == (0, 1, 1)
