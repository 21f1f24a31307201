"""Training that is slower than its plan said: another layout is taken, once, and remembered."""

import json

import pytest

from hpjax.lanes.capacity import Choice
from hpjax.lanes.correction import Correction, create_correction
from hpjax.lanes.engine import Layout
from hpjax.lanes.probe import Candidate
from hpjax.ops import memory

INFINITE = float("inf")
WIDE, ALONE, THREADS = Candidate(4, 2), Candidate(1), Candidate(1, 2)
MEASURED = {ALONE: 1.0, THREADS: 0.8, WIDE: 0.6, Candidate(16): 0.65}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HPJAX_CACHE", str(tmp_path))


def _create(key="mine", devices=1):
    layout = Layout(4, 1, devices, 2)
    return create_correction(Choice(layout, 8 * devices, 4.8, 1.6, 0, {4: 0.6}, WIDE, MEASURED, key))


def _run(correction, seconds):
    """Returns the layouts that are changed to, by epoch; epochs take what `seconds` says of their layout."""
    layout, changes = Layout(4, 1, 1, 2), {}
    for epoch in range(1, 9):
        taken = seconds[Candidate(layout.lanes_per_shard, layout.threads)]
        new = correction.next_layout(epoch, taken, layout)
        if new is not None:
            changes[epoch] = (new.lanes_per_shard, new.threads)
            layout = new
    return changes


@pytest.mark.parametrize(
    ("trained", "changes"),
    [
        ({WIDE: 0.6, THREADS: 0.8}, {}),  # as planned
        ({WIDE: 0.75, THREADS: 0.8}, {}),  # slower, but no other was measured to be faster
        ({WIDE: 1.5, THREADS: 0.9}, {2: (1, 2)}),
        ({WIDE: 1.5, THREADS: 1.6}, {2: (1, 2), 4: (4, 2)}),  # the other one keeps its promise even less
    ],
)
def test_what_is_slower_than_another_was_measured_is_changed_once(trained, changes):
    assert _run(_create(), trained) == changes
    # Run again, the same sweep changes at the same epochs, however fast it is now.
    assert _run(_create(), {WIDE: 0.6, THREADS: 0.6}) == changes


def test_wider_layouts_than_there_are_lanes_are_no_choice():
    assert set(_create().planned) == {ALONE.name, THREADS.name, WIDE.name}


def test_epochs_with_idle_lanes_say_nothing():
    correction = _create()
    for epoch in range(1, 6):
        assert correction.next_layout(epoch, INFINITE, Layout(4, 1, 1, 2)) is None
    assert not correction.decided and not correction.trained


def test_a_decision_survives_a_ledger():
    correction = _create()
    assert correction.next_layout(1, 1.5, Layout(4, 1, 1, 2)) is None
    again = Correction(**json.loads(json.dumps(correction.to_dict())))
    assert again == correction
    assert again.next_layout(2, 1.5, Layout(4, 1, 1, 2)) == Layout(1, 1, 1, 2)


def test_the_fastest_epoch_counts():
    correction = _create()
    correction.next_layout(1, 9.0, Layout(4, 1, 1, 2))
    assert correction.next_layout(2, 0.6, Layout(4, 1, 1, 2)) is None
    assert correction.decided and correction.trained == {WIDE.name: 0.6}


def test_what_was_not_measured_is_not_watched():
    correction = create_correction(Choice(Layout(4), 4, 0.0, 0.0, 0, {}))
    assert _run(correction, {WIDE: 1.0, Candidate(4): 1.0}) == {} and not correction.trained


@pytest.mark.parametrize("text", ["{", "[]", '{"2": "nonsense"}', '{"2": 3}'])
def test_a_damaged_memory_is_decided_anew(text):
    memory.remember("mine; changes", text, {})
    assert not _create().replays
