"""A finished sweep goes on to more trials, seeds and epochs: its tables are those of the longer one."""

import dataclasses
import itertools
import shutil

import jax
import linear_network
import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from tiny_network import DATA

from hpjax import load_trial
from hpjax.config import parse_config
from hpjax.errors import CheckpointError, ConfigError, WorkdirError
from hpjax.search.opening import STUDY_NAME
from hpjax.search.replicates import Stage
from hpjax.store.records import open_records
from hpjax.store.rows import EpochRow, to_columns
from hpjax.store.workdir import is_finished
from hpjax.sweep import load_result, run, run_sweep
from hpjax.sweep.events import Upkeep
from hpjax.sweep.extension import check_extension, find_stages
from hpjax.sweep.spec import create_spec

SPACE = {"learning_rate": {"low": 1e-3, "high": 0.5, "log": True}}
# How trials were numbered and run, of which an extension has its own way; everything else is compared.
OWN = ("trial", "setting", "average_epoch_seconds", "amortised_seconds", "lanes", "group")


def _config(net, trials, seeds=1, epochs=2, extend=False, **sections):
    sweep = {"space": SPACE, "sampler": "random", "trials": trials, "seeds": seeds, "extend": extend}
    return parse_config(
        {
            "model": {"name": net},
            "data": {**DATA, "image_size": 16},
            "train": {"batch_size": 12, "epochs": epochs},
            "checkpoint": {"states": True},
            "trackers": (),
            **sections,
            "lanes": {"strategy": "sequential", "count": 1, **sections.get("lanes", {})},
            "sweep": {**sweep, **sections.get("sweep", {})},
        }
    )


def _without(row):
    return {name: value for name, value in to_columns(row).items() if name not in OWN}


def _tables(result):
    """Returns all that the tables say, by setting and seed."""
    keys = {row.trial: (row.hyperparameters["learning_rate"], row.seed) for row in result.trials}
    assert len(keys) == len(set(keys.values()))
    epochs = {(*keys[row.trial], row.epoch): _without(row) for row in result.epochs}
    for row in epochs.values():
        del row["epoch_seconds"], row["images_per_second"]
    settings = [(row.hyperparameters, row.winner, row.estimates()) for row in result.settings]
    return {keys[row.trial]: _without(row) for row in result.trials}, epochs, settings


def _told(workdir):
    """Returns what Optuna's study holds, as Optuna itself reads it."""
    storage = JournalStorage(JournalFileBackend(str(workdir / "study.journal")))
    trials = optuna.load_study(study_name=STUDY_NAME, storage=storage).trials
    assert all(trial.state.is_finished() and "status" in trial.user_attrs for trial in trials)
    told = [(trial.params["learning_rate"], trial.user_attrs["seed"]) for trial in trials]
    reported = [list(trial.intermediate_values.values()) for trial in trials]
    return sorted(zip(told, [trial.value for trial in trials], reported, strict=True))


def _die(session):
    raise SystemExit


def _die_at(count):
    """Returns a boundary between two epochs that ends the process, as a kill does, the so manyth time."""
    met, boundary = itertools.count(1), Upkeep.boundary

    def die(events, status):
        if next(met) == count:
            raise SystemExit
        return boundary(events, status)

    return die


