"""The plan: what its table says, and how long it may take."""

import pytest

from hpjax.search.plan import GroupPlan, Plan


def _group(**changed):
    known = {
        "static": {},
        "trials": 8,
        "lanes": 4,
        "lanes_per_call": 4,
        "devices": 1,
        "steps_per_epoch": 10,
        "epochs": 2,
        "lane_step_seconds": 0.5,
        "speedup": 1.5,
    }
    return GroupPlan(**{**known, **changed})


@pytest.mark.parametrize(
    ("changed", "call", "strategy"),
    [
        ({}, "4 fused", "fused"),
        ({"lanes_per_call": 1}, "1", "sequential"),
        ({"lanes_per_call": 1, "threads": 2}, "1 in 2 threads", "threads"),
        ({"lanes_per_call": 2, "threads": 2}, "2 fused in 2 threads", "fused"),
    ],
)
def test_the_table_says_how_lanes_are_advanced(changed, call, strategy):
    group = _group(**changed)
    table = str(Plan((group,), 8)).splitlines()
    assert [cell.strip() for cell in table[1].split("  ") if cell][3] == call
    assert group.strategy == group.to_dict()["strategy"] == group.layout()["strategy"] == strategy


def test_the_time_of_a_grid_is_that_of_its_groups():
    plan = Plan((_group(), _group(lane_step_seconds=1.0)), 16)
    assert plan.seconds == 8 * 20 * 0.5 + 8 * 20 * 1.0
    assert "16 trials, 4 min, checkpoints up to ?" in str(plan)


def test_what_comes_before_training_is_part_of_the_plan():
    plan = Plan((_group(setup_seconds=30.0), _group(setup_seconds=12.0)), 16)
    assert plan.setup_seconds == 42 and plan.total_seconds == 2 * 8 * 20 * 0.5 + 42
    assert "16 trials, 160 s, 42 s to read, measure and compile, checkpoints up to ?" in str(plan).replace(
        "3 min", "160 s"
    )
    assert plan.to_dict()["setup_seconds"] == 42
    assert Plan((_group(lane_step_seconds=0.0),), 8).total_seconds is None


def test_logs_grow_with_trials_and_their_epochs():
    pictures, few, many = (Plan((_group(),), trials).logs_bytes for trials in (0, 8, 800))
    assert 0 < few - pictures == (many - pictures) / 100
    longer = Plan((_group(), _group(epochs=100)), 8).logs_bytes
    assert longer - few == 8 * (100 - _group().epochs) * 2048
    assert str(Plan((_group(),), 800)).endswith("logs and tables up to 9 MiB")
    assert Plan((), 8).logs_bytes == 0


def test_the_time_of_a_search_is_an_upper_bound():
    searched = {"trials": None, "most_trials": 64, "may_end_early": True}
    plan = Plan((_group(**searched), _group(**searched, lane_step_seconds=1.0)), 64, disk_bytes=5 << 20)
    assert plan.seconds == 64 * 20 * 1.0  # as if all were of the slower group
    assert "64 trials, ≤ 21 min, checkpoints up to 5 MiB" in str(plan)
    assert "≤ 64" in str(plan)


def test_groups_that_are_not_known_yet_are_no_bound():
    searched = {"trials": None, "most_trials": 64, "may_end_early": True}
    last = str(Plan((_group(**searched),), 64, most_groups=24)).splitlines()[-1]
    assert last.startswith("64 trials, 11 min if all were of the first of up to 24 groups, ")
    last = str(Plan((_group(), _group(static={"batch_size": 8})), 24, most_groups=3)).splitlines()[-1]
    assert last.startswith("24 trials, 3 min for the first 2 of up to 3 groups, ")
    assert "of many groups" in str(Plan((_group(**searched),), 64, most_groups=10**6))


def test_what_was_not_measured_is_left_out():
    assert "speed-up" in str(Plan((_group(), _group(speedup=0.0)), 16))
    table = str(Plan((_group(speedup=0.0),), 1))
    assert "speed-up" not in table and "?" not in table.splitlines()[1].split()[-2:]
    assert table.splitlines()[-1].startswith("1 trial, ")


def test_a_time_that_was_not_measured_is_unknown():
    assert Plan((_group(lane_step_seconds=0.0),), 8).seconds is None
    assert "8 trials, time unknown" in str(Plan((_group(lane_step_seconds=0.0),), 8))


def test_a_plan_beyond_the_memory_says_so():
    large = _group(static={"batch_size": 64}, memory_bytes=9 << 30, available_bytes=4 << 30)
    fits = _group(memory_bytes=1 << 30, available_bytes=4 << 30)
    last = str(Plan((fits, large), 8)).splitlines()[-1]
    assert last.startswith("beyond this machine: batch_size=64 needs 9.0 GiB of memory, and 4.0 GiB are free")
    for group in (fits, _group(memory_bytes=9 << 30), _group(available_bytes=1)):  # unknown is not beyond
        assert "beyond" not in str(Plan((group,), 8))
