"""A sweep that begins with what another one found has trials of its own alone in its tables."""

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from tiny_network import DATA

from hpjax.config import parse_config
from hpjax.errors import ConfigError
from hpjax.search.opening import STUDY_NAME
from hpjax.sweep import run_sweep

SPACE = {"learning_rate": {"low": 1e-3, "high": 0.5, "log": True}}


def _run(net, workdir, **sweep):
    sections = {"model": {"name": net}, "data": {**DATA, "image_size": 16}, "trackers": ()}
    train, lanes = {"batch_size": 12, "epochs": 2}, {"strategy": "sequential", "count": 1}
    given = {"space": SPACE, "sampler": "tpe", "trials": 2, **sweep}
    return run_sweep(parse_config({**sections, "train": train, "lanes": lanes, "sweep": given}), workdir)


@pytest.mark.landing
def test_another_sweeps_trials_are_none_of_its_own(net, tmp_path):
    first = _run(net, tmp_path / "first", sampler="random")
    source = str(tmp_path / "first")
    with pytest.raises(ConfigError, match="sweep.metric=validation_loss, not validation_accuracy"):
        _run(net, tmp_path / "second", warm_start=source, metric="validation_loss")
    second = _run(net, tmp_path / "second", warm_start=source)
    assert [(row.trial, row.setting, row.status) for row in second.trials] == [
        (number, number, "complete") for number in range(2)
    ]
    assert second.summary["trials"]["total"] == 2
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "second/study.journal")))
    told = optuna.load_study(study_name=STUDY_NAME, storage=storage).trials
    rates = [row.hyperparameters["learning_rate"] for row in (*first.trials, *second.trials)]
    assert [trial.params["learning_rate"] for trial in told] == rates and len(set(rates)) == 4
