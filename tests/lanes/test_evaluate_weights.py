"""Reading a finished trial's test figures: what the engine had, without an engine."""

import dataclasses
import sys
import textwrap

import jax
import numpy as np
import pytest

from hpjax.config import parse_config
from hpjax.data.dataset import load_dataset
from hpjax.errors import CheckpointError
from hpjax.lanes.engine import Engine, Layout
from hpjax.lanes.group import create_program, create_task, evaluate_weights, trial_hparams
from hpjax.lanes.shuffle import Shuffle

# Its lambda makes no two instances equal, and its noise isn't switched off by `eval()`.
OWN = textwrap.dedent(
    """
    import jax
    from flax import nnx

    calls = []

    class Noisy(nnx.Module):
        def __init__(self, *, num_classes, rngs):
            self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.act = lambda x: nnx.relu(x)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.streams = rngs.fork()
            self.out = nnx.Linear(4, num_classes, rngs=rngs)

        def __call__(self, images):
            calls.append(images.shape)
            x = self.act(self.norm(self.conv(images))).mean((1, 2))
            x = x + 0.5 * jax.random.normal(self.streams.dropout(), x.shape, x.dtype)
            return self.out(self.dropout(x))
    """
)


class Untouchable:
    """Images of which only the shape may be asked."""

    def __init__(self, images):
        self.shape = images.shape


@pytest.fixture
def own_model(tmp_path):
    (tmp_path / "noisy.py").write_text(OWN)
    return f"{tmp_path / 'noisy.py'}:Noisy"


def _config(name="custom_cnn", precision="float32"):
    data = {"name": "synthetic_scenes", "image_size": 30, "max_train_examples": 48, "max_test_examples": 36}
    return parse_config(
        {
            "model": {"name": name, "kernel_widths": (3, 3, 3)},
            "data": data,
            "train": {"batch_size": 16, "precision": precision},
            "optimizer": {"learning_rate": 3e-3},
        }
    )


def _train(config, dataset, seeds):
    """Returns each trial's weights after an epoch, and the engine's own sums over the test split."""
    trials = [trial_hparams(config, seed) for seed in seeds]
    task = create_task(config, dataset, test_each_epoch=True)
    engine = Engine(create_program(config, dataset), task, trials[0], len(trials), Layout(len(trials)))
    for lane, trial in enumerate(trials):
        engine.admit(lane, trial)
    sums = engine.run_epoch([Shuffle(0, 0)] * len(trials), ("test",)).evaluated["test"]
    engine.keep_best(np.ones(len(trials)))
    return [engine.weights(lane) for lane in range(len(trials))], sums


def _read(config, dataset, weights, seed):
    """Returns the sums, read with no engine and no training images."""
    train = dataclasses.replace(dataset.train, images=Untouchable(dataset.train.images))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "__init__", lambda *_: pytest.fail("an engine was built"))
        return evaluate_weights(config, dataclasses.replace(dataset, train=train), weights, seed)


def _assert_equal(sums, expected, lane, rtol=1e-5):
    np.testing.assert_allclose(sums.loss, expected.loss[lane], rtol=rtol)
    assert (sums.correct, sums.count) == (expected.correct[lane], expected.count[lane])


@pytest.mark.parametrize(
    ("precision", "rtol"), [("float32", 1e-5), pytest.param("bfloat16", 1e-2, marks=pytest.mark.landing)]
)
def test_equals_the_engines_own_figures(precision, rtol):
    config = _config(precision=precision)
    dataset = load_dataset(config.data, 0)
    weights, expected = _train(config, dataset, (0, 1))
    for lane, seed in enumerate((0, 1)):
        sums = _read(config, dataset, weights[lane], seed)
        # In bfloat16 another fusion rounds to 8 bits elsewhere, which may turn a close decision, too.
        np.testing.assert_allclose(sums.loss, expected.loss[lane], rtol=rtol)
        assert abs(float(sums.correct - expected.correct[lane])) <= (precision == "bfloat16")
        assert sums.count == expected.count[lane] == 36


@pytest.mark.landing
def test_a_users_model_is_compiled_once_for_five_trials_and_keeps_its_streams(own_model):
    config = _config(own_model)
    dataset = load_dataset(config.data, 0)
    weights, expected = _train(config, dataset, range(5))
    (module,) = (m for name, m in sys.modules.items() if name.startswith("hpjax_user_noisy") and m.calls)
    module.calls.clear()
    for seed in range(5):
        _assert_equal(_read(config, dataset, weights[seed], seed), expected, seed)
    assert module.calls == [(36, 30, 30, 3)]
    # The noise is that of the trial's own seed.
    assert _read(config, dataset, weights[0], 1).loss != pytest.approx(float(expected.loss[0]), rel=1e-5)


def test_what_is_read_leaves_nothing_on_the_device():
    config = _config()
    dataset = load_dataset(config.data, 0)
    weights, _ = _train(config, dataset, (0,))
    before = {id(array) for array in jax.live_arrays()}
    sums = _read(config, dataset, weights[0], 0)
    left = [array for array in jax.live_arrays() if id(array) not in before]
    assert sum(array.nbytes for array in left) < 100, sums


def test_weights_of_another_model_are_refused_in_one_line():
    config = _config()
    dataset = load_dataset(config.data, 0)
    (weights,), _ = _train(config, dataset, (0,))
    del weights["params"]["conv2"]["bias"]
    with pytest.raises(CheckpointError) as error:
        evaluate_weights(config, dataset, weights, 0)
    assert str(error.value) == "the weights don't fit the model: params/conv2/bias is missing"
