"""The queue in front of the groups: who comes next, and how far ahead of its results a sampler is asked."""

from collections import deque

import pytest

from hpjax.config import parse_config
from hpjax.search.objective import create_objective
from hpjax.search.queue import LOOKAHEAD, GroupQueue, most_unfinished
from hpjax.search.space import parse_space
from hpjax.search.study import open_study

SPACE = {"learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}, "optimizer": ("sgd", "adam", "lion")}


def _open(path, lanes=0, **sweep):
    config = parse_config({"sweep": {"space": SPACE, **sweep}, "lanes": {"count": lanes}})
    study = open_study(config, parse_space(SPACE), create_objective("auto", True), path)
    queue = GroupQueue(lambda trial: trial.hyperparameters["optimizer"], most=most_unfinished(config))
    return config, study, queue


def _run(study, queue, lanes):
    """Runs every group as the loop does, one trial ending at a time; returns how many were on their way."""
    unfinished, order = [], []
    while (group := queue.next_group(study)) is not None:
        busy: deque = deque()
        while True:
            while len(busy) < lanes and (trial := queue.take(group, study)) is not None:
                busy.append(trial)
            unfinished.append(study.unfinished)
            if not busy:
                break
            trial = busy.popleft()
            order.append(trial)
            study.tell(trial, "complete", trial.hyperparameters["learning_rate"])
    return unfinished, order


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_a_sampler_that_learns_is_asked_a_few_trials_ahead(sampler, tmp_path):
    config, study, queue = _open(tmp_path / "j", sampler=sampler, trials=40)
    assert most_unfinished(config) == 5
    unfinished, order = _run(study, queue, lanes=5)
    assert max(unfinished) == 5
    assert sorted(trial.number for trial in order) == list(range(40))


def test_others_are_asked_ahead_so_that_few_programs_are_needed(tmp_path):
    config, study, queue = _open(tmp_path / "j", sampler="random", trials=40)
    assert most_unfinished(config) == 0 < 40 < LOOKAHEAD
    unfinished, order = _run(study, queue, lanes=5)
    assert max(unfinished) > 20
    groups = [trial.hyperparameters["optimizer"] for trial in order]
    assert sum(a != b for a, b in zip(groups, groups[1:], strict=False)) == 2


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
    config, study, _ = _open(tmp_path / "j", sampler="tpe", trials=8)
    for _ in range(3):
        trial = study.ask()
    study.tell(trial, "diverged", None)
    mark = study.mark()
    again = open_study(config, parse_space(SPACE), create_objective("auto", True), tmp_path / "j", mark)
    assert again.unfinished == study.unfinished == 2
