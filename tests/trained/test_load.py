"""A finished trial's model predicts what the sweep recorded."""

import os

import jax.numpy as jnp
import numpy as np
import pytest

import hpjax
from hpjax.config import parse_config
from hpjax.data.dataset import load_dataset
from hpjax.errors import CheckpointError, ConfigError, WorkdirError
from hpjax.sweep import run_sweep

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
        logits = np.asarray(model(jnp.asarray(test.images, jnp.float32) / 255))
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


def test_weights_under_another_name_and_damaged_ones_are_refused(result):
    kept = _kept(result)
    one, other = (result.workdir / "checkpoints" / "trials" / f"trial_{n:05d}" for n in kept)
    swap = one.with_name("trial_99999")
    for source, target in ((one, swap), (other, one), (swap, other)):
        source.rename(target)
    for trial in kept:
        with pytest.raises(CheckpointError, match="under another name"):
            hpjax.load_trial(result.workdir, trial)
    os.truncate(one / "ledger" / "ledger.json", 10)
    with pytest.raises(CheckpointError, match="is damaged"):
        hpjax.load_trial(result.workdir, kept[0])


OWN = """
from flax import nnx

class Net(nnx.Module):
    def __init__(self, *, num_classes, rngs):
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.out = nnx.Linear(3, num_classes, rngs=rngs)

    def __call__(self, images):
        return self.out(self.dropout(self.norm(images).mean((1, 2))))
"""


def test_a_model_of_ones_own_is_found_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    config = parse_config({**CONFIG, "model": {"name": "mine.py:Net"}, "sweep": {}})
    (row,) = run_sweep(config, "sweep").trials
    monkeypatch.chdir("/")
    model, variables = hpjax.load_trial(tmp_path / "sweep", 0)
    test = load_dataset(config.data, config.seed).test
    logits = np.asarray(model(jnp.asarray(test.images, jnp.float32) / 255))
    assert np.mean(logits.argmax(1) == test.labels) == pytest.approx(row.final_test_accuracy)
    assert variables["batch_stats"]["norm"]["mean"].shape == (3,)
    (tmp_path / "mine.py").unlink()
    with pytest.raises(ConfigError, match="mine.py doesn't"):
        hpjax.load_trial(tmp_path / "sweep", 0)
