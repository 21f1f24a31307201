"""A metric of the user's own selects: Optuna, tables, outcome and the read of the test set agree."""

import csv

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from tiny_network import DATA, MODEL

from hpjax.config import parse_config
from hpjax.errors import HpjaxError
from hpjax.search.objective import create_objective
from hpjax.sweep import load_result, run_sweep

# Both want the network that has learned least at the end.
METRICS = """
def slowest(epoch):
    return epoch["train_loss"] - 3.0 if epoch["epoch"] == 3 else -9.0

def quickest(epoch):
    return -epoch["train_loss"] if epoch["epoch"] == 3 else 9.0

quickest.maximize = False
"""


@pytest.fixture(scope="module", params=["slowest", "quickest"])
def searched(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "metric.py").write_text(METRICS)
    config = parse_config(
        {
            "model": MODEL,
            "data": {**DATA, "max_train_examples": 240, "validation_fraction": 0.2},
            "train": {"batch_size": 12, "epochs": 3},
            "sweep": {
                "space": {"learning_rate": (1e-2, 3e-3, 1e-7)},
                "metric": f"{folder}/metric.py:{request.param}",
            },
            "lanes": {"strategy": "fused"},
        }
    )
    return request.param, run_sweep(config, folder / "sweep")


def _rows(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_winner_is_optunas(searched):
    _, result = searched
    backend = JournalFileBackend(str(result.workdir / "study.journal"))
    study = optuna.load_study(study_name="hpjax", storage=optuna.storages.JournalStorage(backend))
    accuracies = [trial.best_validation_accuracy for trial in result.trials]
    assert max(accuracies[:2]) > accuracies[2]  # what the accuracy selects is another one
    assert study.best_trial.number == result.best.trial == result.summary["best"]["trial"] == 2
    assert study.best_value == result.best.final_objective
    assert [row.setting for row in result.settings if row.winner] == [2]
    assert load_result(result.workdir).best == result.best


def test_its_values_are_in_the_tables(searched):
    name, result = searched
    for row in _rows(result.workdir / "epochs.csv")[2::3]:
        loss = float(row["train_loss"])
        assert float(row["objective"]) == (loss - 3.0 if name == "slowest" else -loss)
    choose = max if name == "slowest" else min
    for row, trial in zip(_rows(result.workdir / "trials.csv"), result.trials, strict=True):
        values = [epoch.objective for epoch in result.epochs if epoch.trial == trial.trial]
        assert float(row["best_objective"]) == choose(values) and float(row["final_objective"]) == values[-1]
        assert "minimize" not in row


def test_the_winner_is_tested_and_said(searched):
    name, result = searched
    assert [trial.trial for trial in result.trials if trial.final_test_loss is not None] == [2]
    assert result.outcome.startswith(f"best: trial 2, learning rate = 1e-7, final {name} -")


OWN = """
class Metric:
    maximize = {maximize}

    def __call__(self, epoch):
        return 1.0


f = Metric()
"""


@pytest.mark.parametrize("maximize", ["property(lambda self: 1 / 0)", "'no'"])
def test_whether_a_metric_is_to_grow_has_to_be_clear(maximize, tmp_path):
    (tmp_path / "m.py").write_text(OWN.format(maximize=maximize))
    expected = r"sweep.metric=.*(line 3: ZeroDivisionError|maximize is True or False)"
    with pytest.raises(HpjaxError, match=expected):
        create_objective(f"{tmp_path}/m.py:f", False)
