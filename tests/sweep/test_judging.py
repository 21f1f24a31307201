"""What the winner makes of the test images, written down once."""

import base64
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_network import DATA, MODEL

from hpjax.config import parse_config
from hpjax.data.splits import Split
from hpjax.report.__main__ import main
from hpjax.report.page import load_source
from hpjax.store.judged import Judged, Mistake, load_judged
from hpjax.sweep import judging, run_sweep


def _config(**sections):
    given = {"model": MODEL, "data": DATA, "train": {"batch_size": 12, "epochs": 2}, "trackers": ()}
    return parse_config({**given, "sweep": {"space": {"weight_decay": (0.01, 1.0)}}, **sections})


def _logits(predicted, sure):
    return np.stack([np.where(np.arange(3) == p, s, 0.0) for p, s in zip(predicted, sure, strict=True)])


@pytest.mark.parametrize(("side", "kind", "kept"), [(8, "PNG", (8, 8)), (200, "JPEG", (96, 96))])
def test_pairs_are_counted_and_the_surest_mistakes_drawn(side, kind, kept):
    images = np.random.default_rng(0).integers(0, 256, (5, side, side, 3)).astype(np.uint8)
    test = Split(images, np.array([0, 0, 1, 2, 2], np.int32))
    found = judging.judge(7, _logits([0, 1, 1, 0, 1], [9, 1, 9, 4, 2]), test, 3)
    assert sorted(map(tuple, found.counts)) == [(0, 0, 1), (0, 1, 1), (1, 1, 1), (2, 0, 1), (2, 1, 1)]
    assert [list(map(int, numbers)) for numbers in found.by_class()] == [[2, 1, 2], [1, 1, 0], [2, 3, 0]]
    assert [(m.image, m.label, m.predicted) for m in found.mistakes] == [(3, 2, 0), (4, 2, 1), (1, 0, 1)]
    sure = [mistake.probability for mistake in found.mistakes]
    assert sure == sorted(sure, reverse=True) and 0.9 < sure[0] < 1
    file = base64.b64decode(found.mistakes[0].picture)
    picture = Image.open(io.BytesIO(file))
    assert (picture.format, picture.size) == (kind, kept) and len(file) < 20_000
    if kind == "PNG":
        assert (np.asarray(picture) == images[3]).all()


def test_grey_images_are_drawn_and_features_are_none():
    labels, logits = np.array([1, 0], np.int32), _logits([0, 0], [3, 3])
    grey = np.arange(128, dtype=np.uint8).reshape(2, 8, 8, 1)
    (mistake,) = judging.judge(0, logits, Split(grey, labels), 3).mistakes
    picture = Image.open(io.BytesIO(base64.b64decode(mistake.picture)))
    assert (np.asarray(picture) == grey[0, ..., 0]).all()
    found = judging.judge(0, logits, Split(np.ones((2, 5), np.float32), labels), 3)
    assert found.mistakes == [] and sorted(map(tuple, found.counts)) == [(0, 0, 1), (1, 0, 1)]


def test_lost_weights_predict_nothing_that_fails(tmp_path):
    test = Split(np.zeros((2, 8, 8, 3), np.uint8), np.array([0, 1], np.int32))
    found = judging.judge(0, np.full((2, 3), np.nan), test, 3)
    found.save(tmp_path)
    assert load_judged(tmp_path).mistakes == [] and json.loads((tmp_path / "winner.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run_sweep(_config(), tmp_path_factory.mktemp("judged") / "sweep")


def test_a_sweep_says_what_its_winner_predicts(finished):
    found = load_judged(finished.workdir)
    images, right, taken = found.by_class()
    assert found.trial == finished.best.trial
    assert images.sum() == taken.sum() == DATA["max_test_examples"]
    assert right.sum() / images.sum() == pytest.approx(finished.best.final_test_accuracy)
    pairs = finished.summary["data"]["predictions"]
    assert pairs == np.stack([images, taken], axis=1).tolist()


def test_the_page_is_written_again_from_the_file_alone(finished, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(finished.workdir, path)
    shutil.rmtree(path / "checkpoints")
    assert main(["report", f"--workdir={path}"]) == 0
    text = (path / "report.html").read_text(encoding="utf-8")
    assert "What the winner makes of the test images" in text and "data:image/png;base64," in text


def _change(**values):
    return lambda content: {**content, **values}


MISTAKE = {"image": 0, "label": 0, "predicted": 1, "probability": 0.5, "picture": "iVBORw0KGgo="}


@pytest.mark.parametrize(
    "change",
    [
        lambda content: [],
        lambda content: {},
        _change(counts=[[0, 6, 1]]),
        _change(counts=[[0, 1]]),
        _change(counts=[[0, 1, 0]]),
        _change(mistakes=[{**MISTAKE, "label": -1}]),
        _change(mistakes=[{**MISTAKE, "probability": 2.0}]),
        _change(mistakes=[{**MISTAKE, "picture": "'><script>alert(1)</script>"}]),
        _change(mistakes=[{**MISTAKE, "picture": "PHN2Zz4="}]),  # an SVG may hold a script
        _change(mistakes=3),
        _change(classes=10**9),
    ],
)
def test_a_damaged_file_costs_its_section_alone(finished, tmp_path, change, caplog):
    path = tmp_path / "copy"
    shutil.copytree(finished.workdir, path)
    content = json.loads((path / "winner.json").read_text(encoding="utf-8"))
    (path / "winner.json").write_text(json.dumps(change(content)), encoding="utf-8")
    assert load_source(path).judged is None and "winner.json" in caplog.text
    assert main(["report", f"--workdir={path}"]) == 0
    assert 'id="winner"' not in (path / "report.html").read_text(encoding="utf-8")


def test_predictions_of_another_trial_arent_shown(finished, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(finished.workdir, path)
    Judged(1 - finished.best.trial, 6, [[0, 0, 1]]).save(path)
    assert load_source(path).judged is None


def test_what_cant_be_judged_doesnt_cost_the_sweep_its_end(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no more memory\nof the device")

    monkeypatch.setattr(judging, "predict_weights", fail)
    result = run_sweep(_config(), tmp_path / "sweep")
    assert result.summary["finished"] and not (tmp_path / "sweep" / "winner.json").exists()
    assert "winner.json is left out: RuntimeError: no more memory" in caplog.text
    assert "predictions" not in result.summary["data"]


@pytest.mark.landing
def test_without_weights_nothing_is_judged(tmp_path, caplog):
    result = run_sweep(_config(checkpoint={"keep": 0}), tmp_path / "sweep")
    assert result.summary["finished"] and not (tmp_path / "sweep" / "winner.json").exists()
    assert "winner.json" not in caplog.text


def test_formats_are_told_by_their_content():
    picture = base64.b64encode(b"\xff\xd8\xff\xe0 and so on").decode()
    assert Mistake(0, 0, 1, 0.5, picture).format == "jpeg"
    assert Mistake(0, 0, 1, 0.5, "iVBORw0KGgo=").format == "png" and not Mistake(0, 0, 1, 0.5, "").format
