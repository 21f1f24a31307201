"""A finished trial's model predicts what the sweep recorded."""

import json
import os
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

import hpjax
from hpjax.config import parse_config
from hpjax.data.dataset import load_dataset
from hpjax.errors import CheckpointError, ConfigError, HpjaxError, UserCodeError, WorkdirError
from hpjax.store.ledger import seal_ledger
from hpjax.sweep import load_result, run_sweep

CONFIG = {
    "model": {"kernel_widths": (3, 3, 3)},
    "data": {"name": "synthetic_scenes", "image_size": 30, "max_train_examples": 60, "max_test_examples": 48},
    "train": {"batch_size": 12, "epochs": 3},
    "sweep": {"space": {"learning_rate": (1e-3, 3e-3, 1e-30)}},
    "lanes": {"strategy": "fused"},
    "checkpoint": {"keep": 2},
}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return run_sweep(parse_config(CONFIG), tmp_path_factory.mktemp("trained") / "sweep")


def _kept(result) -> list[int]:
    folders = (result.workdir / "checkpoints" / "trials").iterdir()
    return sorted(int(folder.name.removeprefix("trial_")) for folder in folders)


def test_the_recorded_accuracy_is_reproduced(result):
    config = parse_config(CONFIG)
    test = load_dataset(config.data, config.seed).test
    assert len(_kept(result)) == 2
    for trial in _kept(result):
        model, variables = hpjax.load_trial(result.workdir, trial)
        logits = np.asarray(model(test.images))
        assert np.mean(logits.argmax(1) == test.labels) == pytest.approx(
            result.trials[trial].final_test_accuracy
        )
        assert set(variables) == {"params", "batch_stats"}


def test_what_cannot_be_loaded_is_named(result, tmp_path):
    with pytest.raises(CheckpointError, match="there is no trial 3 in .*: its trials are 0 to 2"):
        hpjax.load_trial(result.workdir, 3)
    (lost,) = {0, 1, 2} - set(_kept(result))
    with pytest.raises(
        CheckpointError, match=f"trial {lost} has no checkpoint in .*: kept are .*checkpoint.keep"
    ):
        hpjax.load_trial(result.workdir, lost)
    with pytest.raises(WorkdirError, match="can't read"):
        hpjax.load_trial(tmp_path, 0)


def test_weights_under_another_name_and_damaged_ones_are_refused(result, tmp_path):
    kept, workdir = _kept(result), shutil.copytree(result.workdir, tmp_path / "copy")
    one, other = (workdir / "checkpoints" / "trials" / f"trial_{n:05d}" for n in kept)
    swap = one.with_name("trial_99999")
    for source, target in ((one, swap), (other, one), (swap, other)):
        source.rename(target)
    for trial in kept:
        with pytest.raises(CheckpointError, match="under another name"):
            hpjax.load_trial(workdir, trial)
    os.truncate(one / "ledger" / "ledger.json", 10)
    with pytest.raises(CheckpointError, match="is damaged"):
        hpjax.load_trial(workdir, kept[0])


OWN = """
import layers_of_load
from flax import nnx

class Net(nnx.Module):
    def __init__(self, *, num_classes, rngs):
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.out = nnx.Linear(3, num_classes, rngs=rngs)

    def __call__(self, images):
        return self.out(self.dropout(self.norm(images).mean((1, 2))))
"""


LAYERS = "from flax import nnx\n\nDropout = nnx.Dropout\n"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with a model of the user's own, and the sweep over it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.py").write_text(OWN.replace("nnx.Dropout", "layers_of_load.Dropout"))
    (folder / "layers_of_load.py").write_text(LAYERS)
    run_sweep(_own_config(folder), folder / "sweep")
    return folder


def _own_config(folder):
    return parse_config({**CONFIG, "model": {"name": f"{folder}/mine.py:Net"}, "sweep": {}})


def test_a_model_of_ones_own_is_loaded_from_the_file_that_is_named(own, tmp_path, monkeypatch):
    shutil.copy(own / "mine.py", tmp_path / "renamed.py")
    shutil.copy(own / "layers_of_load.py", tmp_path)
    config = _own_config(own)
    row = load_result(own / "sweep").trials[0]
    test = load_dataset(config.data, config.seed).test
    monkeypatch.chdir(tmp_path)
    for file in (own / "mine.py", str(tmp_path / "renamed.py"), "renamed.py"):
        model, variables = hpjax.load_trial(own / "sweep", 0, model_file=file)
        logits = np.asarray(model(jnp.asarray(test.images, jnp.float32) / 255))
        assert np.mean(logits.argmax(1) == test.labels) == pytest.approx(row.final_test_accuracy)
        assert variables["batch_stats"]["norm"]["mean"].shape == (3,)


def _plant(file):
    """Has a file write down that it was run."""
    file.write_text(f"open({str(file.with_suffix('.run'))!r}, 'w').close()\n" + file.read_text())


