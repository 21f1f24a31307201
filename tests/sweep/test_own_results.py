"""A trial's results are its own: whatever lanes, layouts, neighbours and refills there are.

Over the first epoch they agree to 1e-5 of the loss, as sums are taken in another order; Adam turns such
roundings into steps, so that later epochs agree to 2e-3.
"""

import dataclasses

import numpy as np
import pytest
from tiny_network import MODEL

from hpjax.config import parse_config
from hpjax.lanes.capacity import Choice
from hpjax.lanes.engine import Layout
from hpjax.sweep import run_sweep, workers

RATES = (1e-4, 3e-4, 1e-3, 2e-3, 3e-3)
DIVERGES = 1e30


def _run(folder, space, num_lanes=1, layout=None, monkeypatch=None, **sections):
    config = parse_config(
        {
            "model": MODEL,
            "data": {"name": "digits", "image_size": 12, "max_train_examples": 50, "max_test_examples": 30},
            "train": {"batch_size": 12, "epochs": 3, **sections.pop("train", {})},
            "lanes": {"strategy": "fused", "count": num_lanes, **sections.pop("lanes", {})},
            "checkpoint": {"every_epochs": 0},
            "sweep": {"space": space, **sections.pop("sweep", {})},
            "trackers": (),
            **sections,
        }
    )
    if layout is not None:
        choice = Choice(layout, num_lanes, 0.0, 0.0, 0, {})
        monkeypatch.setattr(workers, "choose_layout", lambda *_: choice)
    return run_sweep(config, folder)


def _losses(result):
    """Returns each epoch's losses by setting and epoch."""
    settings = {t.trial: (t.hyperparameters["learning_rate"], t.seed) for t in result.trials}
    return {
        (*settings[row.trial], row.epoch): (row.train_loss, row.test_loss or row.validation_loss)
        for row in result.epochs
    }


def _assert_same(ours, theirs, only_shared=False):
    if not only_shared:
        assert ours.keys() == theirs.keys()
    shared = [key for key in ours if key in theirs]
    assert shared
    for key in shared:
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-5 if key[-1] == 1 else 2e-3, err_msg=key)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One lane: every trial trains by itself, one after the other."""
    return _losses(_run(tmp_path_factory.mktemp("alone") / "w", {"learning_rate": RATES}))


@pytest.mark.parametrize("lanes", [2, *(pytest.param(n, marks=pytest.mark.landing) for n in (3, 5))])
def test_any_number_of_lanes(alone, tmp_path, lanes):
    _assert_same(_losses(_run(tmp_path / "w", {"learning_rate": RATES}, lanes)), alone)


@pytest.mark.landing
@pytest.mark.parametrize(
    "layout",
    [
        Layout(4, steps_per_call=3),
        *(
            pytest.param(layout, marks=pytest.mark.landing)
            for layout in (Layout(1), Layout(2), Layout(1, threads=2), Layout(2, threads=2))
        ),
    ],
)
def test_any_layout(alone, tmp_path, monkeypatch, layout):
    result = _run(tmp_path / "w", {"learning_rate": RATES}, 4, layout, monkeypatch)
    _assert_same(_losses(result), alone)


@pytest.mark.parametrize("place", [0, *(pytest.param(n, marks=pytest.mark.landing) for n in (1, 3))])
def test_a_neighbour_that_diverges_and_frees_its_lane_early(alone, tmp_path, place):
    rates = (*RATES[:place], DIVERGES, *RATES[place:])
    result = _run(tmp_path / "w", {"learning_rate": rates}, 2)
    assert [t.status for t in result.trials].count("diverged") == 1
    _assert_same(_losses(result), alone)


@pytest.mark.landing
def test_neighbours_that_are_pruned(tmp_path):
    """Halving ends trials early; their lanes are refilled, and lanes are out of step from then on."""
    data = {"name": "digits", "image_size": 12, "max_train_examples": 50, "max_test_examples": 30}
    data["validation_fraction"] = 0.2
    halving = {"pruner": "successive_halving", "pruner_options": {"min_resource": 1, "reduction_factor": 2}}
    space = {"learning_rate": RATES[::-1]}  # the best ones first: what comes after them is pruned
    whole = _run(tmp_path / "whole", space, 1, data=data)
    pruned = _run(tmp_path / "pruned", space, 3, data=data, sweep={**halving, "metric": "validation_loss"})
    assert "pruned" in {t.status for t in pruned.trials}
    _assert_same(_losses(pruned), _losses(whole), only_shared=True)


@pytest.mark.landing
@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_searches_that_ask_the_same(tmp_path, sampler):
    space = {"learning_rate": {"low": 1e-4, "high": 3e-3, "log": True}}
    sweep = {"sampler": sampler, "trials": 5}
    few, many = (_losses(_run(tmp_path / str(n), space, n, sweep=sweep)) for n in (1, 3))
    _assert_same(many, few)


@pytest.mark.landing
def test_seeds_in_lanes_beside_each_other(tmp_path):
    """Lanes of other seeds take other batches; alone, each seed is the seed of a sweep of its own."""
    together = _losses(_run(tmp_path / "w", {"learning_rate": RATES[1:3]}, 4, sweep={"seeds": 2}))
    for seed in (0, 1):
        own = _losses(_run(tmp_path / str(seed), {"learning_rate": RATES[1:3]}, 1, seed=seed))
        _assert_same(own, together, only_shared=True)


@pytest.mark.landing
def test_a_shared_stream_depends_on_when_a_lane_was_had(alone, tmp_path):
    """That is what it is documented to do; it is no default."""
    result = _run(tmp_path / "w", {"learning_rate": RATES}, 2, lanes={"data_order": "shared"})
    losses = _losses(result)
    assert abs(losses[RATES[-1], 0, 1][0] / alone[RATES[-1], 0, 1][0] - 1) > 1e-4
    assert {t.order_offset for t in result.trials} == {0, 3, 6}


def test_a_change_of_layout_in_the_middle_changes_no_result(alone, tmp_path, monkeypatch):
    from hpjax.lanes.correction import Correction
    from hpjax.lanes.probe import Candidate
    from hpjax.sweep import groups

    first, second = Candidate(2, 2), Candidate(1, 2)
    replay = Correction(current=first.name, changes={"1": second.name}, replays=True)
    monkeypatch.setattr(groups, "create_correction", lambda choice: dataclasses.replace(replay))
    result = _run(tmp_path / "w", {"learning_rate": RATES}, 4, Layout(2, threads=2), monkeypatch)
    _assert_same(_losses(result), alone)
    layout = result.summary["layouts"][0]
    assert [(c["after_epoch"], c["lanes_per_call"], c["threads"]) for c in layout["changes"]] == [(1, 1, 2)]
