"""The study over real Optuna storage: budgets, replicates, and asking the same again after a cut."""

import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from hpjax.config import SweepConfig, parse_config
from hpjax.errors import ConfigError, HpjaxError, WorkdirError
from hpjax.search.objective import create_objective
from hpjax.search.opening import STUDY_NAME, open_study
from hpjax.search.samplers import check_sampler, relaying_warnings
from hpjax.search.space import parse_space

SPACE = {
    "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
    "optimizer": ("sgd", "adam"),
    "momentum": {"low": 0.1, "high": 0.9, "when": {"optimizer": ("sgd",)}},
}


def _open(path, mark=None, space=SPACE, **sweep):
    config = parse_config({"sweep": {"space": space, **sweep}})
    objective = create_objective("auto", config.data.validation_fraction > 0)
    return open_study(config, parse_space(config.sweep.space), objective, path, mark)


def _run(study, cut=None):
    trials, mark = [], None
    while (trial := study.ask()) is not None:
        rate = trial.hyperparameters.get("learning_rate", 0.5)
        pruned = study.report(trial, 1, 1 / (1 + rate))
        study.tell(trial, "pruned" if pruned else "complete", rate)
        trials.append(trial)
        if trial.number == cut:
            mark = study.mark()
    return trials, mark


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", "gp", "cmaes"])
def test_a_cut_study_asks_the_same_again(tmp_path, sampler):
    path = tmp_path / "study.journal"
    whole, mark = _run(_open(path, sampler=sampler, trials=14), cut=11)
    again, _ = _run(_open(path, mark, sampler=sampler, trials=14))
    assert len(whole) == 14
    assert again == whole[12:]


@pytest.mark.parametrize("sampler", ["random", "grid"])
def test_a_trial_costs_the_same_however_many_there_were(tmp_path, sampler, monkeypatch):
    """Nothing goes through all trials; other samplers do so themselves."""
    replayed, lists = optuna.storages.journal._storage.JournalStorageReplayResult, []
    rates = tuple(float(f"1e-{n}") for n in range(1, 9))
    space = {"learning_rate": rates} if sampler == "grid" else SPACE
    study = _open(tmp_path / "study.journal", space=space, sampler=sampler, trials=8, seeds=2)
    found = replayed.get_all_trials
    monkeypatch.setattr(replayed, "get_all_trials", lambda *a: lists.append(a) or found(*a))
    trials, _ = _run(study, cut=3)
    assert len(trials) == 16 and not lists


def test_a_pruner_and_replicates_survive_a_cut(tmp_path):
    path = tmp_path / "study.journal"
    options = {"sampler": "tpe", "trials": 6, "seeds": 3, "pruner": "median"}
    whole, mark = _run(_open(path, **options), cut=7)
    again, _ = _run(_open(path, mark, **options))
    assert again == whole[8:]
    assert [t.seed for t in whole[:4]] == [0, 1, 2, 0]
    assert [t.setting for t in whole[:4]] == [0, 0, 0, 3]
    assert whole[0].hyperparameters == whole[2].hyperparameters != whole[3].hyperparameters


def test_conditional_hyperparameters_exist_only_under_their_condition(tmp_path):
    trials, _ = _run(_open(tmp_path / "j", sampler="random", trials=20))
    assert {t.hyperparameters["optimizer"] for t in trials} == {"sgd", "adam"}
    for trial in trials:
        assert ("momentum" in trial.hyperparameters) == (trial.hyperparameters["optimizer"] == "sgd")


def test_a_grid_is_run_once_in_its_own_order(tmp_path):
    space = {"weight_decay": (0.01, 1.0), "batch_size": {"low": 8, "high": 24, "step": 8}}
    trials, _ = _run(_open(tmp_path / "j", space=space))
    settings = [(t.hyperparameters["weight_decay"], t.hyperparameters["batch_size"]) for t in trials]
    assert settings == [(w, b) for w in (0.01, 1.0) for b in (8, 16, 24)]


def test_enqueued_settings_come_first(tmp_path):
    first = {"learning_rate": 0.0123, "optimizer": "adam"}
    trials, _ = _run(_open(tmp_path / "j", sampler="random", trials=3, enqueue=(first,)))
    assert trials[0].hyperparameters == first
    assert len(trials) == 3


def test_optuna_reads_what_happened(tmp_path):
    path = tmp_path / "study.journal"
    study = _open(path, sampler="random", trials=3)
    for status in ("complete", "pruned", "diverged"):
        trial = study.ask()
        study.report(trial, 1, 0.25)
        study.tell(trial, status, 0.5 if status == "complete" else None)
    loaded = optuna.load_study(
        study_name=STUDY_NAME, storage=optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    )
    assert [t.state.name for t in loaded.trials] == ["COMPLETE", "PRUNED", "PRUNED"]
    assert [t.user_attrs["status"] for t in loaded.trials] == ["complete", "pruned", "diverged"]
    assert loaded.best_trial.number == 0 and loaded.best_value == 0.5
    assert loaded.trials[1].intermediate_values == {1: 0.25}