@pytest.mark.landing
def test_the_tables_are_those_of_the_longer_sweep(net, tmp_path, monkeypatch):
    there = tmp_path / "sweep"
    (tmp_path / "mine.py").write_text(
        "def worse(epoch):\n    return -epoch['epoch'] - epoch['train_loss'] / 99\n"
    )
    # With every epoch: what a trial had before it went on would rank first.
    ranked = {"sweep": {"metric": f"{tmp_path}/mine.py:worse"}}
    first = run_sweep(_config(net, 2, **ranked), there)
    kept = [dataclasses.astuple(row) for row in first.epochs]
    longer = _config(net, 3, 2, 4, extend=True, **ranked)
    # Once it was accepted; and as the first trial ends for the second time and the next one waits to go on.
    for killed in ((run, "run_groups", _die), (Upkeep, "boundary", _die_at(2))):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(*killed)
            run_sweep(longer, there)
        assert not is_finished(there)
    result = run_sweep(longer, there)
    at_once = run_sweep(_config(net, 3, 2, 4, **ranked), tmp_path / "at_once")
    assert _tables(result) == _tables(at_once) and result.summary["finished"]
    assert result.summary["best_score"] == at_once.summary["best_score"] < first.summary["best_score"]
    assert result.best.final_test_loss == at_once.best.final_test_loss is not None
    assert _told(there) == _told(tmp_path / "at_once")
    assert [row for row in map(dataclasses.astuple, result.epochs) if row in kept] == kept  # seconds, too
    assert [folder.name for folder in (there / "checkpoints/states").iterdir()] == ["epochs_4"]
    places = [(row.setting, row.seed_index) for row in result.trials]
    assert places == [(0, 0), (1, 0), (0, 1), (1, 1), (4, 0), (4, 1)]
    weights = [
        load_trial(path, best.best.trial, model_file=linear_network.__file__)[1]
        for path, best in ((there, result), (tmp_path / "at_once", at_once))
    ]
    assert jax.tree.all(jax.tree.map(np.array_equal, *weights))
    for extend in (False, True):
        assert run_sweep(_config(net, 3, 2, 4, extend, **ranked), there).epochs == result.epochs
    with pytest.raises(WorkdirError, match=r"3 there, 6 now\): add --config.sweep.extend=True"):
        run_sweep(_config(net, 6, 2, 4, **ranked), there)
    for numbers in ((2, 2, 4), (3, 1, 4), (3, 2, 3)):
        with pytest.raises(WorkdirError, match="another config .*: [234] there"):
            run_sweep(_config(net, *numbers, extend=True, **ranked), there)
    shutil.rmtree(there / "checkpoints/states/epochs_4/trial_00003")
    with pytest.raises(WorkdirError, match="train.epochs=5: the state of trial 3 after 4 epochs isn't there"):
        run_sweep(_config(net, 3, 2, 5, extend=True, **ranked), there)
    assert not (there / "checkpoints/states/epochs_5").exists()
    assert is_finished(there) and load_result(there).epochs == result.epochs


def test_one_setting_counts_as_tested(net, tmp_path):
    # Without weights the test can't be read again: what it gave is in the checkpoint that is gone on from.
    more = {"checkpoint": {"keep": 0}, "data": {**DATA, "image_size": 16, "validation_fraction": 0.25}}
    grid = {"sampler": "grid", "space": {"learning_rate": (1e-3, 0.1)}, "metric": "train_loss"}
    for trials, tested in ((1, [True]), (2, [False, True])):
        config = _config(net, trials, extend=trials > 1, sweep=grid, **more)
        result = run_sweep(config, tmp_path / "sweep")
        assert [row.final_test_loss is not None for row in result.trials] == tested


def test_what_rests_on_the_trials_that_were_there_is_refused(net):
    for more in ({"final_seeds": 2}, {"pbt": {"every_epochs": 1}}):
        with pytest.raises(ConfigError, match="sweep.extend=True is not allowed"):
            _config(net, 2, extend=True, sweep=more)


def _past(workdir, trials=1):
    """Returns the trials of a history, each complete after two epochs."""
    with open_records(workdir) as records:
        for number in range(trials):
            records.start_trial(number, {"learning_rate": 0.1}, 0)
            for epoch in (1, 2):
                records.add_epoch(EpochRow(number, epoch, 1.0))
            records.finish_trial(number, "complete")
        return records.trials()


