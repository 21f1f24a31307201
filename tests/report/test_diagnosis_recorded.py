"""On the recorded curves of the article the rules say what its author said of each run."""

import numpy as np
import pytest
from simulated_sweeps import FIXED, Simulator, curves_of, recorded

from hpjax.search.space import Axis

RUNS = {
    "lr": ("learning_rate", (1e-4, 1e-2, 1e-7)),
    "batch": ("batch_size", (256, 450, 10)),
    "wd": ("weight_decay", (0.01, 1.0)),
}


def _diagnose(experiment, values=None):
    name, known = RUNS[experiment]
    simulator = Simulator(np.random.default_rng(0), noisy=False)
    for value in values or known:
        run = recorded(experiment, value)
        setting = {**FIXED, "batch_size": run["batch_size"], name: value}
        simulator.add(setting, *curves_of(run), seconds=run["seconds"])
    return simulator.diagnose(Axis(name, choices=tuple(values or known)))


def test_learning_rates():
    """1e-4 overfits after a few epochs, 1e-7 underfits, the loss bounces at 1e-2: too low, too high."""
    found = _diagnose("lr")
    (overfit,) = found["overfitting"]
    assert overfit.level == "warning" and overfit.evidence["trials"] == [0]
    assert overfit.evidence["best_epochs"] == [1] and overfit.evidence["from_epochs"] == [4]
    assert "lowest in epoch 1 (0.201) and rises from epoch 4 on" in overfit.sentence
    assert found["underfitting"][0].evidence["trials"] == [2]
    assert found["unstable_loss"][0].evidence["trials"] == [1]
    assert found["learning_rate_too_low"][0].evidence["learning_rates"] == [1e-7]
    (high,) = found["learning_rate_too_high"]
    assert high.evidence["learning_rates"] == [1e-2] and high.evidence["best_learning_rate"] == 1e-4
    assert high.evidence["largest_jump"] == pytest.approx(2.63178 / 0.795, rel=1e-3)
    assert found.keys() - {"trained_too_long"} == {
        "overfitting", "underfitting", "unstable_loss", "learning_rate_too_low", "learning_rate_too_high",
    }  # fmt: skip


def test_batch_sizes():
    """The smallest batch is the most accurate after as many epochs, at a higher cost per epoch."""
    found = _diagnose("batch")
    (batch,) = found["batch_size"]
    assert batch.sentence.startswith("After 10 epochs a batch size of 10 is more accurate than 450")
    assert batch.evidence["accuracies"] == sorted(batch.evidence["accuracies"], reverse=True)
    assert batch.evidence["batch_sizes"] == [10, 256, 450]
    assert batch.evidence["epoch_seconds"] == pytest.approx([81.25, 39.71, 42.98])
    assert "1.9 times the time per epoch" in batch.sentence
    (noise,) = found["winner_within_noise"]  # 0.8237 and 0.8117 on 3,000 images
    assert noise.evidence["accuracies"] == pytest.approx([0.82367, 0.81167])
    assert noise.evidence["images_to_decide"] > 3000
    assert found.keys() == {"batch_size", "winner_within_noise"}


def test_weight_decays():
    """1.0 leaves almost no capacity to learn."""
    found = _diagnose("wd")
    (decay,) = found["weight_decay_too_strong"]
    assert decay.evidence["weight_decays"] == [1.0] and decay.evidence["best_weight_decay"] == 0.01
    assert "almost nothing is learned" in decay.sentence
    assert found.keys() - {"still_improving"} == {"weight_decay_too_strong"}


@pytest.mark.parametrize(
    ("experiment", "value", "expected"),
    [
        ("lr", 1e-4, {"overfitting", "trained_too_long"}),
        ("lr", 1e-2, {"unstable_loss", "learning_rate_too_high"}),
        ("lr", 1e-7, {"underfitting", "learning_rate_too_low", "still_improving"}),
        ("batch", 10, set()),
        ("batch", 256, {"still_improving"}),
        ("batch", 450, set()),
        ("wd", 0.01, {"still_improving"}),
        ("wd", 1.0, {"weight_decay_too_strong"}),
    ],
)
def test_each_run_alone(experiment, value, expected):
    assert set(_diagnose(experiment, (value,))) == expected
