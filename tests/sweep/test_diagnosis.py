"""A real sweep says what stands out: in its summary, in TensorBoard, on the terminal and to Python."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hpjax.config import parse_config
from hpjax.main import _describe
from hpjax.report.diagnosis import Finding, describe_findings
from hpjax.sweep import load_result, run, run_sweep


def _config(net, **sweep):
    data = {"name": "synthetic_scenes", "image_size": 16, "max_train_examples": 60, "max_test_examples": 24}
    return parse_config(
        {
            "model": {"name": net},
            "data": data,
            "train": {"batch_size": 20, "epochs": 6},
            "sweep": {"space": {"learning_rate": (1e-3, 1e38)}, **sweep},
        }
    )


@pytest.fixture(scope="module")
def finished(net, tmp_path_factory):
    return run_sweep(_config(net), tmp_path_factory.mktemp("sweep") / "s")


def test_findings_stand_in_the_summary(finished):
    summary = json.loads((finished.workdir / "summary.json").read_text())
    assert finished.diagnosis == [Finding(**entry) for entry in summary["findings"]]
    named = {finding.name: finding for finding in finished.diagnosis}
    assert named["learning_rate_too_high"].evidence["learning_rates"] == [1e38]
    assert load_result(finished.workdir).diagnosis == finished.diagnosis


def test_the_summary_says_what_findings_rest_on(finished):
    data = finished.summary["data"]
    assert len(data["classes"]) == 6 and data["copies_of_train"] == 0
    assert data["class_counts"] == {"train": [10] * 6, "test": [4] * 6}


def test_findings_stand_in_tensorboards_text_tab(finished):
    events = EventAccumulator(f"{finished.workdir}/tensorboard/sweep").Reload()
    (text,) = events.Tensors("diagnosis/text_summary")
    shown = text.tensor_proto.string_val[0].decode()
    assert all(finding.sentence in shown for finding in finished.diagnosis)
    assert events.SummaryMetadata("diagnosis/text_summary").plugin_data.plugin_name == "text"


def test_findings_are_the_last_lines(finished):
    """Before the outcome, which is the last: it says whether any trial ended well."""
    lines, shown = _describe(finished).splitlines(), describe_findings(finished.diagnosis)
    assert 1 <= len(shown) <= 4 and finished.diagnosis[0].sentence in shown[0]
    assert lines[-len(shown) - 1 :] == [*shown, finished.outcome]


def test_a_diagnosis_that_fails_is_left_out_with_a_line(net, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(run, "create_facts", lambda *_: 1 / 0)
    result = run_sweep(_config(net), tmp_path / "s")
    assert result.summary["finished"] and result.diagnosis == []
    assert caplog.text.count("the diagnosis is left out: ZeroDivisionError") == 1


def test_an_unfinished_sweep_is_diagnosed_when_asked(finished):
    path = finished.workdir / "summary.json"
    saved = path.read_text()
    summary = json.loads(saved)
    del summary["findings"], summary["data"]["copies_of_train"]
    path.write_text(json.dumps(summary))
    try:
        assert load_result(finished.workdir).diagnosis == finished.diagnosis
    finally:
        path.write_text(saved)
