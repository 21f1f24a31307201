"""A trial that diverges is alone with it: recorded as what it is, told to the sampler, no harm to others."""

import dataclasses
import math
import re

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_network import DATA, MODEL

from hpjax.config import CheckpointConfig, parse_config
from hpjax.sweep import run_sweep

STEPS, WILD = 4, 400.0


def _config(sweep, optimizer="sgd", epochs=5, lanes=3):
    return parse_config(
        {
            "model": MODEL,
            "data": {**DATA, "validation_fraction": 0.2},
            "train": {"batch_size": 12, "epochs": epochs},
            "optimizer": {"name": optimizer, "learning_rate": 0.1},
            "sweep": sweep,
            "lanes": {"strategy": "fused", "count": lanes},
            "trackers": (),
        }
    )


def _decays(tmp_path, *decays):
    """Coupled decay of 400 at a rate of 0.1 takes weights times -39 at each step: they grow for epochs."""
    return run_sweep(_config({"space": {"weight_decay": decays}, "metric": "train_loss"}), tmp_path)


def _study(result):
    backend = JournalFileBackend(str(result.workdir / "study.journal"))
    return optuna.load_study(study_name="hpjax", storage=optuna.storages.JournalStorage(backend))


@pytest.fixture(scope="module")
def one_wild(tmp_path_factory):
    return _decays(tmp_path_factory.mktemp("wild") / "wd", 0.0, WILD, 0.01)


def test_the_step_and_the_last_finite_numbers_are_recorded(one_wild):
    wild = one_wild.trials[1]
    pattern = r"loss or gradient not finite at step (\d+); told Optuna: pruned at its last value (.+)"
    step, told = re.fullmatch(pattern, wild.message).groups()
    step = int(step)
    assert told == f"{wild.final_train_loss:.4g}"
    assert wild.status == "diverged"
    assert wild.epochs == step // STEPS > 0
    rows = [row for row in one_wild.epochs if row.trial == 1]
    assert [row.epoch for row in rows] == list(range(1, wild.epochs + 1))
    assert all(math.isfinite(row.train_loss) for row in rows)
    assert wild.final_train_loss == rows[-1].train_loss


def test_it_is_never_the_best(one_wild):
    assert one_wild.best.trial in (0, 2)


def test_its_weights_take_no_better_ones_place(tmp_path):
    sweep = {"space": {"weight_decay": (0.0, WILD)}, "metric": f"{tmp_path}/metric.py:decayed"}
    (tmp_path / "metric.py").write_text(
        "def decayed(epoch):\n    return epoch['train_loss']\n"  # grows as the trial diverges
    )
    config = dataclasses.replace(_config(sweep), checkpoint=CheckpointConfig(keep=1))
    result = run_sweep(config, tmp_path / "sweep")
    calm, wild = result.trials
    assert wild.status == "diverged" and wild.best_objective > calm.best_objective
    assert calm.final_test_loss is not None and wild.final_test_loss is None


def test_the_sampler_is_told(one_wild):
    told = _study(one_wild).trials
    assert [trial.state.name for trial in told] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert told[1].user_attrs["status"] == "diverged"
    finite = [row.train_loss for row in one_wild.epochs if row.trial == 1]
    assert list(told[1].intermediate_values.values()) == finite


def test_neighbours_do_not_change_by_a_bit(one_wild, tmp_path):
    calm = _decays(tmp_path / "calm", 0.0, 0.02, 0.01)
    assert [trial.status for trial in calm.trials] == ["complete"] * 3
    for trial in (0, 2):
        numbers = [
            [
                (row.train_loss, row.validation_loss, row.validation_accuracy)
                for row in result.epochs
                if row.trial == trial
            ]
            for result in (one_wild, calm)
        ]
        assert numbers[0] == numbers[1] and len(numbers[0]) == 5


def test_trackers_go_on_after_a_trial_without_an_epoch(tmp_path, caplog):
    config = _config({"space": {"learning_rate": (1e30, 1e-3, 1e-4)}}, "adam", epochs=2, lanes=1)
    result = run_sweep(dataclasses.replace(config, trackers=("tensorboard",)), tmp_path)
    assert [(trial.status, trial.epochs) for trial in result.trials] == [
        ("diverged", 0), ("complete", 2), ("complete", 2),
    ]  # fmt: skip
    assert "tracker" not in caplog.text
    said = "not finite at step 1; told Optuna: pruned without a value"
    assert result.trials[0].message == f"loss or gradient {said}"
    assert f"trial 0 (learning rate = 1e30) diverged: loss or gradient {said}" in caplog.text
    for trial in result.trials:
        events = EventAccumulator(f"{tmp_path}/tensorboard/trial_{trial.trial:05d}").Reload()
        assert "_hparams_/session_end_info" in events.summary_metadata
        steps = [item.step for item in events.Scalars("train_loss")] if trial.epochs else []
        assert steps == list(range(1, trial.epochs + 1))


@pytest.mark.landing
@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [
        ("tpe", "successive_halving"),
        pytest.param("random", "hyperband", marks=pytest.mark.landing),
    ],
)
def test_a_search_goes_on_when_its_first_trial_diverges(sampler, pruner, tmp_path):
    sweep = {
        "space": {"learning_rate": {"low": 1e-4, "high": 1e30, "log": True}},
        "enqueue": ({"learning_rate": 1e30},),
        "sampler": sampler,
        "trials": 14,
        "pruner": pruner,
    }
    result = run_sweep(_config(sweep, "adam", epochs=3), tmp_path / "search")
    statuses = [trial.status for trial in result.trials]
    assert statuses[0] == "diverged" and len(statuses) == 14 and "running" not in statuses
    assert result.best.hyperparameters["learning_rate"] < 1e20
    assert [trial.user_attrs["status"] for trial in _study(result).trials] == statuses
