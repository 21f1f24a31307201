"""Population based training in whole sweeps: who goes on from whom, that it is recorded and repeatable."""

import csv
import os
import signal

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from tiny_network import DATA, MODEL

from hpjax.config import parse_config
from hpjax.store.records import load_copies
from hpjax.sweep import Interrupted, run_sweep
from hpjax.sweep.events import Upkeep

RATES = (1e-5, 1e-3, 3e-3, 1e30)


def _config(rates=RATES, **sweep):
    return parse_config(
        {
            "model": MODEL,
            "data": {**DATA, "validation_fraction": 0.2},
            "train": {"batch_size": 12, "epochs": 5},
            "sweep": {
                "space": {"learning_rate": rates},
                "metric": "train_loss",
                "pbt": {"every_epochs": 1, "fraction": 0.4},
                **sweep,
            },
            "lanes": {"strategy": "fused"},
        }
    )


def _rows(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _numbers(result):
    epochs = [(e.trial, e.epoch, e.train_loss, e.validation_loss) for e in result.epochs]
    return epochs, [(t.trial, t.status, t.message, dict(t.hyperparameters)) for t in result.trials]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run_sweep(_config(), tmp_path_factory.mktemp("pbt") / "wd")


def test_a_diverged_member_is_recorded_and_never_a_source(finished):
    wild = finished.trials[3]
    assert wild.status == "diverged" and "not finite at step" in wild.message
    ends = {trial.trial: trial.epochs for trial in finished.trials if trial.status == "diverged"}
    copies = load_copies(finished.workdir)
    assert copies
    for row in copies:
        assert row.source not in ends or row.epoch <= ends[row.source]
        assert row.trial != row.source


def test_copies_lead_from_worse_to_better_trials(finished):
    loss = {(row.trial, row.epoch): row.train_loss for row in finished.epochs}
    for row in load_copies(finished.workdir):
        assert loss[row.source, row.epoch] < loss[row.trial, row.epoch]


def test_tables_show_what_was_in_force(finished):
    copies = {(row.trial, row.epoch): row.hyperparameters for row in load_copies(finished.workdir)}
    epochs = _rows(finished.workdir / "epochs.csv")
    in_force = {(int(row["trial"]), int(row["epoch"])): float(row["learning_rate"]) for row in epochs}
    for trial in _rows(finished.workdir / "trials.csv"):
        number = int(trial["trial"])
        rate = RATES[number]
        assert float(trial["initial_learning_rate"]) == rate
        for epoch in range(1, int(trial["epochs"]) + 1):
            rate = copies.get((number, epoch - 1), {"learning_rate": rate})["learning_rate"]
            assert in_force[number, epoch] == rate
        last = copies.get((number, int(trial["epochs"])), {"learning_rate": rate})
        assert float(trial["learning_rate"]) == last["learning_rate"]
    assert (finished.workdir / "lineage.csv").exists()
    assert (finished.workdir / "figures" / "lineage.png").exists()


def test_a_copy_shows_in_what_is_learned_next(finished):
    loss = {(row.trial, row.epoch): row.train_loss for row in finished.epochs}
    first = min(load_copies(finished.workdir), key=lambda row: row.epoch)
    before, after = loss[first.trial, first.epoch], loss[first.trial, first.epoch + 1]
    assert abs(after - loss[first.source, first.epoch]) < abs(after - before)


def test_no_two_members_are_ever_the_same(finished):
    assert [trial.seed for trial in finished.trials] == [0, 1, 2, 3]
    assert len({(row.epoch, row.train_loss) for row in finished.epochs}) == len(finished.epochs)


def test_optuna_knows_the_copies(finished):
    backend = JournalFileBackend(str(finished.workdir / "study.journal"))
    study = optuna.load_study(study_name="hpjax", storage=optuna.storages.JournalStorage(backend))
    noted = {
        (trial.number, int(name.rpartition("_")[2])): note["source"]
        for trial in study.trials
        for name, note in trial.user_attrs.items()
        if name.startswith("copy_after_epoch_")
    }
    assert noted == {(row.trial, row.epoch): row.source for row in load_copies(finished.workdir)}
    assert [trial.params["learning_rate"] for trial in study.trials] == list(RATES)


def test_an_interrupted_population_goes_on_bit_for_bit(finished, tmp_path, monkeypatch):
    boundary = Upkeep.boundary

    def interrupt_once(self, status):
        if status.epoch == 3:
            monkeypatch.undo()
            os.kill(os.getpid(), signal.SIGTERM)
        return boundary(self, status)

    monkeypatch.setattr(Upkeep, "boundary", interrupt_once)
    with pytest.raises(Interrupted):
        run_sweep(_config(), tmp_path / "wd")
    assert load_copies(tmp_path / "wd")
    again = run_sweep(_config(), tmp_path / "wd")
    assert _numbers(again) == _numbers(finished)
    assert load_copies(again.workdir) == load_copies(finished.workdir)
