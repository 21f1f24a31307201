"""Records: append-only history, exact truncation, tables that read back."""

import contextlib
import csv
import io
import json
import math
import os
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpjax.errors import WorkdirError
from hpjax.store.ranking import Ranking
from hpjax.store.records import (
    CopyRow,
    EpochRow,
    load_copies,
    load_epochs,
    load_trials,
    open_records,
)
from hpjax.store.rows import TrialRow
from hpjax.store.tables import format_trials

HPARAMS = {"weight_decay": 0.01, "learning_rate": 1e-4, "optimizer": "adam", "nesterov": True}


def _fill(records, trials=(1, 0), epochs=2):
    for trial in trials:
        records.start_trial(trial, {**HPARAMS, "weight_decay": 0.1 + trial}, seed=7)
    for epoch in range(1, epochs + 1):
        for trial in trials:
            records.add_epoch(
                EpochRow(trial, epoch, 2.0 / epoch, 1.5 / epoch, 0.3 * epoch, epoch_seconds=0.5)
            )


def _read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_hold_what_was_recorded(tmp_path):
    with open_records(tmp_path, ("weight_decay", "optimizer", "nesterov", "momentum")) as records:
        _fill(records)
        records.finish_trial(0, "complete")
        records.write_tables(finished=True, summary={"note": math.nan})
    trials = _read(tmp_path / "trials.csv")
    assert list(trials[0])[:9] == [
        "trial", "status", "seed",
        "weight_decay", "optimizer", "nesterov", "momentum", "learning_rate", "epochs",
    ]  # fmt: skip
    assert [row["status"] for row in trials] == ["complete", "running"]
    first = trials[0]
    assert (first["nesterov"], first["momentum"], first["learning_rate"]) == ("true", "", "0.0001")
    assert float(first["weight_decay"]) == 0.1 and float(trials[1]["weight_decay"]) == 1.1
    assert (first["final_test_loss"], first["best_test_accuracy"], first["epochs"]) == ("0.75", "0.6", "2")
    assert not any("validation" in name for name in first)
    epochs = _read(tmp_path / "epochs.csv")
    assert [(row["trial"], row["epoch"]) for row in epochs] == [
        ("0", "1"),
        ("0", "2"),
        ("1", "1"),
        ("1", "2"),
    ]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["finished"] is True and summary["note"] is None
    assert summary["trials"] == {"total": 2, "running": 1, "complete": 1}
    assert summary["best"]["trial"] == 0
    assert (summary["metric"], summary["select"]) == ("test_accuracy", "final")


def test_rows_read_back_with_their_types(tmp_path):
    with open_records(tmp_path) as records:
        _fill(records)
        records.add_epoch(EpochRow(0, 3, np.float32(0.1), math.nan, np.float64(0.25), None, None, 1.0, 2))
        records.mark()
        rows = load_epochs(tmp_path)
        assert rows[:2] + rows[3:] == records.epochs()[:2] + records.epochs()[3:]
        assert rows[2].train_loss == 0.1 and math.isnan(rows[2].test_loss) and rows[2].lanes == 2
        trial = load_trials(tmp_path)[0]
    assert trial.hyperparameters["nesterov"] is True and trial.hyperparameters["optimizer"] == "adam"
    assert math.isnan(trial.final_test_loss) and trial.best_test_loss == 0.75 and trial.epochs == 3


def test_history_is_cut_to_the_mark(tmp_path):
    records = open_records(tmp_path)
    _fill(records)
    mark = records.mark()
    expected = records.epochs()
    records.add_epoch(EpochRow(0, 3, 0.1))
    records.start_trial(9, {}, seed=1)
    records.close()
    with open(tmp_path / "history.jsonl", "ab") as file:
        file.write(b'{"kind": "epo')  # torn by a kill
    assert [row.trial for row in load_trials(tmp_path)] == [0, 1, 9]
    with open_records(tmp_path, mark=mark) as records:
        assert records.epochs() == expected and records.mark() == mark
        records.add_epoch(EpochRow(0, 3, 0.2))
    assert load_epochs(tmp_path)[2].train_loss == 0.2
    with open_records(tmp_path) as records:
        assert records.trials() == []