@pytest.mark.parametrize("name", ["mine.py", "layers_of_load.py"])
def test_no_file_is_run_that_is_not_named_or_was_changed(own, tmp_path, name):
    place = shutil.copytree(own, tmp_path / "place")
    _plant(place / name)
    with pytest.raises(UserCodeError, match=r"trained with another content of .*; pass the file as it was"):
        hpjax.load_trial(place / "sweep", 0, model_file=place / "mine.py")
    for file in own.glob("*.py"):  # where the checkpoint says that the model lies
        _plant(file)
    try:
        with pytest.raises(UserCodeError, match=r"Net of .*mine.py: pass model_file=PATH"):
            hpjax.load_trial(place / "sweep", 0)
    finally:
        (own / "mine.py").write_text(OWN.replace("nnx.Dropout", "layers_of_load.Dropout"))
        (own / "layers_of_load.py").write_text(LAYERS)
    assert not [*place.rglob("*.run"), *own.rglob("*.run")]


def test_a_model_file_that_cannot_be_is_named(own, result, tmp_path):
    os.mkfifo(tmp_path / "pipe.py")
    for file in ("gone.py", tmp_path, tmp_path / "pipe.py", "notes.txt", ""):
        with pytest.raises(ConfigError, match="model_file=.* expected the Python file of the trial's model"):
            hpjax.load_trial(own / "sweep", 0, model_file=file)
    with pytest.raises(ConfigError, match="model_file=.* expected None: trial . of .* is a custom_cnn"):
        hpjax.load_trial(result.workdir, _kept(result)[0], model_file=own / "mine.py")


def test_a_file_without_a_recorded_hash_is_not_run(own, tmp_path):
    place = shutil.copytree(own, tmp_path / "place")
    _change_metadata(place / "sweep", 0, lambda metadata: metadata.pop("code"))
    with pytest.raises(UserCodeError, match="doesn't say what .*mine.py held"):
        hpjax.load_trial(place / "sweep", 0, model_file=place / "mine.py")


def _change_metadata(workdir, trial, change):
    folder = workdir / "checkpoints" / "trials" / f"trial_{trial:05d}"
    file = folder / "ledger" / "ledger.json"
    content = json.loads(file.read_text())
    change(content["ledger"]["metadata"])
    file.write_text(json.dumps(content))
    seal_ledger(file, folder / "arrays")


HOSTILE = (
    *(-1, 0, 1, 3, 4097, 2**31, 10**12, 10**30, 1.5, float("nan"), True, None, "", "6"),
    *("resnet18", "x" * 10_000, "\x1b[31m", "a\nb", "/etc/passwd", "nowhere.py:Net"),
    *([], [3], [3] * 100_000, [-3, 3, 3], {}, {"a": 1}),
)
KEYS = ("name", "num_classes", "image_size", "kernel_widths", "padding", "more", "model")


@pytest.mark.parametrize("number", range(len(KEYS)))
def test_hostile_metadata_is_one_line(result, tmp_path, number):
    trial, key = _kept(result)[0], KEYS[number]
    place = shutil.copytree(result.workdir, tmp_path / "place")
    for value in HOSTILE[number % 3 :: 3]:

        def change(metadata, value=value):
            inside = metadata if key == "model" else metadata["model"]
            inside[key] = value

        _change_metadata(place, trial, change)
        try:
            hpjax.load_trial(place, trial)
        except HpjaxError as error:
            assert str(error).isprintable() and len(str(error)) < 10_000, error  # arrays are listed
        else:
            assert key not in ("model", "more"), value


@pytest.mark.parametrize("value", [None, 3, "a", [], {"shape": 1}])
def test_metadata_that_is_none_is_one_line(result, tmp_path, value):
    trial, place = _kept(result)[0], shutil.copytree(result.workdir, tmp_path / "place")
    folder = place / "checkpoints" / "trials" / f"trial_{trial:05d}"
    file = folder / "ledger" / "ledger.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "ledger": {"metadata": value}}))
    seal_ledger(file, folder / "arrays")
    with pytest.raises(CheckpointError, match="is damaged"):
        hpjax.load_trial(place, trial)


@pytest.mark.parametrize(
    "inputs",
    [
        {"mean": [0.1, 0.2], "std": [1.0, 1.0]},
        {"mean": [0.1], "std": [1.0, 1.0, 1.0]},
        {"mean": [0.1], "std": [0.0]},
        {"mean": [float("nan")], "std": [1.0]},
        {"mean": [0.1], "std": [-1.0]},
        {"mean": [1e39], "std": [1.0]},
        {"mean": [0.1], "std": [1e-320]},
        {"mean": [10**400], "std": [1.0]},
        {"mean": ["a"], "std": [1.0]},
        {"mean": [0.1]},
        [1],
        None,
    ],
    ids=str,
)
def test_a_normalization_that_is_none_is_one_line(result, tmp_path, inputs):
    trial, place = _kept(result)[0], shutil.copytree(result.workdir, tmp_path / "place")
    _change_metadata(place, trial, lambda metadata: metadata.update(inputs=inputs))
    with pytest.raises(CheckpointError, match="is damaged: .") as caught:
        hpjax.load_trial(place, trial)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("size", "shape"),
    [([30, 34], []), ([30, 34], [34, 30, 3]), (30, [30, 34, 3]), (30, [1 << 24, 30, 3]), (31, [30, 30, 1])],
)
def test_sizes_that_contradict_each_other_are_one_line(result, tmp_path, size, shape):
    trial, place = _kept(result)[0], shutil.copytree(result.workdir, tmp_path / "place")
    changes = {"image_size": size, "input_shape": shape}
    _change_metadata(place, trial, lambda metadata: metadata["model"].update(changes))
    with pytest.raises(CheckpointError, match="is damaged: (image_size|input_shape) can't be"):
        hpjax.load_trial(place, trial)
