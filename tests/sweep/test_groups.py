"""Groups of a grid: each is entered once and listed whole, and its images are held no longer than needed."""

import json
import os
import signal

import pytest

from hpjax.config import parse_config
from hpjax.sweep import Interrupted, datasets, plan_sweep, run_sweep
from hpjax.sweep.datasets import Datasets
from hpjax.sweep.events import Upkeep

DATA = {"name": "synthetic_scenes", "image_size": 30, "max_train_examples": 40, "max_test_examples": 12}
RATES, SIZES = tuple(1e-4 * (i + 1) for i in range(20)), (5, 8, 10, 20)


@pytest.fixture
def config(net):
    """Returns a function that makes a grid."""

    def create(data=None, epochs=1, lanes=None, **sweep):
        return parse_config(
            {
                "model": {"name": net},
                "data": {**DATA, **(data or {})},
                "train": {"batch_size": 20, "epochs": epochs},
                "sweep": sweep,
                "lanes": lanes or {"strategy": "sequential", "count": 4},
                "trackers": (),
            }
        )

    return create


def _plan(workdir):
    return json.loads((workdir / "plan.json").read_text())["groups"]


@pytest.mark.landing
def test_a_grid_larger_than_any_look_ahead_has_a_group_per_program(config, tmp_path):
    grid = config(space={"learning_rate": RATES, "batch_size": SIZES})
    plan = plan_sweep(grid)
    assert [(dict(g.static), g.trials) for g in plan.groups] == [({"batch_size": n}, 20) for n in SIZES]
    result = run_sweep(grid, tmp_path / "wd")
    assert [(g["static"], g["trials"]) for g in _plan(tmp_path / "wd")] == [
        ({"batch_size": n}, 20) for n in SIZES
    ]
    assert (result.summary["groups"], result.summary["traces"]) == (4, 4)
    settings = [
        tuple(trial.hyperparameters[n] for n in ("learning_rate", "batch_size")) for trial in result.trials
    ]
    assert settings == [(rate, size) for rate in RATES for size in SIZES]  # numbered in the grid's order


def test_seeds_enqueued_settings_and_conditions_make_no_more_groups(config, tmp_path):
    space = {
        "learning_rate": (1e-3, 1e-2),
        "batch_size": (8, 20),
        "schedule": {"choices": ("constant", "cosine"), "when": {"batch_size": (20,)}},
    }
    grid = config(space=space, seeds=2, enqueue=({"batch_size": 20}, {"learning_rate": 1e-2}))
    result = run_sweep(grid, tmp_path / "wd")
    assert [group["trials"] for group in _plan(tmp_path / "wd")] == [4, 4, 4] and len(result.trials) == 12
    assert result.summary["groups"] == result.summary["traces"] == 3
    assert result.trials[0].hyperparameters["batch_size"] == 20
    assert [trial.seed_index for trial in result.trials] == [0, 1] * 6


@pytest.mark.landing
def test_final_seeds_enter_the_winners_group_once_more(config, tmp_path):
    # Seeds that share a call, as lanes on several devices do, take batches of their own: another program.
    lanes = {"strategy": "sequential", "count": 4, "devices": 1}
    grid = config(space={"learning_rate": (1e-3, 1e-2), "batch_size": (8, 20)}, final_seeds=2, lanes=lanes)
    result = run_sweep(grid, tmp_path / "wd")
    assert [group["trials"] for group in _plan(tmp_path / "wd")] == [2, 2, 2]
    assert result.summary["traces"] == 2 and result.summary["groups"] == 3


@pytest.mark.landing
def test_interrupted_in_the_middle_each_group_is_still_entered_once(config, tmp_path, monkeypatch):
    space = {"learning_rate": RATES[:6], "batch_size": SIZES[:3]}
    whole = run_sweep(config(space=space, epochs=2), tmp_path / "whole")
    boundary, passed = Upkeep.boundary, []

    def interrupt_once(self, status):
        passed.append(1)
        if len(passed) == 6:  # in the second group
            os.kill(os.getpid(), signal.SIGINT)
        return boundary(self, status)

    monkeypatch.setattr(Upkeep, "boundary", interrupt_once)
    with pytest.raises(Interrupted):
        run_sweep(config(space=space, epochs=2), tmp_path / "wd")
    result = run_sweep(config(space=space, epochs=2), tmp_path / "wd")
    plans = [[(g["static"], g["trials"]) for g in _plan(tmp_path / name)] for name in ("wd", "whole")]
    assert plans[0] == plans[1] == [({"batch_size": size}, 6) for size in SIZES[:3]]
    assert result.summary["groups"] == 3
    numbers = [(row.trial, row.epoch, row.train_loss, row.test_loss) for row in result.epochs]
    assert numbers == [(row.trial, row.epoch, row.train_loss, row.test_loss) for row in whole.epochs]


@pytest.mark.landing
def test_images_are_loaded_once_for_what_is_done_with_them(config, tmp_path, monkeypatch):
    load, loaded, held = datasets.load_dataset, [], []

    def count(data, *more):
        loaded.append(data.image_size)
        return load(data, *more)

    def look(self, configs):
        keep_only(self, configs)
        held.append(len(self._loaded))

    keep_only = Datasets.keep_only
    monkeypatch.setattr(datasets, "load_dataset", count)
    monkeypatch.setattr(Datasets, "keep_only", look)
    space = {"image_size": (24, 30), "augment": ("none", "flip", "flip_crop")}
    run_sweep(config(space=space, data={"image_size": 24}), tmp_path / "wd")
    # Not once for each of six groups; the winner's once more, to look at its mistakes.
    assert set(loaded) == {24, 30} and len(loaded) <= 3
    assert held[0] <= 2 and held[-1] == 1  # no group needs the smaller images any more
