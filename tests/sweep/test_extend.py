"""A finished sweep goes on to more trials: none is run again, and its tables are those of the longer one."""

import dataclasses

import numpy as np
import pytest
from tiny_network import DATA

from hpjax.config import parse_config
from hpjax.errors import ConfigError, WorkdirError
from hpjax.store.workdir import is_finished
from hpjax.sweep import load_result, run, run_sweep

LOSSES = ("final_train_loss", "final_validation_loss", "final_test_loss")
SPACE = {"learning_rate": {"low": 1e-3, "high": 0.5, "log": True}}


def _config(net, trials, extend=False, **sweep):
    return parse_config(
        {
            "model": {"name": net},
            "data": {**DATA, "image_size": 16},
            "train": {"batch_size": 12, "epochs": 2},
            "lanes": {"strategy": "sequential", "count": 1},
            "sweep": {"space": SPACE, "sampler": "random", "trials": trials, "extend": extend, **sweep},
            "trackers": (),
        }
    )


def _key(result):
    """Returns what a trial is and gave."""
    return [
        (row.trial, row.setting, row.status, row.hyperparameters, *(getattr(row, name) for name in LOSSES))
        for row in result.trials
    ]


def test_more_trials_are_those_of_the_longer_sweep(net, tmp_path, monkeypatch):
    first = run_sweep(_config(net, 2), tmp_path / "sweep")
    kept = [dataclasses.astuple(row) for row in first.epochs]
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(run, "run_groups", _die)  # once the longer sweep was accepted
        run_sweep(_config(net, 5, extend=True), tmp_path / "sweep")
    assert not is_finished(tmp_path / "sweep")
    result = run_sweep(_config(net, 5, extend=True), tmp_path / "sweep")
    assert [dataclasses.astuple(row) for row in result.epochs][: len(kept)] == kept  # their seconds, too
    at_once = run_sweep(_config(net, 5), tmp_path / "at_once")
    assert _key(result) == _key(at_once)
    assert result.best.trial == at_once.best.trial and result.summary["finished"]
    again = run_sweep(_config(net, 5, extend=True), tmp_path / "sweep")
    assert again.epochs == result.epochs == load_result(tmp_path / "sweep").epochs
    assert np.isfinite([trial.final_train_loss for trial in result.trials]).all()
    for trials, extend in ((5, False), (5, True)):
        assert run_sweep(_config(net, trials, extend), tmp_path / "sweep").epochs == result.epochs
    with pytest.raises(WorkdirError, match=r"5 there, 6 now\): add --config.sweep.extend=True"):
        run_sweep(_config(net, 6), tmp_path / "sweep")
    for trials, extend in ((4, True), (6, False), (2, False)):
        with pytest.raises(WorkdirError, match="another config .*sweep.trials: 5 there"):
            run_sweep(_config(net, trials, extend), tmp_path / "sweep")


def _die(session):
    raise SystemExit


def test_what_rests_on_the_trials_that_were_there_is_refused(net):
    for more in ({"final_seeds": 2}, {"pbt": {"every_epochs": 1}}):
        with pytest.raises(ConfigError, match="sweep.extend=True is not allowed"):
            _config(net, 2, extend=True, **more)
