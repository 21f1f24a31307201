"""A sweep goes on, and a finished one answers, with the images, code and weights that it began with."""

import dataclasses
import itertools
import json
import os
import shutil
import signal

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from hpjax.config import parse_config
from hpjax.config.fields import FIELDS
from hpjax.errors import DataError, HpjaxError, ModelError, WorkdirError
from hpjax.store.changes import CODE, WEIGHTS
from hpjax.sweep import Interrupted, run_sweep
from hpjax.sweep.events import Upkeep
from hpjax.sweep.groups import Opener
from hpjax.sweep.inputs import hash_files
from hpjax.sweep.protocol import Order

MODEL = """
import layers_of_mine
from flax import nnx

class Net(nnx.Module):
    def __init__(self, *, num_classes, rngs):
        self.out = nnx.Linear(3, num_classes, rngs=rngs)

    def __call__(self, images):
        return layers_of_mine.scale(self.out(images.mean((1, 2))))
"""
LAYERS = "def scale(logits):\n    return 2 * logits\n"
METRIC = 'def loss(epoch):\n    return epoch["train_loss"]\n\nloss.maximize = False\n'
ALLOWED = "def every(setting):\n    return True\n"
OTHER = "raise SystemExit('it was run')\n"  # what differs is never run
STATES = ("stopped", "finished")


def _draw(file, shade):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 10), (shade, 255 - shade, 9)).save(file)