def test_resumed_tables_are_the_uninterrupted_ones(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    with open_records(tmp_path / "a") as records:
        _fill(records, epochs=4)
        records.write_tables()
    with open_records(tmp_path / "b") as records:
        _fill(records, epochs=2)
        mark = records.mark()
        records.add_epoch(EpochRow(1, 3, 9.0))
        records.write_tables()
    with open_records(tmp_path / "b", mark=mark) as records:
        for epoch in (3, 4):
            for trial in (0, 1):
                records.add_epoch(
                    EpochRow(trial, epoch, 2.0 / epoch, 1.5 / epoch, 0.3 * epoch, epoch_seconds=0.5)
                )
        records.write_tables()
    for name in ("trials.csv", "epochs.csv", "summary.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_damage_is_named(tmp_path):
    with open_records(tmp_path) as records:
        _fill(records)
        mark = records.mark()
    for wrong in (mark.size + 1, mark.size - 1):
        with pytest.raises(WorkdirError, match=r"history.jsonl is damaged: \d+ bytes"):
            open_records(tmp_path, mark=mark._replace(size=wrong))
    content = (tmp_path / "history.jsonl").read_bytes()
    (tmp_path / "history.jsonl").write_bytes(content.replace(b'"train_loss"', b'"train_lots"', 1))
    with pytest.raises(WorkdirError, match="damaged in line 3"):
        load_trials(tmp_path)
    with pytest.raises(WorkdirError, match="can't read"):
        load_trials(tmp_path / "nowhere")


def test_a_changed_byte_of_a_finished_history_is_never_believed(tmp_path):
    with open_records(tmp_path) as records:
        _fill(records)
        records.write_tables(finished=True)
    file = tmp_path / "history.jsonl"
    content, rng = file.read_bytes(), random.Random(0)
    assert len(load_trials(tmp_path)) == 2
    for _ in range(50):
        position = rng.randrange(len(content))
        changed = bytes([content[position] ^ 1 << rng.randrange(8)])
        file.write_bytes(content[:position] + changed + content[position + 1 :])
        with pytest.raises(WorkdirError, match="history.jsonl is damaged.*: restore it or choose another"):
            load_trials(tmp_path)


def test_a_changed_byte_of_a_history_that_grows_is_no_traceback(tmp_path):
    with open_records(tmp_path) as records:
        _fill(records)
        records.finish_trial(1, "complete")
        records.write_tables()
    file = tmp_path / "history.jsonl"
    content, rng = file.read_bytes(), random.Random(0)
    for _ in range(300):
        position = rng.randrange(len(content))
        changed = bytes([content[position] ^ 1 << rng.randrange(8)])
        file.write_bytes(content[:position] + changed + content[position + 1 :])
        with contextlib.suppress(WorkdirError):
            load_trials(tmp_path), load_epochs(tmp_path)


def test_copies_make_lineage_and_change_hyperparameters(tmp_path):
    with open_records(tmp_path) as records:
        _fill(records)
        records.add_copy(CopyRow(0, 2, 1, {"learning_rate": 0.5}))
        records.write_tables()
    assert (tmp_path / "lineage.csv").read_text() == "trial,epoch,source,learning_rate\n0,2,1,0.5\n"
    assert load_copies(tmp_path) == [CopyRow(0, 2, 1, {"learning_rate": 0.5})]
    assert load_trials(tmp_path)[0].hyperparameters["learning_rate"] == 0.5


def test_validation_and_one_test_at_the_end(tmp_path):
    with open_records(tmp_path) as records:
        records.start_trial(0, {"epochs": 4, "seed": 3}, seed=3)
        records.add_epoch(EpochRow(0, 1, 1.0, validation_loss=0.5, validation_accuracy=0.8))
        records.set_test(0, 0.6, 0.75)
        records.write_tables(Ranking("validation_loss"))
        assert (records.trials()[0].final_test_accuracy, records.trials()[0].best_validation_loss) == (
            0.75,
            0.5,
        )
    row = _read(tmp_path / "trials.csv")[0]
    assert row["final_validation_accuracy"] == "0.8" and row["seed"] == "3"
    with open_records(tmp_path, ("epochs", "seed")) as records:
        records.start_trial(0, {"epochs": 4, "seed": 3}, seed=3)
        records.write_tables()
    row = _read(tmp_path / "trials.csv")[0]
    assert (row["set_epochs"], row["epochs"]) == ("4", "0")


def test_a_trial_that_goes_on_or_lost_its_place_counts_as_not_tested(tmp_path):
    with open_records(tmp_path) as records:
        for trial in (0, 1):
            records.start_trial(trial, {}, seed=3)
            records.add_epoch(EpochRow(trial, 1, 1.0, validation_loss=0.5))
            records.finish_trial(trial, "complete", "well")
            records.set_test(trial, 0.6, 0.75)
        records.start_again(0, group=4)
        records.forget_test(1)
        records.write_tables()
    again, other = load_trials(tmp_path)
    assert (again.status, again.message, again.group, again.epochs) == ("running", "", 0, 1)
    assert (other.status, other.message) == ("complete", "well")
    assert again.final_test_loss is other.final_test_loss is None


def test_full_disk_loses_nothing(tmp_path, small_disk):
    records = open_records(small_disk)
    _fill(records, trials=range(10))
    mark = records.mark()
    (small_disk / "filler").write_bytes(
        b"x" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize)
    )
    for trial in range(10, 60):
        records.start_trial(trial, HPARAMS, seed=0)
    with pytest.raises(WorkdirError, match=r"can't write .*history.jsonl: No space left on device"):
        records.mark()
    with pytest.raises(WorkdirError, match="No space left"):
        records.write_tables()
    assert len(load_trials(small_disk)) in range(10, 60)
    (small_disk / "filler").unlink()
    assert records.mark() > mark
    assert len(load_trials(small_disk)) == 60
    records.close()


def test_a_history_that_can_neither_grow_nor_shrink_is_one_line(tmp_path):
    records = open_records(tmp_path)
    _fill(records, trials=range(3))
    mark, fd = records.mark(), os.dup(records._fd)
    records.start_trial(3, HPARAMS, seed=0)
    read_only = os.open(tmp_path / "history.jsonl", os.O_RDONLY)  # as if the disk had become so
    os.dup2(read_only, records._fd)
    with pytest.raises(WorkdirError, match=r"can't write .*history.jsonl"):
        records.mark()
    os.dup2(fd, records._fd)
    assert records.mark() > mark and len(load_trials(tmp_path)) == 4
    records.close()
    os.close(fd)
    os.close(read_only)


def test_thousands_of_trials_stay_cheap(tmp_path):
    with open_records(tmp_path) as records:
        _fill(records, trials=range(2000), epochs=10)
        records.write_tables()
    assert len(load_epochs(tmp_path)) == 20_000


TEXTS = st.text() | st.builds(
    str.__add__, st.sampled_from(["=", "+", "-", "@", " =", "\t=", "\r@"]), st.text()
)


@given(TEXTS)
def test_no_name_or_message_is_a_formula_or_breaks_a_row(text):
    row = TrialRow(0, "diverged", 0, {"model": text, "momentum": -0.5}, final_train_loss=-1.0, message=text)
    header, found = list(csv.reader(io.StringIO(format_trials([row], ("model", "momentum")))))
    cells = dict(zip(header, found, strict=True))
    for cell in (cells["model"], cells["message"]):
        assert cell.isprintable() and cell.strip()[:1] not in ("=", "+", "-", "@")
    assert (cells["momentum"], cells["final_train_loss"]) == ("-0.5", "-1.0")


def test_a_trial_has_its_share_of_the_time(tmp_path):
    with open_records(tmp_path) as records:
        records.start_trial(0, HPARAMS, seed=7)
        for epoch, lanes in enumerate((4, 4, 1), 1):
            records.add_epoch(EpochRow(0, epoch, 1.0, epoch_seconds=2.0, lanes=lanes))
        records.start_trial(1, HPARAMS, seed=7)
        records.write_tables()
        assert (records.trial(0).lanes, records.trial(0).amortised_seconds) == (3.0, 3.0)
        assert (records.trial(1).lanes, records.trial(1).amortised_seconds) == (None, None)
    rows = _read(tmp_path / "trials.csv")
    assert [(row["lanes"], row["amortised_seconds"]) for row in rows] == [("3.0", "3.0"), ("", "")]
