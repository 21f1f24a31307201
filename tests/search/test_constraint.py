"""Settings that a function of the user's own doesn't allow are not tried, whoever names them."""

import dataclasses
import math
import os

import numpy as np
import pytest

from hpjax.config import parse_config
from hpjax.errors import ConfigError, UserCodeError
from hpjax.search.objective import create_objective
from hpjax.search.opening import open_study
from hpjax.search.pbt import Member, make_plan_copies
from hpjax.search.space import MOST_DRAWN
from hpjax.search.trial import Trial
from hpjax.sweep.preflight import check_config
from hpjax.sweep.spec import create_space
from hpjax.sweep.variants import list_variants

RANGES = {
    "learning_rate": {"low": 1e-4, "high": 1.0, "log": True},
    "optimizer": ("sgd", "adam"),
    "momentum": {"low": 0.1, "high": 0.9, "when": {"optimizer": ("sgd",)}},
}
GRID = {"batch_size": (8, 16, 32), "kernel_width": (3, 5), "weight_decay": (0.0, 0.1)}
FUNCTIONS = """
def half(setting):
    return setting.get("momentum", 0.2) < 0.5 and setting["learning_rate"] < 0.02

def small(setting):
    return setting["batch_size"] * setting["kernel_width"] <= 80

def few(setting):
    return setting["batch_size"] == 8

def none(setting):
    return False

def fails(setting):
    return setting["width"] > 3

def counts(setting):
    return len(setting)

number = 3
"""


@pytest.fixture
def constrained(tmp_path):
    """Returns a function that makes the configuration of a search and its space."""
    (tmp_path / "mine.py").write_text(FUNCTIONS)

    def make(name, space=RANGES, **sweep):
        constraints = f"{tmp_path}/mine.py:{name}"
        config = parse_config({"sweep": {"space": space, "constraints": constraints, **sweep}})
        return config, create_space(config)

    return make


def _ask(config, space, path, mark=None, cut=None):
    objective = create_objective("auto", config.data.validation_fraction > 0)
    study, asked = open_study(config, space, objective, path, mark), []
    while (trial := study.ask()) is not None:
        study.tell(trial, "complete", -math.log(trial.hyperparameters.get("learning_rate", 0.5)))
        asked.append(trial)
        if trial.number == cut:
            mark = study.mark()
    return asked, mark


@pytest.mark.parametrize(
    "sampler", ["random", "qmc", "tpe", "cmaes", pytest.param("gp", marks=pytest.mark.landing)]
)
def test_a_sampler_draws_until_a_setting_is_allowed(constrained, tmp_path, sampler):
    config, space = constrained("half", sampler=sampler, trials=14)
    asked, mark = _ask(config, space, tmp_path / "journal", cut=11)
    assert len(asked) == 14 and all(space.allows(trial.hyperparameters) for trial in asked)
    assert len({trial.hyperparameters["learning_rate"] for trial in asked}) > 7  # gp goes on at an end
    again, _ = _ask(config, space, tmp_path / "journal", mark)
    assert again == asked[12:]


def test_a_grid_and_a_search_of_few_settings_leave_out_what_is_not_allowed(constrained, tmp_path, caplog):
    caplog.set_level("INFO")
    for sampler in ("grid", "random", "tpe"):
        config, space = constrained("small", GRID, sampler=sampler, trials=12)
        check_config(config)
        asked, _ = _ask(config, space, tmp_path / sampler)
        settings = {tuple(trial.hyperparameters.items()) for trial in asked}
        assert len(settings) == len(asked) == 8 and all(space.allows(dict(setting)) for setting in settings)
    assert caplog.messages.count("sweep.constraints allows 8 of the 12 settings of sweep.space") == 3


