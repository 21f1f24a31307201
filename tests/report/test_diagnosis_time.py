"""Rules on what takes the time, and on trials that had too little of it."""

import numpy as np
import pytest
from simulated_sweeps import FIXED, GUESS_LOSS, Simulator, learn

from hpjax.search.space import Axis

AXIS = Axis("weight_decay", choices=(0.0, 0.01))
RATES = Axis("learning_rate", choices=(1e-4, 1e-3))
LAYOUT = {"lanes": 1, "devices": 1, "steps_per_epoch": 100, "changes": ()}


def _timed(epoch_seconds, **layout):
    simulator = Simulator(np.random.default_rng(0))
    for decay in AXIS.choices:
        simulator.add({**FIXED, "weight_decay": decay}, *learn(6), seconds=epoch_seconds)
    layouts = ({**LAYOUT, "trained_lane_step_seconds": 0.02, **layout},)
    return simulator.diagnose(AXIS, layouts=layouts).get("evaluation_takes_the_time")


def test_evaluation_that_takes_the_time_is_named():
    (finding,) = _timed(epoch_seconds=10.0)  # of which training takes 100 steps of 20 ms
    assert finding.evidence["share"] == pytest.approx(0.8)
    assert "80% of an epoch's time isn't training: of 10 s, training takes 2 s" in finding.sentence


@pytest.mark.parametrize(
    ("seconds", "layout"),
    [
        (3.0, {}),  # a third
        (0.4, {"trained_lane_step_seconds": 0.0001}),  # nothing that anyone waits for
        (10.0, {"trained_lane_step_seconds": 0.0}),  # wasn't measured
        (10.0, {"changes": ({"after_epoch": 2},)}),  # was measured in another layout
        (10.0, {"lanes": 2}),  # no epoch had all lanes at work
    ],
)
def test_else_nothing_is_said_of_it(seconds, layout):
    assert _timed(seconds, **layout) is None


def _failed(epochs, train=GUESS_LOSS, status="complete"):
    simulator = Simulator(np.random.default_rng(0), noisy=False)
    for rate in RATES.choices:
        losses = np.broadcast_to(train, epochs)
        simulator.add({**FIXED, "learning_rate": rate}, losses, losses, np.full(epochs, 5 / 6), status)
    (finding,) = simulator.diagnose(RATES)["failed_trials"]
    return finding


def test_two_epochs_of_guessing_are_too_few_to_lower_the_rate():
    finding = _failed(epochs=2)
    assert "no better than guessing after 2 epochs" in finding.sentence and finding.level == "warning"
    assert finding.advice.startswith("So few epochs say little: train longer")


def test_losses_that_still_fall_ask_for_more():
    assert "raise the learning rate" in _failed(10, np.linspace(1.79, 1.7, 10)).advice


def test_losses_above_guessing_and_divergence_ask_for_a_lower_rate():
    assert _failed(10, np.full(10, 2.5)).advice.startswith("Lower the learning rate")
    found = _failed(2, np.full(2, 1.7), "diverged")
    assert found.advice.startswith("Lower the learning rate") and found.level == "severe"


def test_losses_that_stand_still_ask_for_both():
    assert "lower and higher" in _failed(10, np.full(10, 1.75)).advice
