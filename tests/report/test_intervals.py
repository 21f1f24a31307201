"""Intervals of accuracies, and axes that don't blow noise up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpjax.report.intervals import accuracy_range, binomial_interval

COUNTS = st.integers(1, 10**6)


@given(st.data(), COUNTS)
def test_an_interval_holds_its_share_and_stays_within_0_and_1(data, images):
    share = data.draw(st.integers(0, images)) / images
    low, high = binomial_interval(share, images)
    assert 0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1 and low < high


@pytest.mark.parametrize(
    ("right", "images", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)],
)
def test_intervals_are_those_of_the_literature(right, images, low, high):
    """Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3."""
    assert binomial_interval(right / images, images) == pytest.approx((low, high), abs=5e-5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), COUNTS)
def test_an_axis_shows_every_value_and_is_wider_than_noise(values, images):
    found = accuracy_range(values, images)
    low, high = found or (min(values), max(values))
    middle = (min(values) + max(values)) / 2
    noise = binomial_interval(middle, images)
    assert low <= min(values) and max(values) <= high
    assert high - low >= min(3 * (noise[1] - noise[0]), 1.0) - 1e-9
    assert found is None or (low >= -0.0200001 and high <= 1.0200001)


def test_nothing_is_known_without_a_count():
    assert accuracy_range([0.5, 0.6], 0) is None and accuracy_range([], 9) is None
