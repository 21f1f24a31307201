"""Fine-tuning in whole sweeps: continued to the bit, and the averaged model is what is handed over."""

import csv

import jax
import numpy as np
import pytest
import tuned_network
from interrupting import interrupt_in_second_epoch

import hpjax
from hpjax.config import parse_config
from hpjax.data.dataset import load_dataset
from hpjax.sweep import Interrupted, run_sweep

pytestmark = pytest.mark.landing
SEARCHES = {
    "grid": {"space": {"head_factor": (0.1, 10.0), "ema_decay": (0.0, 0.8)}},
    "population": {
        "space": {
            "head_factor": {"low": 0.1, "high": 10.0, "log": True},
            "ema_decay": {"low": 0.1, "high": 0.9},
        },
        "sampler": "random",
        "trials": 4,
        "pbt": {"fraction": 0.5},
    },
}


def _config(search):
    data = {"name": "synthetic_scenes", "image_size": 30, "max_train_examples": 24, "max_test_examples": 12}
    return parse_config(
        {
            "model": {**tuned_network.MODEL, "freeze": "stem"},
            "data": data,
            "train": {"epochs": 3, "batch_size": 12},
            "optimizer": {"learning_rate": 0.05, "weight_decay": 0.1, "weight_decay_on": "kernels"},
            "sweep": SEARCHES[search],
            "lanes": {"count": 4, "strategy": "fused"},
            "trackers": (),
        }
    )


def _columns(workdir):
    with open(workdir / "epochs.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    timed = ("epoch_seconds", "images_per_second", "lanes")
    return [{name: value for name, value in row.items() if name not in timed} for row in rows]


@pytest.mark.parametrize("search", SEARCHES)
def test_interrupted_and_continued_it_gives_the_same_bits(search, tmp_path, monkeypatch):
    config = _config(search)
    whole = run_sweep(config, tmp_path / "whole")
    assert whole.summary["traces"] == 1
    interrupt_in_second_epoch(monkeypatch)
    with pytest.raises(Interrupted):
        run_sweep(config, tmp_path / "sweep")
    run_sweep(config, tmp_path / "sweep")
    assert _columns(tmp_path / "sweep") == _columns(tmp_path / "whole")
    assert (search == "population") == (tmp_path / "whole" / "lineage.csv").exists()


def test_the_averaged_model_is_handed_over(tmp_path):
    config = _config("grid")
    result, test = run_sweep(config, tmp_path / "sweep"), load_dataset(config.data, config.seed).test
    for trial in result.trials:
        model = hpjax.load_trial(result.workdir, trial.trial, model_file=tuned_network.FILE).model
        logits = np.asarray(model(test.images / np.float32(255)))
        losses = -jax.nn.log_softmax(logits)[np.arange(len(test.labels)), test.labels]
        assert float(losses.mean()) == pytest.approx(trial.final_test_loss, rel=1e-4)
    losses = {trial.hyperparameters["ema_decay"]: trial.final_test_loss for trial in result.trials}
    assert losses[0.0] != losses[0.8]
