"""Classes that are never predicted, and steps that wait for their images."""

import numpy as np
import pytest
from simulated_sweeps import FIXED, Simulator, learn

from hpjax.report.diagnosis.images import SEVERAL
from hpjax.search.space import Axis

AXIS = Axis("weight_decay", choices=(0.0, 0.01))
NAMES = ("buildings", "forest", "glacier", "<b>mountain\n</b>", "sea", "street")


def _diagnose(**facts):
    simulator = Simulator(np.random.default_rng(0))
    for decay in AXIS.choices:
        simulator.add({**FIXED, "weight_decay": decay}, *learn(6), seconds=10.0)
    return simulator.diagnose(AXIS, **facts)


def _predictions(rng, recall, images):
    """Returns what a model with this recall of each class says of so many images of each."""
    taken = np.zeros(len(recall), int)
    for number, share in enumerate(recall):
        right = rng.binomial(images, share)
        others = rng.multinomial(images - right, np.delete(np.full(len(recall), 1 / (len(recall) - 1)), 0))
        taken += np.insert(others, number, right)
    return tuple((images, int(count)) for count in taken)


def test_classes_never_predicted_are_named():
    pairs = ((50, 60), (50, 70), (50, 0), (50, 0), (50, 120), (50, 50))
    (finding,) = _diagnose(predictions=pairs, class_names=NAMES)["class_never_predicted"]
    assert finding.evidence["classes"] == [2, 3] and finding.level == "warning"
    assert "2 of 6 classes are never predicted by the winner (glacier, <b>mountain" in finding.sentence
    assert "\n" not in finding.sentence and "100 test images are of them" in finding.sentence


def test_many_are_counted():
    pairs = ((50, 300), *[(50, 0)] * 5)
    (finding,) = _diagnose(predictions=pairs)["class_never_predicted"]
    assert "(class 1, class 2, class 3, 2 more)" in finding.sentence


@pytest.mark.parametrize(
    "pairs",
    [
        (),
        ((50, 50), (50, 50)),
        ((50, 50), (SEVERAL - 1, 0)),  # too few images to tell
        ((50, 50), (0, 0)),
        ((50, 1), (50, 99)),
    ],
)
def test_else_nothing_is_said(pairs):
    assert "class_never_predicted" not in _diagnose(predictions=pairs)


def test_models_that_only_confuse_classes_raise_no_alarm_and_planted_ones_do():
    rng = np.random.default_rng(0)
    recalls = [rng.uniform(0.3, 0.95, 6) for _ in range(100)]
    null = [_predictions(rng, recall, int(rng.integers(SEVERAL, 60))) for recall in recalls]
    assert not any(taken == 0 for pairs in null for _, taken in pairs)
    assert "class_never_predicted" not in _diagnose(predictions=null[0])
    planted = [[(n, 0) if i == 4 else (n, taken) for i, (n, taken) in enumerate(pairs)] for pairs in null]
    assert _diagnose(predictions=planted[1])["class_never_predicted"][0].evidence["classes"] == [4]


LAYOUT = {"lanes": 2, "devices": 1, "steps_per_epoch": 100, "changes": (), "streamed": True}
LAYOUT |= {"lane_step_seconds": 0.01, "trained_lane_step_seconds": 0.04}


def test_steps_that_wait_for_images_are_named():
    (finding,) = _diagnose(layouts=(LAYOUT,))["input_takes_the_time"]
    assert finding.evidence["ratio"] == pytest.approx(4)
    assert "4.0 times as long" in finding.sentence and "40 ms instead of 10 ms" in finding.sentence


@pytest.mark.parametrize(
    "change",
    [
        {"streamed": False},
        {"trained_lane_step_seconds": 0.016},  # as an allocator alone makes it
        {"trained_lane_step_seconds": 0.0},
        {"lane_step_seconds": 0.0},
        {"steps_per_epoch": 2},  # nothing that anyone waits for
        {"changes": ({"after_epoch": 2},)},
    ],
)
def test_else_nothing_is_said_of_the_input(change):
    assert "input_takes_the_time" not in _diagnose(layouts=({**LAYOUT, **change},))
