"""Searches from end to end: what a sampler knew when it was asked."""

import pytest

from hpjax.config import parse_config
from hpjax.search.study import Study
from hpjax.sweep import plan_sweep, run_sweep

TINY = {
    "model": {"kernel_widths": (3, 3, 3)},
    "data": {"name": "synthetic_scenes", "image_size": 30, "max_train_examples": 40, "max_test_examples": 12},
    "train": {"batch_size": 12, "epochs": 1},
    "trackers": (),
}
RATE = {"low": 1e-4, "high": 1e-2, "log": True}


def _config(**sweep):
    given = {"sampler": "tpe", "trials": 12, "space": {"learning_rate": RATE, "optimizer": ("sgd", "adam")}}
    return parse_config({**TINY, "sweep": {**given, **sweep}, "lanes": {"strategy": "fused"}})


def test_tpe_is_told_of_results_before_it_is_asked_for_more(tmp_path, monkeypatch):
    ask, ahead = Study.ask, []

    def count(self):
        trial = ask(self)
        ahead.append(self.unfinished)
        return trial

    monkeypatch.setattr(Study, "ask", count)
    result = run_sweep(_config(), tmp_path / "wd")
    assert max(ahead) == 4
    assert len(result.trials) == 12 and {trial.status for trial in result.trials} == {"complete"}
    assert max(row.lanes for row in result.epochs) <= 4


@pytest.mark.parametrize(("sampler", "lanes"), [("tpe", 4), ("random", 12)])
def test_a_search_that_learns_has_few_lanes(sampler, lanes):
    plan = plan_sweep(_config(sampler=sampler, space={"learning_rate": RATE}))
    assert [group.lanes for group in plan.groups] == [lanes]
