"""Trackers: read back with TensorBoard's own readers."""

import importlib.util
import logging
import math
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from hpjax.errors import ConfigError
from hpjax.store.trackers import make_trackers

ROOT = Path(__file__).parents[2]


def _load(workdir, trial=0) -> EventAccumulator:
    return EventAccumulator(str(workdir / "tensorboard" / f"trial_{trial:05d}")).Reload()


def _scalars(events, tag):
    return [(item.step, round(item.value, 6)) for item in events.Scalars(tag)]


def _hparams(events, tag):
    content = events.SummaryMetadata(f"_hparams_/{tag}").plugin_data.content
    return plugin_data_pb2.HParamsPluginData.FromString(content)


def _log(trackers, epochs, trial=0, offset=0.0):
    for epoch in epochs:
        trackers.log_epoch(
            trial, epoch, {"train_loss": epoch + offset, "test_accuracy": 0.5, "validation_loss": None}
        )


def test_curves_and_hparams_are_read_by_tensorboard(tmp_path):
    with make_trackers(("tensorboard",), tmp_path) as trackers:
        for trial in (0, 12):
            _log(trackers, (1, 2, 3), trial)
        hyperparameters = {"learning_rate": 1e-4, "optimizer": "adam", "nesterov": True, "missing": None}
        trackers.log_hparams(12, hyperparameters, {"final_test_accuracy": 0.75, "none": None})
    events = _load(tmp_path, 12)
    assert events.Tags()["scalars"] == ["train_loss", "test_accuracy", "hparam/final_test_accuracy"]
    assert _scalars(events, "train_loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert _scalars(events, "hparam/final_test_accuracy") == [(3, 0.75)]
    start = _hparams(events, "session_start_info").session_start_info
    assert start.hparams["learning_rate"].number_value == 1e-4
    assert start.hparams["optimizer"].string_value == "adam" and start.hparams["nesterov"].bool_value
    experiment = _hparams(events, "experiment").experiment
    assert [info.name.tag for info in experiment.metric_infos] == ["hparam/final_test_accuracy"]
    assert _hparams(events, "session_end_info").HasField("session_end_info")


@pytest.mark.torch
def test_pytorch_is_left_alone(tmp_path):
    """Its libraries are no part of a process that trains with JAX, which may still want it later."""
    code = (
        "import sys; from hpjax.store.trackers import make_trackers\n"
        f"with make_trackers(('tensorboard',), {str(tmp_path)!r}) as trackers:\n"
        "    trackers.log_epoch(0, 1, {'train_loss': 1.0})\n"
        "    trackers.log_hparams(0, {'learning_rate': 0.1}, {'final_test_loss': 1.0})\n"
        "    print('torch' in sys.modules)\n"
        "import torch; print(torch.ones(2).sum().item())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "2.0"], done.stderr


def test_resumed_trial_shows_no_step_twice(tmp_path):
    with make_trackers(("tensorboard",), tmp_path) as trackers:
        _log(trackers, (1, 2, 3, 4))
    with make_trackers(("tensorboard",), tmp_path) as trackers:
        _log(trackers, (3, 4, 5), offset=0.5)
    expected = [(1, 1.0), (2, 2.0), (3, 3.5), (4, 4.5), (5, 5.5)]
    assert _scalars(_load(tmp_path), "train_loss") == expected


@pytest.mark.parametrize("lost", [1, 14, 20])
def test_torn_event_file_goes_on(tmp_path, lost):
    with make_trackers(("tensorboard",), tmp_path) as trackers:
        _log(trackers, (1, 2))
    file = next((tmp_path / "tensorboard" / "trial_00000").iterdir())
    with open(file, "r+b") as stream:
        stream.truncate(file.stat().st_size - lost)
    with make_trackers(("tensorboard",), tmp_path) as trackers:
        _log(trackers, (2, 3))
    assert _scalars(_load(tmp_path), "test_accuracy") == [(1, 0.5), (2, 0.5), (3, 0.5)]


def test_a_trial_without_an_epoch_has_its_hparams_alone(tmp_path, caplog):
    with make_trackers(("tensorboard",), tmp_path) as trackers:
        trackers.log_hparams(0, {"learning_rate": 1e30}, {"test_accuracy": -math.inf})
        trackers.log_epoch(1, 1, {"train_loss": math.nan, "test_accuracy": 0.5})
    assert not caplog.text
    events = _load(tmp_path)
    start = _hparams(events, "session_start_info").session_start_info
    assert start.hparams["learning_rate"].number_value == 1e30 and not events.Tags()["scalars"]
    assert _load(tmp_path, 1).Tags()["scalars"] == ["test_accuracy"]


def test_a_resumed_trial_that_ends_at_once_keeps_its_epochs(tmp_path):
    with make_trackers(("tensorboard",), tmp_path) as trackers:
        _log(trackers, (1, 2))
    file = next((tmp_path / "tensorboard" / "trial_00000").iterdir())
    with open(file, "ab") as stream:
        stream.write(b"torn")
    with make_trackers(("tensorboard",), tmp_path) as trackers:
        trackers.log_hparams(0, {"learning_rate": 1.0}, {})
    events = _load(tmp_path)
    assert _scalars(events, "train_loss") == [(1, 1.0), (2, 2.0)]
    assert _hparams(events, "session_start_info").HasField("session_start_info")


def test_a_text_on_the_whole_sweep_replaces_the_one_before(tmp_path, caplog):
    for text in ("**first**", "**second**"):
        with make_trackers(("tensorboard", "mlflow"), tmp_path) as trackers:
            trackers.log_text("diagnosis", text)
    assert not caplog.text  # MLflow has no place for it, and isn't left out for that
    events = EventAccumulator(str(tmp_path / "tensorboard" / "sweep")).Reload()
    (found,) = events.Tensors("diagnosis/text_summary")
    assert found.tensor_proto.string_val[0] == b"**second**"


def test_mlflow_has_a_run_per_trial_that_goes_on(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with make_trackers(("mlflow",), tmp_path) as trackers:
        _log(trackers, (1, 2), trial=0)
        _log(trackers, (1, 2), trial=7)
        results = {"best_test_accuracy": 0.75, "final_test_loss": 0.5}
        trackers.log_hparams(0, {"learning_rate": 1e-4, "optimizer": "adam"}, results)
    with make_trackers(("mlflow",), tmp_path) as trackers:
        _log(trackers, (2, 3), trial=7)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = next(e for e in client.search_experiments() if e.name.startswith(tmp_path.name))
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["trial_00000", "trial_00007"]
    ended, open_run = runs["trial_00000"], runs["trial_00007"]
    assert ended.data.params == {"learning_rate": "0.0001", "optimizer": "adam"}
    assert ended.data.metrics == {
        "train_loss": 2.0, "test_accuracy": 0.5, "best_test_accuracy": 0.75, "final_test_loss": 0.5,
    }  # fmt: skip
    assert (ended.info.status, open_run.info.status) == ("FINISHED", "RUNNING")
    history = client.get_metric_history(open_run.info.run_id, "train_loss")
    assert {(item.step, item.value) for item in history} == {(1, 1.0), (2, 2.0), (3, 3.0)}


def test_wandb_has_a_run_per_trial_that_goes_on(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "nobody"))
    monkeypatch.setenv("HOME", str(tmp_path))  # its logs lie in a cache there
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    workdir = tmp_path / "sweep"
    workdir.mkdir()
    with make_trackers(("wandb",), workdir) as trackers:
        _log(trackers, (1, 2), trial=0)
        _log(trackers, (1, 2), trial=7)
        trackers.log_hparams(0, {"learning_rate": 1e-4, "optimizer": "adam"}, {"best_test_accuracy": 0.75})
    with make_trackers(("wandb",), workdir) as trackers:
        _log(trackers, (3,), trial=7)
    files = sorted((workdir / "wandb").glob("offline-run-*/*.wandb"))
    ended, first, second = (_read_wandb(file) for file in sorted(files, key=lambda f: f.stem[-1]))
    assert ended["history"] == [(1, 1.0), (2, 2.0)] and first["history"] == ended["history"]
    assert second["history"] == [(3, 3.0)] and second["id"] == first["id"] != ended["id"]
    assert ended["project"] == "sweep"
    assert ended["config"] == {"learning_rate": "0.0001", "optimizer": '"adam"'}
    assert ended["summary"]["best_test_accuracy"] == "0.75"


def _read_wandb(file):
    """Reads what `wandb sync` would send: the records of a LevelDB log, as wandb's own messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = {"history": [], "config": {}, "summary": {}}
    records = [Record.FromString(data) for data in _read_log(file.read_bytes())]
    if not records or records[-1].WhichOneof("record_type") != "exit":  # wandb's own process is still writing
        time.sleep(0.1)
        return _read_wandb(file)
    for record in records:
        kind = record.WhichOneof("record_type")
        items = {item.key or item.nested_key[0]: item.value_json for item in _items(record, kind)}
        if kind == "history":
            found["history"].append((record.history.step.num, float(items["train_loss"])))
        elif kind == "run":
            found |= {"id": record.run.run_id, "project": record.run.project}
        elif kind in ("config", "summary"):
            found[kind] |= items
    return found


def _read_log(data):
    block, header, at, record = 1 << 15, struct.Struct("<IHB"), 7, b""  # seven bytes name the format
    while at + header.size <= len(data):
        _, length, kind = header.unpack_from(data, at)
        record += data[at + header.size : at + header.size + length]
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""
        at += header.size + length
        if block - at % block < header.size:
            at += block - at % block


def _items(record, kind):
    if kind == "history":
        return record.history.item
    return getattr(record, kind).update if kind in ("config", "summary") else ()


def test_a_package_that_is_missing_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"trackers='wandb' .*pip install wandb"):
        make_trackers(("wandb",), tmp_path)


def test_unknown_tracker_is_refused(tmp_path):
    with pytest.raises(
        ConfigError, match="trackers='wandbee' is not allowed: expected among tensorboard, wandb, mlflow"
    ):
        make_trackers(("tensorboard", "wandbee"), tmp_path)


def test_failing_tracker_is_reported_once_and_left_out(small_disk, caplog):
    (small_disk / "filler").write_bytes(b"x" * (1 << 20))
    with caplog.at_level(logging.WARNING), make_trackers(("tensorboard",), small_disk) as trackers:
        for trial in range(3):
            _log(trackers, (1, 2), trial)
        trackers.log_hparams(0, {}, {})
    assert caplog.text.count("tracker tensorboard failed") == 1 and "No space left" in caplog.text


def test_no_trackers(tmp_path):
    with make_trackers((), tmp_path) as trackers:
        _log(trackers, (1,))
    assert not list(tmp_path.iterdir())
