"""The queue in front of the groups: who comes next, and how far ahead of its results a sampler is asked."""

import json
from collections import deque

import pytest

from hpjax.config import parse_config
from hpjax.config.hyperparameters import apply_hyperparameters, static_key
from hpjax.search.objective import create_objective
from hpjax.search.opening import open_study
from hpjax.search.queue import LOOKAHEAD, create_queue, make_group_key, most_unfinished
from hpjax.search.space import parse_space

SPACE = {"learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}, "optimizer": ("sgd", "adam", "lion")}
CONDITIONAL = {
    "learning_rate": (0.1, 0.2, 0.3),
    "optimizer": ("sgd", "adam"),
    "kernel_width": {"choices": (3, 5), "when": {"optimizer": ("adam",)}},
}
GRIDS = {
    "plain": {"space": {"learning_rate": (0.1, 0.2, 0.3), "batch_size": (8, 16)}},
    "seeds": {"space": {"learning_rate": (0.1, 0.2, 0.3), "batch_size": (8, 16)}, "seeds": 3},
    "conditions": {"space": CONDITIONAL},
    "enqueue": {"space": CONDITIONAL, "enqueue": ({"learning_rate": 0.3}, {"optimizer": "adam"})},
    "cut": {"space": {"batch_size": (8, 16), "learning_rate": (0.1, 0.2, 0.3)}, "trials": 4},
}


def _open(path, lanes=0, mark=None, waiting=(), taken=(), **sweep):
    config = parse_config({"sweep": {"space": SPACE, **sweep}, "lanes": {"count": lanes}})
    space = parse_space(config.sweep.space)
    study = open_study(config, space, create_objective("auto", True), path, mark)
    return config, study, create_queue(config, study, waiting, taken)


def _run(study, queue, lanes, stop_after=None):
    """Runs every group as the loop does, one trial ending at a time.

    Returns:
      How many trials were on their way, the trials in the order in which they ended, and the groups entered.
    """
    unfinished, order, entered = [], [], []
    while (group := queue.next_group()) is not None:
        busy: deque = deque()
        entered.append(group)
        while True:
            while len(busy) < lanes and (trial := queue.take(group)) is not None:
                busy.append(trial)
            unfinished.append(study.unfinished)
            if not busy:
                break
            trial = busy.popleft()
            order.append(trial)
            study.tell(trial, "complete", trial.hyperparameters["learning_rate"])
            if len(order) == stop_after:
                return unfinished, [*order, *busy], entered
    return unfinished, order, entered


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_a_sampler_that_learns_is_asked_a_few_trials_ahead(sampler, tmp_path):
    config, study, queue = _open(tmp_path / "j", sampler=sampler, trials=40)
    assert most_unfinished(config) == 5
    unfinished, order, _ = _run(study, queue, lanes=5)
    assert max(unfinished) == 5
    assert sorted(trial.number for trial in order) == list(range(40))


def test_others_are_asked_ahead_so_that_few_programs_are_needed(tmp_path):
    config, study, queue = _open(tmp_path / "j", sampler="random", trials=40)
    assert most_unfinished(config) == 0 < 40 < LOOKAHEAD
    unfinished, _, entered = _run(study, queue, lanes=5)
    assert max(unfinished) > 20
    assert len(entered) == len(set(entered)) == 3


@pytest.mark.parametrize("name", GRIDS)
def test_each_group_of_a_grid_is_entered_once_and_numbers_are_the_grids(name, tmp_path):
    config, study, queue = _open(tmp_path / "j", **GRIDS[name])
    foreseen = [study.foresee(number).hyperparameters for number in range(study.budget)]
    _, order, entered = _run(study, queue, lanes=2)
    assert len(entered) == len(set(entered)) > 1
    ended = {trial.number: trial for trial in order}
    assert sorted(ended) == list(range(study.budget))
    seeds = config.sweep.seeds
    for number, trial in ended.items():
        assert trial.hyperparameters == foreseen[number]
        assert (trial.setting, trial.seed_index, trial.seed) == (
            number - number % seeds,
            number % seeds,
            number % seeds,
        )
    for trial in (ended[number] for number in range(0, study.budget, seeds)):
        group = static_key(apply_hyperparameters(config, trial.hyperparameters))
        assert group == make_group_key(config, study.space)(trial.hyperparameters)


def test_a_grid_is_tried_in_its_order_and_enqueued_settings_before_it(tmp_path):
    _, study, queue = _open(tmp_path / "j", **GRIDS["enqueue"])
    _, order, _ = _run(study, queue, lanes=1)
    settings = [trial.hyperparameters for trial in sorted(order, key=lambda trial: trial.number)]
    assert settings[0]["learning_rate"] == 0.3 and settings[1]["optimizer"] == "adam"
    assert len({json.dumps(setting, sort_keys=True) for setting in settings}) == len(settings) == 9
    grid = parse_space(CONDITIONAL).grid()
    assert settings[2:] == [setting for setting in grid if setting not in settings[:2]]


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_cut_grid_goes_on_where_it_was(name, stop_after, tmp_path):
    _, study, queue = _open(tmp_path / "j", **GRIDS[name])
    _, taken, _ = _run(study, queue, lanes=2, stop_after=stop_after)
    waiting, mark, left = queue.to_list(), study.mark(), study.budget - len(taken)
    study.ask_for(study.budget - 1)  # what was asked after the checkpoint is forgotten
    numbers = [trial.number for trial in taken]
    _, again, queue = _open(tmp_path / "j", mark=mark, waiting=waiting, taken=numbers, **GRIDS[name])
    assert sum(queue.count(group) for group in queue.groups()) == left
    _, rest, entered = _run(again, queue, lanes=2)
    assert sorted([*numbers, *(trial.number for trial in rest)]) == list(range(study.budget))
    assert len(entered) == len(set(entered))


def test_further_seeds_wait_and_survive_a_cut(tmp_path):
    _, study, queue = _open(tmp_path / "j", **GRIDS["seeds"])
    _run(study, queue, lanes=2)
    further = study.ask_again(setting=3, seed_index=3)
    queue.add(further)
    waiting, mark = json.loads(json.dumps(queue.to_list())), study.mark()
    _, _, queue = _open(
        tmp_path / "j", mark=mark, waiting=waiting, taken=range(study.budget), **GRIDS["seeds"]
    )
    (group,) = queue.groups()
    assert queue.first(group) == queue.take(group) == further
    assert queue.next_group() is None and queue.take(group) is None


def test_nothing_of_a_large_grid_is_asked_for_ahead(tmp_path):
    rates = tuple(1e-6 * (i + 1) for i in range(2500))
    _, study, queue = _open(tmp_path / "j", space={"learning_rate": rates, "batch_size": (8, 16, 32, 64)})
    groups = queue.groups()
    assert [queue.count(group) for group in groups] == [2500] * 4
    assert [queue.first(group).number for group in groups] == [0, 1, 2, 3]
    assert queue.take(groups[0]).number == 0 and study.unfinished == 1
    assert queue.take(groups[0]).number == 4 and study.unfinished == 5


@pytest.mark.parametrize(
    ("given", "lanes", "most"),
    [
        ({"trials": 8}, 0, 4),
        ({"trials": 64}, 0, 8),
        ({"trials": 64, "seeds": 3}, 0, 24),
        ({"trials": 8}, 6, 6),
        ({"trials": 64}, 2, 8),
    ],
)
def test_how_far_ahead(given, lanes, most, tmp_path):
    config, _, _ = _open(tmp_path / "j", lanes, sampler="tpe", **given)
    assert most_unfinished(config) == most


def test_what_was_told_before_a_cut_counts(tmp_path):
    _, study, _ = _open(tmp_path / "j", sampler="tpe", trials=8)
    for _ in range(3):
        trial = study.ask()
    study.tell(trial, "diverged", None)
    _, again, _ = _open(tmp_path / "j", mark=study.mark(), sampler="tpe", trials=8)
    assert again.unfinished == study.unfinished == 2
