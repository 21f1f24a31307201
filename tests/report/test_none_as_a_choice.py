"""None, where it is a choice of an option, is shown; a hyperparameter that doesn't apply is not."""

import csv
import io

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from hpjax.report.curves import label_setting
from hpjax.report.response import draw_response
from hpjax.report.style import FigureInfo
from hpjax.store.rows import TrialRow
from hpjax.store.tables import format_trials
from hpjax.store.trackers import make_trackers

CHOICES = (None, "batch", True)


def _trial(number, **hyperparameters):
    measured = {"final_test_accuracy": 0.1 * number, "final_test_loss": 1.0, "epochs": 1}
    return TrialRow(number, "complete", 0, hyperparameters, **measured)


def test_tables_labels_and_figures_show_it(tmp_path):
    trials = [_trial(i, **{"model.norm": value}) for i, value in enumerate(CHOICES)] + [_trial(3)]
    rows = list(csv.DictReader(io.StringIO(format_trials(trials, ["model.norm"]))))
    assert [row["model.norm"] for row in rows] == ["None", "batch", "true", ""]
    assert label_setting(trials[0].hyperparameters, ["model.norm"]) == "model.norm = None"
    assert label_setting(trials[3].hyperparameters, ["model.norm"]) == ""
    info = FigureInfo("digits", "net", ("model.norm",), choices=("model.norm",))
    assert draw_response(trials, info, tmp_path / "response.png")


def test_tensorboard_takes_it(tmp_path):
    with make_trackers(("tensorboard",), tmp_path) as trackers:
        trackers.log_hparams(0, {"model.norm": None, "model.deep": True}, {"final_test_accuracy": 0.5})
    events = EventAccumulator(str(tmp_path / "tensorboard" / "trial_00000"))
    events.Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["model.norm"].string_value == "None" and hparams["model.deep"].bool_value
