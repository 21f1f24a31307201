"""The promises once more where only an accelerator can break them: its lowerings, bfloat16, its memory."""

import jax
import numpy as np
import pytest

from hpjax.config import parse_config
from hpjax.data.dataset import load_dataset
from hpjax.lanes import capacity
from hpjax.lanes.capacity import choose_layout
from hpjax.lanes.engine import Engine, Layout
from hpjax.lanes.group import create_program, create_task, trial_hparams
from hpjax.lanes.shuffle import Shuffle
from hpjax.train.hparams import create_hparams

pytestmark = pytest.mark.gpu

TRIALS = [
    create_hparams(learning_rate=rate, weight_decay=0.01, seed=i) for i, rate in enumerate((1e-4, 3e-4))
]
WILD = create_hparams(learning_rate=1e30, weight_decay=0.01, seed=1)


@pytest.fixture(
    scope="module", params=[("custom_cnn", "float32"), ("custom_cnn", "bfloat16"), ("resnet18", "bfloat16")]
)
def group(request):
    name, precision = request.param
    config = parse_config(
        {
            "model": {"name": name},
            "data": {
                "name": "synthetic_scenes",
                "image_size": 64,
                "max_train_examples": 96,
                "max_test_examples": 48,
            },
            "train": {"batch_size": 32, "precision": precision},
        }
    )
    dataset = load_dataset(config.data, 0)
    return create_program(config, dataset), create_task(config, dataset, True), trial_hparams(config, 0)


def _train(group, trials, layout, epochs=2):
    program, task, hparams = group
    engine = Engine(program, task, hparams, len(trials), layout)
    for lane, trial in enumerate(trials):
        engine.admit(lane, trial)
    return engine, [engine.run_epoch([Shuffle(0, e)] * len(trials), ("test",)) for e in range(epochs)]


def test_a_lane_equals_the_trial_alone(group):
    _, together = _train(group, TRIALS, Layout(2))
    for lane, trial in enumerate(TRIALS):
        _, alone = _train(group, [trial], Layout(1))
        for epoch, other in zip(together, alone, strict=True):
            # Products of 8 to 11 bits, summed in another order, over six steps of Adam.
            np.testing.assert_allclose(epoch.train.loss[lane], other.train.loss[0], rtol=3e-2)


def test_a_diverging_lane_changes_no_other_to_the_bit(group):
    calm, _ = _train(group, [TRIALS[0], TRIALS[1]], Layout(2))
    wild, results = _train(group, [TRIALS[0], WILD], Layout(2))
    assert list(results[-1].diverged_step >= 0) == [False, True]
    for name, array in calm.snapshot().items():
        np.testing.assert_array_equal(array[0], wild.snapshot()[name][0], err_msg=name)


def test_twice_gives_the_same_bits(group):
    engines = [_train(group, TRIALS, Layout(2, steps_per_call=2))[0] for _ in range(2)]
    first, second = (engine.snapshot() for engine in engines)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


def test_the_count_that_is_chosen_fits(group):
    choice = choose_layout(*group, wanted=16)
    _train(group, [TRIALS[0]] * choice.num_lanes, choice.layout, epochs=1)
    assert 0 < choice.memory_bytes <= capacity.device_memory_limit()
    stats = jax.devices()[0].memory_stats() or {}
    assert stats.get("peak_bytes_in_use", 0) <= stats.get("bytes_limit", np.inf)
