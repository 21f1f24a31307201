"""No setting of a finite space is trained twice with one seed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpjax.config import parse_config
from hpjax.search.objective import create_objective
from hpjax.search.opening import open_study
from hpjax.search.space import parse_space
from hpjax.search.untried import MOST_LISTED, Untried

SPACE = {
    "optimizer": ("sgd", "momentum", "adam"),
    "momentum": {"low": 0.1, "high": 0.9, "step": 0.4, "when": {"optimizer": ("momentum",)}},
    "batch_size": {"low": 4, "high": 5},
}  # 10 settings


def _open(path, mark=None, space=SPACE, **sweep):
    config = parse_config({"sweep": {"space": space, **sweep}})
    objective = create_objective("auto", has_validation=True)
    return open_study(config, parse_space(config.sweep.space), objective, path, mark)


def _run(study, cut=None):
    trials, mark = [], None
    while (trial := study.ask()) is not None:
        study.tell(trial, "complete", trial.hyperparameters.get("momentum", 0.5))
        trials.append(trial)
        if trial.number == cut:
            mark = study.mark()
    return trials, mark


def _unlike(trials) -> int:
    return len({(tuple(sorted(t.hyperparameters.items())), t.seed) for t in trials})


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", "cmaes"])
@pytest.mark.parametrize("seeds", [1, 2])
def test_each_setting_is_run_once_with_each_seed(tmp_path, sampler, seeds):
    options = {"sampler": sampler, "trials": 30, "seeds": seeds}
    study = _open(tmp_path / "study.journal", **options)
    assert study.budget == study.left == 10 * seeds
    whole, mark = _run(study, cut=6)
    assert len(whole) == _unlike(whole) == 10 * seeds
    assert study.left == 0 and study.ask() is None
    again, _ = _run(_open(tmp_path / "study.journal", mark, **options))
    assert again == whole[7:]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_fewer_trials_than_settings_are_all_different(tmp_path, sampler):
    trials, _ = _run(_open(tmp_path / "study.journal", sampler=sampler, trials=9))
    assert len(trials) == _unlike(trials) == 9


@pytest.mark.parametrize(("sampler", "count"), [("grid", 10), ("random", 5), ("tpe", 5)])
def test_a_setting_that_is_enqueued_twice_is_run_once(tmp_path, sampler, count):
    first = {"optimizer": "momentum", "momentum": 0.5, "batch_size": 4}
    trials = 0 if sampler == "grid" else 5
    study = _open(tmp_path / "study.journal", sampler=sampler, trials=trials, enqueue=(first,) * 3)
    found, _ = _run(study)
    assert found[0].hyperparameters == first and len(found) == _unlike(found) == count


def test_a_space_without_an_end_and_populations_stay_as_they_were(tmp_path):
    space = {"learning_rate": {"low": 1e-3, "high": 1e-1}, "optimizer": ("sgd", "adam")}
    assert _open(tmp_path / "a", space=space, sampler="random", trials=30).budget == 30
    assert Untried(parse_space({"batch_size": {"low": 2, "high": MOST_LISTED + 2}})).count is None
    space, pbt = {"momentum": (0.1, 0.9)}, {"every_epochs": 1}
    trials, _ = _run(_open(tmp_path / "b", space=space, sampler="random", trials=6, pbt=pbt))
    assert len(trials) == _unlike(trials) == 6


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_is_chosen_is_wanted_or_untried(data):
    space = parse_space(SPACE)
    grid = space.grid()
    tried = data.draw(st.lists(st.sampled_from(grid), max_size=9))
    wanted = data.draw(st.sampled_from(grid))
    chosen = Untried(space, tried).choose(wanted, data.draw(st.booleans()), (0, 1))
    assert chosen == wanted if wanted not in tried else chosen not in tried
    assert chosen in grid


def test_the_nearest_setting_is_taken_where_the_sampler_learns():
    space = parse_space({"batch_size": {"low": 2, "high": 99}, "optimizer": ("sgd", "adam")})
    wanted = {"batch_size": 50, "optimizer": "adam"}
    chosen = Untried(space, [wanted]).choose(wanted, near=True, seed=(0,))
    assert chosen["optimizer"] == "adam" and chosen["batch_size"] in (49, 51)
