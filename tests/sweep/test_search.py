"""Searches from end to end: what a sampler knew when it was asked."""

import pytest

from hpjax.config import parse_config
from hpjax.search.study import Study
from hpjax.sweep import plan_sweep, run_sweep

TINY = {
    "data": {"name": "synthetic_scenes", "image_size": 30, "max_train_examples": 40, "max_test_examples": 12},
    "train": {"batch_size": 12, "epochs": 1},
    "trackers": (),
}
RATE = {"low": 1e-4, "high": 1e-2, "log": True}


@pytest.fixture
def config(net):
    """Returns a function that makes a search with a network that is compiled in no time."""
    return lambda **sweep: _config({"name": net}, **sweep)


def _config(model, **sweep):
    given = {"sampler": "tpe", "trials": 8, "space": {"learning_rate": RATE, "optimizer": ("sgd", "adam")}}
    return parse_config(
        {**TINY, "model": model, "sweep": {**given, **sweep}, "lanes": {"strategy": "sequential"}}
    )


def test_tpe_is_told_of_results_before_it_is_asked_for_more(config, tmp_path, monkeypatch):
    ask, ahead = Study.ask, []

    def count(self):
        trial = ask(self)
        ahead.append(self.unfinished)
        return trial

    monkeypatch.setattr(Study, "ask", count)
    result = run_sweep(config(), tmp_path / "wd")
    assert max(ahead) == 4
    assert len(result.trials) == 8 and {trial.status for trial in result.trials} == {"complete"}
    assert max(row.lanes for row in result.epochs) <= 4


@pytest.mark.landing
def test_a_group_that_a_search_comes_back_to_is_traced_once(config, tmp_path):
    result = run_sweep(config(trials=24), tmp_path / "wd")
    groups = {trial.hyperparameters["optimizer"] for trial in result.trials}
    assert result.summary["groups"] > result.summary["traces"] == len(groups) == 2


@pytest.mark.parametrize(("sampler", "lanes"), [("tpe", 4), ("random", 8)])
def test_a_search_that_learns_has_few_lanes(config, sampler, lanes):
    plan = plan_sweep(config(sampler=sampler, space={"learning_rate": RATE}))
    assert [group.lanes for group in plan.groups] == [lanes]


def test_a_plan_lists_every_group_of_a_search_over_choices(config):
    plan = plan_sweep(config())
    assert [dict(group.static) for group in plan.groups] == [{"optimizer": "sgd"}, {"optimizer": "adam"}]
    assert all(group.lane_step_seconds for group in plan.groups)
    assert str(plan).splitlines()[-1].startswith("8 trials, \u2264 ")


def test_a_plan_of_a_search_over_a_range_knows_the_first_group(config):
    plan = plan_sweep(config(space={"learning_rate": RATE, "batch_size": {"low": 4, "high": 30}}))
    last = str(plan).splitlines()[-1]
    assert len(plan.groups) == 1 and "if all were of the first of up to 27 groups" in last
    assert "\u2264" not in last
