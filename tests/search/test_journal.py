"""The journal is Optuna's own format: its backend reads what ours wrote, and the other way round."""

import os

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from hpjax.search.journal import create_journal, sync_journal
from hpjax.store.marks import RunningMark


def _numbers(backend):
    study = optuna.load_study(study_name="s", storage=JournalStorage(backend))
    return [(trial.number, trial.params["x"], trial.value) for trial in study.trials]


def _content(path):
    return path.read_bytes() if path.exists() else b""


def test_optunas_backend_reads_it_at_any_time(tmp_path):
    path = tmp_path / "j"
    study = optuna.create_study(
        study_name="s", storage=JournalStorage(create_journal(path, RunningMark(_content(path))))
    )
    for number in range(3):
        trial = study.ask()
        value = trial.suggest_float("x", 0, 1)
        study.tell(trial, value)
        assert _numbers(JournalFileBackend(str(path)))[number] == (number, value, value)
    assert _numbers(create_journal(path, RunningMark(_content(path)))) == _numbers(
        JournalFileBackend(str(path))
    )


def test_it_waits_for_the_disk_only_when_asked(tmp_path, monkeypatch):
    path, waits, written = tmp_path / "j", [], RunningMark()
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: waits.append(fd) or real(fd))
    study = optuna.create_study(study_name="s", storage=JournalStorage(create_journal(path, written)))
    study.tell(study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}), 0.5)
    assert not waits
    assert sync_journal(path, written) == RunningMark(path.read_bytes()).mark()
    assert len(waits) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["j"]


def test_what_others_append_belongs_to_it(tmp_path):
    path, written = tmp_path / "j", RunningMark()
    storage = JournalStorage(create_journal(path, written))
    study = optuna.create_study(study_name="s", storage=storage)
    theirs = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path))))
    for name in ("before one of ours", "before the mark"):
        theirs.set_user_attr(name, 1)
        if name == "before one of ours":
            study.tell(study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}), 0.5)
    assert sync_journal(path, written) == RunningMark(path.read_bytes()).mark()


def test_what_fits_in_part_is_cut_off_again(tmp_path, full_after):
    path = tmp_path / "j"
    journal = create_journal(path, RunningMark(_content(path)))
    journal.append_logs([{"a": 1}])
    before = path.read_bytes()
    with full_after(path, 3), pytest.raises(OSError, match="File too large"):
        journal.append_logs([{"b": 2}])
    assert path.read_bytes() == before
    journal.append_logs([{"b": 2}])
    assert list(create_journal(path, RunningMark(_content(path))).read_logs(0)) == [{"a": 1}, {"b": 2}]
