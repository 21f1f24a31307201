"""Trackers: read back with TensorBoard's own readers."""

import logging

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from hpjax.errors import ConfigError
from hpjax.store.trackers import make_trackers


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


def test_unknown_tracker_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="trackers='wandbee' is not allowed: expected tensorboard"):
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