@pytest.mark.parametrize(
    "sections, reason",
    [
        ({"optimizer": {"schedule": "cosine"}}, "optimizer.schedule=cosine"),
        ({"sweep": {"space": {**SPACE, "schedule": ("constant", "linear")}}}, "optimizer.schedule=linear"),
        ({"optimizer": {"warmup_fraction": 0.1}}, "optimizer.warmup_fraction"),
        ({"sweep": {"space": {**SPACE, "epochs": (1, 2)}}}, "sweep.space.epochs sets it"),
        ({"sweep": {"pruner": "median"}}, "sweep.pruner=median"),
        ({"lanes": {"data_order": "shared"}}, "lanes.data_order"),
        ({"checkpoint": {"states": False}}, "checkpoint.states=False keeps none"),
    ],
)
def test_epochs_stay_where_a_trial_had_gone_another_way(net, tmp_path, sections, reason):
    past = _past(tmp_path)
    spec = create_spec(_config(net, 2, epochs=4, extend=True, **sections))
    with pytest.raises((ConfigError, WorkdirError), match=f"train.epochs=4.*2 .*{reason}"):
        check_extension(spec, tmp_path, Stage(0, 1, 2), lambda: past)


@pytest.mark.parametrize(
    "more, told", [({"sampler": "tpe"}, "what it learned"), ({"pruner": "median"}, "ended others")]
)
def test_it_is_said_where_the_longer_sweep_would_be_another_one(net, tmp_path, caplog, more, told):
    spec = create_spec(_config(net, 2, 3, extend=True, sweep=more))
    caplog.set_level("WARNING", "hpjax")
    caplog.clear()
    check_extension(spec, tmp_path, Stage(0, 1, 2), list)
    (line,) = caplog.messages
    assert told in line and line.endswith("others") and "a sweep begun with sweep.seeds=3" in line
    check_extension(spec, tmp_path, Stage(0, 3, 2), list)  # more trials alone go on with the same search
    assert len(caplog.messages) == 1


def test_an_earlier_version_did_not_say_what_a_sweep_had(net, tmp_path):
    config, past = _config(net, 2, 3, 4), _past(tmp_path, 2)
    assert find_stages({"tally": {}}, config, lambda: past) == [Stage(0, 1, 2)]
    assert find_stages({"tally": {}}, config, list) == [Stage(0, 3, 4)]
    assert find_stages({}, config, list) == []
    for wrong in ([{"first": 0, "seeds": 4, "epochs": 4}], [{"first": 2, "seeds": 1, "epochs": 1}], [{}]):
        with pytest.raises(ValueError):
            find_stages({"stages": wrong}, config, list)


@pytest.mark.landing
def test_named_seeds_may_become_more(net, tmp_path):
    def config(*seeds, extend=True):
        return _config(net, 2, len(seeds), extend=extend, sweep={"seed_values": seeds})

    run_sweep(config(7, extend=False), tmp_path / "sweep")
    with pytest.raises(WorkdirError, match=r"sweep.seed_values: \[7\] there, \[3, 7\] now"):
        run_sweep(config(3, 7), tmp_path / "sweep")
    result = run_sweep(config(7, 3), tmp_path / "sweep")
    assert _tables(result) == _tables(run_sweep(config(7, 3, extend=False), tmp_path / "at_once"))


def test_a_damaged_state_leaves_the_finished_sweep(net, tmp_path):
    config = _config(net, 2)
    run_sweep(config, tmp_path / "sweep")
    before = {name: (tmp_path / "sweep" / name).read_bytes() for name in ("config.json", "summary.json")}
    data = tmp_path / "sweep" / "checkpoints" / "states" / "epochs_2" / "trial_00001" / "arrays" / "d"
    for file in data.iterdir():
        content = file.read_bytes()
        file.write_bytes(bytes(255 - byte for byte in content[:4]) + content[4:])
    with pytest.raises(CheckpointError, match="is damaged"):
        run_sweep(_config(net, 2, epochs=3, extend=True), tmp_path / "sweep")
    assert before == {name: (tmp_path / "sweep" / name).read_bytes() for name in before}
    assert run_sweep(config, tmp_path / "sweep").summary["finished"]
