"""Which epoch ranks a trial: one rule from the study to the weights, and said next to every number."""

import csv
import json

import jax.numpy as jnp
import numpy as np
import optax
import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import hpjax
from hpjax.config import parse_config
from hpjax.data.dataset import load_dataset
from hpjax.sweep import load_result, run_sweep

VALUES = (0.5, 0.6, 0.9, 0.1)  # of two epochs of two trials: the second was better once and ended worse
DATA = {"name": "synthetic_scenes", "image_size": 30, "max_train_examples": 40, "max_test_examples": 24}


def _config(net, metric, select="final", validation=0.0, **more):
    return parse_config(
        {
            "model": {"name": net},
            "data": {**DATA, "validation_fraction": validation},
            "train": {"batch_size": 20, "epochs": 2},
            "optimizer": {"learning_rate": 0.05},
            "lanes": {"strategy": "sequential", "count": 1},
            **more,
            "sweep": {"metric": metric, "select": select, **more.get("sweep", {})},
        }
    )


@pytest.fixture(params=["final", "best"])
def ranked(request, net, make_metric, tmp_path):
    space = {"space": {"learning_rate": (0.05, 0.1)}}
    config = _config(net, make_metric(*VALUES), request.param, sweep=space)
    return request.param, config, run_sweep(config, tmp_path / "wd")


def test_one_rule_ranks_everywhere(ranked):
    select, _, result = ranked
    winner, value = (0, 0.6) if select == "final" else (1, 0.9)
    backend = JournalFileBackend(str(result.workdir / "study.journal"))
    study = optuna.load_study(study_name="hpjax", storage=optuna.storages.JournalStorage(backend))
    assert (study.best_trial.number, study.best_value) == (winner, value)
    assert result.best.trial == load_result(result.workdir).best.trial == winner
    assert [row.setting for row in result.settings if row.winner] == [winner]
    summary = json.loads((result.workdir / "summary.json").read_text())
    assert (summary["select"], summary["best"]["trial"]) == (select, winner)
    assert (summary["best_trial"], summary["best_score"]) == (winner, value)
    other = "best 0.6" if select == "final" else "final 0.1"
    assert f"trial {winner}, " in result.outcome and f", {select} given {value} ({other})" in result.outcome


def test_tensorboard_shows_the_number_under_its_name(ranked):
    select, _, result = ranked
    for trial, values in enumerate((VALUES[:2], VALUES[2:])):
        events = EventAccumulator(f"{result.workdir}/tensorboard/trial_{trial:05d}").Reload()
        (found,) = events.Scalars(f"hparam/{select}_objective")
        assert found.value == pytest.approx(values[-1] if select == "final" else max(values))


def test_the_weights_are_those_of_the_epoch_that_ranks(ranked):
    select, config, result = ranked
    test = load_dataset(config.data, config.seed).test
    for trial in (0, 1):
        model_file = config.model.name.rpartition(":")[0]
        model, _ = hpjax.load_trial(result.workdir, trial, model_file=model_file)
        logits = model(jnp.asarray(test.images, jnp.float32) / 255)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(test.labels)).mean()
        epoch = 1 if (select, trial) == ("best", 1) else 2
        recorded = {row.epoch: row.test_loss for row in result.epochs if row.trial == trial}
        np.testing.assert_allclose(loss, recorded[epoch], rtol=1e-4)
        assert abs(recorded[1] - recorded[2]) > 1e-3


def test_the_winning_setting_is_tested_not_the_best_trial(net, make_metric, tmp_path):
    """Setting 0 has the best trial and another bad one; setting 2 has the better mean."""
    metric = make_metric(0.0, 0.9, 0.0, 0.1, 0.0, 0.6, 0.0, 0.7)
    sweep = {"space": {"learning_rate": (0.05, 0.1)}, "seeds": 2}
    config = _config(net, metric, validation=0.2, sweep=sweep, checkpoint={"keep": 1}, trackers=())
    result = run_sweep(config, tmp_path / "wd")
    assert result.best.trial == 1 - 1 and [row.setting for row in result.settings if row.winner] == [2]
    assert [trial.trial for trial in result.trials if trial.final_test_accuracy is not None] == [2, 3]
    with open(tmp_path / "wd" / "settings.csv", encoding="utf-8") as file:
        rows = {row["setting"]: row for row in csv.DictReader(file)}
    assert rows["2"]["winner"] == "yes" and rows["2"]["ranked_by"] == "final_objective"
    accuracies = [result.trials[n].final_test_accuracy for n in (2, 3)]
    assert float(rows["2"]["final_test_accuracy_mean"]) == pytest.approx(np.mean(accuracies))
    assert rows["0"]["final_test_accuracy_mean"] == ""
    assert f"test accuracy {np.mean(accuracies):.4g} over 2" in result.outcome
    kept = {folder.name for folder in (tmp_path / "wd" / "checkpoints" / "trials").iterdir()}
    assert kept == {"trial_00000", "trial_00002", "trial_00003"}  # the best one, and the winner's


def test_a_running_trial_leads_by_its_last_epoch(net, make_metric, tmp_path, caplog):
    from hpjax.sweep.leader import Leader

    leader = Leader()
    leader.update(0, 0.5)
    leader.update(1, 0.9)
    assert leader.best() == (1, 0.9)
    leader.update(1, 0.1)
    assert leader.best() == (0, 0.5)
    leader.finish(0, 0.6)
    leader.update(2, 0.6)
    assert leader.best() == (0, 0.6)
    leader.finish(2, float("-inf"))
    leader.finish(1, 0.7)
    assert leader.best() == (1, 0.7)
