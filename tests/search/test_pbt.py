"""Who copies whom, and how hyperparameters move: pure decisions, without a lane in sight."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpjax.config import parse_config
from hpjax.errors import ConfigError
from hpjax.search.pbt import Member, check_population, make_plan_copies, perturb
from hpjax.search.space import Axis, parse_space
from hpjax.search.trial import Trial

SPACE = {"learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}, "momentum": (0.5, 0.9, 0.99)}
CONDITIONAL = {"low": 0.1, "high": 0.9, "when": {"momentum": 0.5}}
SEARCH = {"space": SPACE, "sampler": "random", "trials": 8}


def _config(pbt=None, seed=0, lanes=None, **sweep):
    pbt = {"every_epochs": 2} if pbt is None else pbt
    return parse_config({"seed": seed, "sweep": {**SEARCH, **sweep, "pbt": pbt}, "lanes": lanes or {}})


def _planner(seed=0, **pbt):
    config = _config({"every_epochs": 2, **pbt}, seed)
    return make_plan_copies(config, parse_space(config.sweep.space))


def _member(number, score, epoch=2, rate=1e-3):
    return Member(Trial(number, {"learning_rate": rate, "momentum": 0.9}, seed=number), epoch, score)


def test_without_options_there_is_nothing_to_plan():
    config = parse_config({"sweep": SEARCH})
    assert make_plan_copies(config, parse_space(SPACE)) is None


def test_the_worst_quarter_takes_over_from_the_best():
    scores = [0.1, 0.9, 0.5, 0.8, 0.2, 0.4, 0.3, 0.6]
    copies = _planner()([_member(n, score) for n, score in enumerate(scores)], epoch=2)
    assert {copy.trial for copy in copies} == {0, 4}
    assert {copy.source for copy in copies} <= {1, 3}
    for copy in copies:
        assert 1e-3 / 1.2 <= copy.hyperparameters["learning_rate"] <= 1.2e-3
        assert copy.hyperparameters["momentum"] in (0.5, 0.99)


def test_nobody_copies_between_times_or_where_all_are_equal():
    assert not _planner()([_member(n, n / 8, epoch=3) for n in range(8)], epoch=3)
    assert not _planner()([_member(n, 0.5) for n in range(8)], epoch=2)


def test_only_members_of_one_age_are_compared():
    young, old = [_member(n, 0.1) for n in range(2)], [_member(n, 0.9, epoch=4) for n in range(2, 4)]
    assert not _planner(fraction=0.5)([*young, *old], epoch=4)


@pytest.mark.parametrize("score", [-math.inf, math.nan])
def test_what_has_no_finite_score_is_neither_source_nor_target(score):
    copies = _planner(fraction=0.5)([_member(0, score), _member(1, 0.1), _member(2, 0.9)], epoch=2)
    assert [(copy.trial, copy.source) for copy in copies] == [(1, 2)]
    assert not _planner()([_member(0, score), _member(1, 0.1)], epoch=2)


def test_the_same_moment_decides_the_same_and_another_seed_differently():
    members = [_member(n, n / 32) for n in range(32)]
    assert _planner()(members, 2) == _planner()(members, 2) == _planner()(members[::-1], 2)
    assert _planner()(members, 2) != _planner(seed=1)(members, 2)
    assert _planner()(members, 2) != _planner()(members, 4)


@given(
    st.floats(1e-6, 1e-2),
    st.floats(1.1, 100),
    st.floats(0, 1),
    st.floats(1.01, 5),
    st.integers(0, 99),
)
def test_a_perturbed_value_stays_in_its_range(low, ratio, share, factor, seed):
    axis = Axis("learning_rate", low=low, high=low * ratio, log=True)
    value = min(low * ratio**share, axis.high)
    moved = perturb(axis, value, factor, np.random.default_rng(seed))
    assert axis.low <= moved <= axis.high
    assert value / factor <= moved <= value * factor


def test_two_that_copy_one_source_part():
    for rate in (1e-5, 1e-3, 1e-1):  # at the ends of the range too
        members = [_member(n, n > 14, rate=rate) for n in range(30)]
        copies = _planner(fraction=0.5)(members, 2)
        assert len(copies) == 15 > len({copy.source for copy in copies})
        assert len({copy.hyperparameters["learning_rate"] for copy in copies}) == 15


def test_zero_is_drawn_anew():
    axis = Axis("dropout_rate", low=0.0, high=0.8)
    values = {perturb(axis, 0.0, 1.2, np.random.default_rng(seed)) for seed in range(9)}
    assert len(values) == 9 and all(0 < value < 0.8 for value in values)


@pytest.mark.parametrize(("value", "neighbours"), [(0.1, {0.2}), (0.2, {0.1, 0.4}), (0.4, {0.2})])
def test_choices_move_to_a_neighbour(value, neighbours):
    axis = Axis("weight_decay", choices=(0.4, 0.1, 0.2))
    assert {perturb(axis, value, 2.0, np.random.default_rng(seed)) for seed in range(20)} == neighbours
    assert perturb(Axis("weight_decay", choices=(0.3,)), 0.3, 2.0, np.random.default_rng(0)) == 0.3


def test_a_range_with_a_step_moves_by_the_step():
    axis = Axis("momentum", low=0.1, high=0.5, step=0.2)
    values = {round(perturb(axis, 0.1 + 0.2, 2.0, np.random.default_rng(seed)), 6) for seed in range(20)}
    assert values == {0.1, 0.5}


@pytest.mark.parametrize(
    ("sweep", "lanes", "key"),
    [
        ({"space": {**SPACE, "batch_size": (8, 16)}}, {}, "sweep.space.batch_size"),
        ({"space": {**SPACE, "b1": CONDITIONAL}}, {}, "sweep.space.b1.when"),
        ({"space": {}, "sampler": "grid", "trials": 0}, {}, "sweep.space"),
        ({"sampler": "tpe"}, {}, "sweep.sampler"),
        ({"pruner": "median"}, {}, "sweep.pruner"),
        ({"seeds": 2}, {}, "sweep.seeds"),
        ({"final_seeds": 2}, {}, "sweep.final_seeds"),
        ({"trials": 1}, {}, "sweep.trials"),
        ({}, {"count": 1}, "lanes.count"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_a_population_is_named(sweep, lanes, key):
    with pytest.raises(ConfigError, match="with sweep.pbt") as caught:
        config = _config(lanes=lanes, **sweep)
        check_population(config, parse_space(config.sweep.space), config.sweep.trials)
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("name", "value"),
    [("speed", 1), ("every_epochs", 0), ("every_epochs", 1.5), ("fraction", 0.6), ("perturb", 1.0)],
)
def test_options_are_checked(name, value):
    with pytest.raises(ConfigError) as caught:
        _config({name: value})
    assert caught.value.key == f"sweep.pbt.{name}"


@pytest.mark.parametrize("value", [-0.5, -0.01, 0.3])
def test_values_on_both_sides_of_zero_keep_their_side(value):
    """An option of a model may be negative."""
    axis = Axis("model.shift", (), -1.0, 1.0)
    for seed in range(9):
        moved = perturb(axis, value, 1.2, np.random.default_rng(seed))
        assert moved * value > 0 and abs(value) / 1.2 <= abs(moved) <= abs(value) * 1.2