def _save_weights(file, value):
    save_file({"out.weight": np.full((2, 3), value, np.float32), "out.bias": np.zeros(2, np.float32)}, file)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder of all that a sweep is made of, and that sweep stopped after an epoch, and finished."""
    root = tmp_path_factory.mktemp("begun")
    for split, label, number in itertools.product(("train", "test"), ("cat", "dog"), range(6)):
        _draw(root / "ok/images" / split / label / f"{number}.png", 20 * number + 100 * (label == "dog"))
    (root / "ok/model.py").write_text(MODEL)
    (root / "ok/layers_of_mine.py").write_text(LAYERS)
    (root / "ok/metric.py").write_text(METRIC)
    (root / "ok/allowed.py").write_text(ALLOWED)
    _save_weights(root / "ok/weights.safetensors", 0.1)
    run_sweep(_config(root / "ok"), root / "finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Upkeep, "boundary", _stop)
        with pytest.raises(Interrupted):
            run_sweep(_config(root / "ok"), root / "stopped")
    return root


def _stop(upkeep, status) -> Order:
    upkeep._session.signals.received = signal.SIGTERM
    return Order.STOP


@pytest.fixture
def place(begun, tmp_path):
    shutil.copytree(begun, tmp_path / "place")
    return tmp_path / "place"


def _config(ok, count=0, **names):
    names = {
        "images": "images",
        "model": "model.py",
        "metric": "metric.py",
        "weights": "weights.safetensors",
        **names,
    }
    return parse_config(
        {
            "model": {"name": f"{ok}/{names['model']}:Net", "pretrained": f"{ok}/{names['weights']}"},
            "data": {"name": "folder", "dir": f"{ok}/{names['images']}", "image_size": 10},
            "train": {"batch_size": 4, "epochs": 3},
            "sweep": {
                "space": {"learning_rate": (1e-2, 1e-1)},
                "metric": f"{ok}/{names['metric']}:loss",
                "constraints": f"{ok}/allowed.py:every",
            },
            "lanes": {"strategy": "sequential", "count": count},
            "trackers": (),
        }
    )


def _content(folder):
    return {f: f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.name != ".lock"}


def _losses(result):
    return [(row.trial, row.epoch, row.train_loss, row.test_loss) for row in result.epochs]


CHANGES = {
    "model.py": lambda file: file.write_text(OTHER),
    "layers_of_mine.py": lambda file: file.write_text(OTHER),
    "metric.py": lambda file: file.write_text(OTHER),
    "weights.safetensors": lambda file: _save_weights(file, 0.2),
    "images/train/cat/3.png": lambda file: _draw(file, 7),
    "images/test/dog/0.png": lambda file: _draw(file, 7),
}


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_is_named_before_anything_is_run_or_written(place, begun, state, name, count):
    kept = shutil.copy2(place / "ok" / name, place / "kept")
    CHANGES[name](place / "ok" / name)
    before = _content(place / state)
    with pytest.raises(WorkdirError, match="was begun (with another content|on other images)") as caught:
        run_sweep(_config(place / "ok", count), place / state)
    message = str(caught.value)
    assert str(place / "ok" / name.partition("/")[0]) in message and str(place / state) in message
    assert "restore" in message and "new --workdir" in message and "\n" not in message
    assert _content(place / state) == before
    shutil.move(kept, place / "ok" / name)
    assert len(_losses(run_sweep(_config(place / "ok", count), place / state))) == 6


@pytest.mark.parametrize("state", STATES)
def test_changed_code_is_not_run_where_the_workdir_begins_with_a_tilde(place, state, monkeypatch):
    monkeypatch.setenv("HOME", str(place))
    with open(place / "ok" / "model.py", "a", encoding="utf-8") as file:
        file.write(f"\nopen({str(place / 'ran')!r}, 'w').close()\n")
    with pytest.raises(WorkdirError, match="was begun with another content"):
        run_sweep(_config(place / "ok"), f"~/{state}")
    assert not (place / "ran").exists()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", [*CHANGES, "images"])
def test_what_is_gone_is_named(place, state, name):
    gone = place / "ok" / name
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises((WorkdirError, DataError, ModelError, HpjaxError)) as caught:
        run_sweep(_config(place / "ok"), place / state)
    assert str(place / "ok" / name.partition("/")[0]) in str(caught.value)


def _touch(place):
    for file in (place / "ok").rglob("*"):
        os.utime(file, (1, 1))


def _move(place):
    (place / "deeper").mkdir()
    shutil.move(place / "ok", place / "deeper/moved")
    return {"ok": place / "deeper/moved"}


def _copy(place):
    shutil.copytree(place / "ok", place / "copied", copy_function=shutil.copy)
    shutil.rmtree(place / "ok")
    return {"ok": place / "copied"}


def _link(place):
    (place / "link").symlink_to("ok", target_is_directory=True)
    return {"ok": place / "link"}


def _rename(place):
    names = {"model": "m.py", "metric": "n.py", "weights": "w.safetensors", "images": "photographs"}
    for (_, new), old in zip(
        names.items(), ("model.py", "metric.py", "weights.safetensors", "images"), strict=True
    ):
        (place / "ok" / old).rename(place / "ok" / new)
    return names


SPELLINGS = {
    "as it was": lambda place: {},
    "a slash": lambda place: {"images": "images/"},
    "dots": lambda place: {"ok": place / "ok" / ".." / "ok" / "."},
    "relative": lambda place: {"ok": "ok"},
    "touched": _touch,
    "moved": _move,
    "copied": _copy,
    "linked": _link,
    "renamed": _rename,
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_same_content_under_another_spelling_is_the_same(place, begun, state, spelling, monkeypatch):
    monkeypatch.chdir(place)
    names = {"ok": place / "ok", **(SPELLINGS[spelling](place) or {})}
    result = run_sweep(_config(**names), place / state)
    assert _losses(result) == _losses(run_sweep(_config(begun / "ok"), begun / "finished"))
    assert [trial.group for trial in result.trials] == [0, 0]


@pytest.mark.parametrize("state", STATES)
def test_what_names_something_else_is_refused(place, state):
    config = _config(place / "ok")
    for section, field, value in (
        ("model", "name", "custom_cnn"),
        ("model", "pretrained", ""),
        ("sweep", "metric", "train_loss"),
    ):
        changed = dataclasses.replace(getattr(config, section), **{field: value})
        with pytest.raises(WorkdirError, match=f"{section}.{field}: .* there, .*{value}.* now"):
            run_sweep(dataclasses.replace(config, **{section: changed}), place / state)


def test_a_summary_that_says_nothing_of_inputs_is_not_believed(place):
    summary = place / "finished/summary.json"
    summary.write_text(summary.read_text().replace('"inputs"', '"imputs"'))
    _draw(place / "ok/images/train/cat/3.png", 7)
    with pytest.raises(WorkdirError, match="on other images"):
        run_sweep(_config(place / "ok"), place / "finished")
    _draw(place / "ok/images/train/cat/3.png", 60)
    assert "inputs" in run_sweep(_config(place / "ok"), place / "finished").summary


@pytest.mark.parametrize("state", STATES)
def test_the_function_that_says_what_is_allowed_stays_the_same(place, state):
    (place / "ok/allowed.py").write_text(OTHER)
    with pytest.raises(WorkdirError, match=r"another content of .*allowed.py \(sweep.constraints\)"):
        run_sweep(_config(place / "ok"), place / state)


def test_a_summary_without_a_hash_does_not_pass(place):
    summary = place / "finished/summary.json"
    content = json.loads(summary.read_text())
    del content["inputs"]["files"]["sweep.metric"]
    summary.write_text(json.dumps(content))
    with pytest.raises(WorkdirError, match=r"another content of .*metric.py \(sweep.metric\)"):
        run_sweep(_config(place / "ok"), place / "finished")


def _at_the_end_of_the_first_group(monkeypatch, change):
    close, left = Opener.close, [change]

    def close_then_change(opener, group):
        close(opener, group)
        if left:
            left.pop()()

    monkeypatch.setattr(Opener, "close", close_then_change)


def _in_groups(config):
    sweep = dataclasses.replace(config.sweep, space={"batch_size": (4, 6)})
    return dataclasses.replace(config, sweep=sweep)


@pytest.mark.landing
def test_an_edit_while_it_runs_counts_neither_here_nor_there(place, monkeypatch):
    config = _in_groups(_config(place / "ok"))
    expected = _losses(run_sweep(config, place / "alone"))
    _at_the_end_of_the_first_group(monkeypatch, lambda: (place / "ok/layers_of_mine.py").write_text(OTHER))
    assert _losses(run_sweep(config, place / "edited")) == expected
    with pytest.raises(WorkdirError, match=r"another content of .*layers_of_mine.py \(model.name\)"):
        run_sweep(config, place / "edited")


@pytest.mark.landing
def test_weights_that_change_while_it_runs_end_it(place, monkeypatch):
    config, weights = _in_groups(_config(place / "ok")), place / "ok/weights.safetensors"
    expected = _losses(run_sweep(config, place / "alone"))
    kept = weights.read_bytes()
    _at_the_end_of_the_first_group(monkeypatch, lambda: _save_weights(weights, 0.2))
    with pytest.raises(WorkdirError, match=r"another content of .*weights.safetensors \(model.pretrained\)"):
        run_sweep(config, place / "changed")
    weights.write_bytes(kept)
    assert _losses(run_sweep(config, place / "changed")) == expected


def test_models_among_the_choices_are_compared_too(place):
    other = place / "ok/other.py"
    other.write_text(MODEL.replace("self.out(", "self.out(2 * "))
    config = _config(place / "ok")
    space = {"model": (f"{place}/ok/model.py:Net", f"{other}:Net")}
    config = dataclasses.replace(config, sweep=dataclasses.replace(config.sweep, space=space))
    assert hash_files(config).keys() >= {"sweep.space.model[0]", "sweep.space.model[1]"}
    run_sweep(config, place / "choices")
    other.write_text(other.read_text() + "\n")
    with pytest.raises(WorkdirError, match=r"another content of .*other.py \(sweep.space.model\[1\]\)"):
        run_sweep(config, place / "choices")


def test_every_field_that_names_a_file_is_compared_by_content():
    forms = {
        key
        for key, field in FIELDS.items()
        if any(form.name.startswith("FILE.py:") for form in field.rule.forms)
    }
    assert forms == {*CODE} and WEIGHTS in FIELDS and "data.dir" in FIELDS


def test_hashes_are_in_the_summary(begun):
    summary = run_sweep(_config(begun / "ok"), begun / "finished").summary
    assert summary["inputs"]["files"] == hash_files(_config(begun / "ok"))
    assert list(summary["inputs"]["fingerprints"]) == ["folder:10"]