def test_a_running_trial_is_told_after_a_cut(tmp_path):
    path = tmp_path / "study.journal"
    study = _open(path, sampler="random", trials=2)
    trial = study.ask()
    mark = study.mark()
    study.tell(trial, "complete", 0.1)
    study = _open(path, mark, sampler="random", trials=2)
    assert not study.report(trial, 1, 0.5)
    study.tell(trial, "complete", 0.7)
    assert study.ask().number == 1


def test_a_journal_shorter_than_its_checkpoint_is_refused(tmp_path):
    path = tmp_path / "study.journal"
    mark = _open(path, sampler="random", trials=2).mark()
    with pytest.raises(WorkdirError, match="damaged"):
        _open(path, mark._replace(size=10**6), sampler="random", trials=2)


def test_a_journal_with_a_changed_byte_is_refused(tmp_path):
    path = tmp_path / "study.journal"
    _, mark = _run(_open(path, sampler="random", trials=3), cut=1)
    content, rng = path.read_bytes(), random.Random(0)
    for _ in range(40):
        position = rng.randrange(len(content))
        changed = bytes([content[position] ^ 1 << rng.randrange(8)])
        path.write_bytes(content[:position] + changed + content[position + 1 :])
        if position < mark.size:
            with pytest.raises(WorkdirError, match="study.journal is damaged"):
                _open(path, mark, sampler="random", trials=3)
        else:  # what came after the mark is forgotten
            _open(path, mark, sampler="random", trials=3)


@pytest.mark.parametrize(
    "pruner", ["median", "successive_halving", "hyperband", "wilcoxon", "threshold", "patient"]
)
def test_every_pruner_can_be_had(tmp_path, pruner):
    options = {"lower": 0.0} if pruner == "threshold" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trials, _ = _run(
            _open(tmp_path / "j", sampler="random", trials=3, pruner=pruner, pruner_options=options)
        )
    assert len(trials) == 3


ASK = """
from hpjax.search.objective import create_objective
from hpjax.search.space import parse_space
from hpjax.search.opening import open_study
from hpjax.config import parse_config

space = {"learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}, "b1": {"low": 0.1, "high": 0.9}}
config = parse_config({"sweep": {"space": space, "sampler": "gp", "trials": 12}})
study = open_study(config, parse_space(space), create_objective("auto", True), "j")
while (trial := study.ask()) is not None:
    study.tell(trial, "complete", trial.hyperparameters["b1"])
"""


@pytest.mark.torch
def test_optuna_warns_nobody(tmp_path):
    # In a process of its own: it warns of packages that are missing when it is imported.
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_sampler_that_needs_torch_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(HpjaxError, match=r"needs the package torch: pip install -e '\.\[torch\]'"):
        check_sampler(SweepConfig(sampler="gp"))


def test_an_unknown_option_of_a_pruner_is_named(tmp_path):
    with pytest.raises(ConfigError, match="sweep.pruner_options"):
        _open(tmp_path / "j", sampler="random", trials=3, pruner="median", pruner_options={"bogus": 1})


def test_a_journal_that_cannot_grow_is_one_line_wherever_it_stops(tmp_path, full_after):
    path = tmp_path / "study.journal"
    study, failed = _open(path, sampler="random", trials=40, pruner="successive_halving"), []
    for room in range(0, 1600, 40):
        trial, size = study.ask(), path.stat().st_size
        try:
            with full_after(path, room):
                study.report(trial, 1, 1.0 / (1 + room))
                study.note_copy(trial, 1, 0)
                study.tell(trial, "pruned", None)
        except WorkdirError as error:
            assert "File too large" in str(error) and path.read_bytes().endswith(b"}\n")
            failed.append(path.stat().st_size - size)
    assert len(set(failed)) > 4  # stopped after each of the entries
    assert _open(path, study.mark(), sampler="random", trials=40).left == 0


def test_what_optuna_warns_of_is_a_line_of_ours_once(tmp_path, caplog, recwarn):
    space = {"learning_rate": {"low": 0.1, "high": 1.0, "step": 0.4}, "optimizer": ("sgd", "adam")}
    for sampler in ("cmaes", "gp", "tpe", "qmc"):
        _run(_open(tmp_path / sampler, space=space, sampler=sampler, trials=12, pruner="wilcoxon"))
    assert not recwarn.list
    said = [message for message in caplog.messages if not message.startswith("data.validation_fraction")]
    assert len(set(said)) == len(said) and all(m.isprintable() and m.startswith("Optuna: ") for m in said)


def test_a_warning_is_relayed_and_what_is_experimental_is_not(caplog, recwarn):
    for _ in range(2):
        with relaying_warnings():
            warnings.warn("a\x1b[1m\nwarning", UserWarning, stacklevel=1)
            warnings.warn("new", optuna.exceptions.ExperimentalWarning, stacklevel=1)
            warnings.warn("old", FutureWarning, stacklevel=1)
    assert caplog.messages == ["Optuna: a\\x1b[1m warning"] and not recwarn.list