@pytest.mark.parametrize("sampler, space", [("grid", GRID), ("random", GRID), ("random", {**GRID, **RANGES})])
def test_what_an_enqueued_setting_leaves_open_is_allowed(constrained, tmp_path, sampler, space):
    rest = {"sampler": sampler, "trials": 4}
    config, allowed = constrained("small", space, enqueue=({"kernel_width": 5},), **rest)
    check_config(config)
    first = _ask(config, allowed, tmp_path / "journal")[0][0].hyperparameters
    assert first["kernel_width"] == 5 and allowed.allows(first)
    config, _ = constrained("small", space, enqueue=({"kernel_width": 5, "batch_size": 32},), **rest)
    with pytest.raises(ConfigError, match="sweep.enqueue=.*32.* a setting that sweep.constraints allows"):
        check_config(config)


def test_populations_move_to_what_is_allowed(constrained):
    space = {"learning_rate": {"low": 1e-4, "high": 1.0, "log": True}}
    search = {"sampler": "random", "trials": 8, "pbt": {"every_epochs": 1}}
    rates = np.linspace(0.001, 0.0199, 8)  # the best one is where most moves aren't allowed
    for name in ("half", "none"):
        config, allowed = constrained(name, space, **search)
        members = [
            Member(Trial(number, {"learning_rate": rate}, number), 1, rate)
            for number, rate in enumerate(rates)
        ]
        moved = [
            copy.hyperparameters
            for epoch in range(20)
            for copy in make_plan_copies(config, allowed)(members, epoch)
        ]
        assert len(moved) == 40
        if name == "half":
            assert all(map(allowed.allows, moved)) and {"learning_rate": rates[-1]} not in moved
        else:
            assert all(setting["learning_rate"] in rates for setting in moved)


def test_what_no_trial_will_have_is_not_tried_before(constrained):
    _, space = constrained("few", {"model": ("custom_cnn",), **GRID})
    assert {(v["batch_size"], v["kernel_width"]) for v in list_variants(space)} == {(8, 3), (8, 5)}


@pytest.mark.parametrize(
    "name, error, told",
    [
        ("none", ConfigError, "allows some of the 12 settings"),
        ("fails", UserCodeError, r"failed for .*'batch_size': 8.*: line 15: KeyError: 'width'"),
        ("counts", UserCodeError, r"gives 3 for .*'batch_size': 8.*: expected True or False"),
        ("number", ConfigError, "the name of a function in .*mine.py"),
        ("nothing", ConfigError, "the name of a function in .*mine.py"),
    ],
)
def test_a_function_that_says_nothing_is_refused_in_a_line(constrained, name, error, told):
    with pytest.raises(error, match=told) as caught:
        check_config(constrained(name, GRID)[0])
    assert "sweep.constraints" in str(caught.value)


def test_a_space_without_an_end_of_which_nothing_is_allowed(constrained, tmp_path):
    config, space = constrained("none", sampler="tpe", trials=3)
    with pytest.raises(ConfigError, match=f"of {MOST_DRAWN:,} settings drawn, none was"):
        check_config(config)
    with pytest.raises(ConfigError, match=f"of {MOST_DRAWN:,} settings drawn, none was"):
        _ask(config, space, tmp_path / "journal")
    with pytest.raises(ConfigError, match="sweep.constraints='every' is not allowed"):
        parse_config({"sweep": {"constraints": "every"}})
    with pytest.raises(ConfigError, match="a Python file that exists"):
        create_space(parse_config({"sweep": {"constraints": os.fspath(tmp_path / "gone.py:f")}}))


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_an_enqueued_setting_keeps_its_values(constrained, tmp_path, sampler):
    for i, named in enumerate(({"weight_decay": 0.1}, {"kernel_width": 5}, {"batch_size": 16})):
        for seed in range(3):
            config, space = constrained("small", GRID, enqueue=(named,), sampler=sampler, trials=3)
            config = dataclasses.replace(config, seed=seed)
            (first, *_), _ = _ask(config, space, tmp_path / f"{i}_{seed}")
            assert named.items() <= first.hyperparameters.items() and space.allows(first.hyperparameters)
