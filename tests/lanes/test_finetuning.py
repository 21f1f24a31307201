"""Frozen modules, and numbers that are only where they are used: each lane is the trial alone."""

import functools

import jax
import numpy as np
import pytest
import tuned_network
from flax import nnx

from hpjax.config import parse_config
from hpjax.data.dataset import Dataset
from hpjax.data.splits import Split
from hpjax.errors import ConfigError
from hpjax.lanes.engine import Engine, Layout
from hpjax.lanes.group import create_program, trial_hparams
from hpjax.lanes.residents import Examples
from hpjax.lanes.shuffle import Shuffle, draw
from hpjax.lanes.task import Task

EPOCHS = 2


def _split(num, seed):
    rng = np.random.default_rng(seed)
    return Split(rng.integers(0, 200, (num, 4, 4, 3), dtype=np.uint8), (np.arange(num) % 6).astype(np.int32))


TRAIN, TEST = _split(32, 0), _split(16, 1)
DATA = Dataset("drawn", tuple("abcdef"), TRAIN, None, TEST, fingerprint="")


def _config(space=(), freeze="none", **optimizer):
    space = {name: (0.5, 0.6) for name in space}  # which values are tried, a test says
    optimizer = {"learning_rate": 0.02, "weight_decay": 0.05, **optimizer}
    model = {**tuned_network.MODEL, "freeze": freeze}
    config = {"model": model, "train": {"batch_size": 16}, "optimizer": optimizer, "sweep": {"space": space}}
    return parse_config(config)


@functools.cache
def _program(config_items):
    return create_program(_config(**dict(config_items)), DATA)


def _train(trials, layout=None, **config):
    """Returns the engine and its epochs; of trials, each the values of what is searched."""
    program = _program(tuple(config.items()))
    task = Task(TRAIN, {"test": TEST}, 16, eval_batch_size=8)
    hparams = [trial_hparams(_config(**{**config, **values}), seed) for seed, values in enumerate(trials)]
    engine = Engine(program, task, hparams[0], len(trials), layout or Layout(len(trials)))
    for lane, trial in enumerate(hparams):
        engine.admit(lane, trial)
    results = [engine.run_epoch([Shuffle(5, e)] * len(trials), ("test",)) for e in range(EPOCHS)]
    engine.keep_best(np.ones(len(trials)))
    return engine, results


def _measured(results, lane):
    losses = [(r.train.loss[lane], r.evaluated["test"].loss[lane]) for r in results]
    return np.array(losses, np.float64).ravel()


def _assert_lanes_are_trials_alone(trials, **config):
    engine, together = _train(trials, **config)
    assert engine.traces == 1
    _, apart = _train(trials, Layout(1), **config)
    for lane in range(len(trials)):
        np.testing.assert_allclose(_measured(together, lane), _measured(apart, lane), rtol=1e-4)
    return engine, together


NUMBERS = ("head_factor", "warmup_fraction", "ema_decay")
LANES = (
    {"head_factor": 1.0, "warmup_fraction": 0.0, "ema_decay": 0.0},  # as if there were none of these
    {"head_factor": 0.1, "warmup_fraction": 0.0, "ema_decay": 0.0},
    {"head_factor": 1.0, "warmup_fraction": 0.5, "ema_decay": 0.0},
    {"head_factor": 1.0, "warmup_fraction": 0.0, "ema_decay": 0.7},
)
FROZEN = {"freeze": "stem+norm", "weight_decay_on": "kernels"}


def test_lanes_with_numbers_of_their_own():
    _, results = _assert_lanes_are_trials_alone(LANES, space=NUMBERS, **FROZEN)
    assert len({_measured(results, lane)[-1] for lane in range(len(LANES))}) == len(LANES)
    _, plain = _train([{}], **FROZEN)
    np.testing.assert_allclose(_measured(results, 0), _measured(plain, 0), rtol=1e-5)


@pytest.mark.parametrize(
    "config", [{"space": NUMBERS, **FROZEN}, pytest.param({"freeze": "head"}, marks=pytest.mark.landing)]
)
def test_frozen_modules_stay_as_they_begin_to_the_bit(config):
    engine, _ = _train(LANES if "space" in config else [{}] * 3, **config)
    begun = engine.program.create(trial_hparams(_config(**config), 1)).state
    fresh = {"params": nnx.to_pure_dict(begun.params), "batch_stats": nnx.to_pure_dict(begun.batch_stats)}
    parts = [(w["params"], w["batch_stats"]) for w in (engine.weights(1), fresh)]
    frozen = config["freeze"].split("+")
    for module in ("stem", "norm", "head"):
        now, then = (jax.tree.leaves([part.get(module) for part in both]) for both in parts)
        same = [np.array_equal(a, b) for a, b in zip(now, then, strict=True)]
        assert all(same) if module in frozen else not any(same)
    moments = {name for name in engine.snapshot() if ".opt_state" in name and "kernel" in name}
    assert moments and not any(f"['{module}']" in name for name in moments for module in frozen)


AVERAGED = len(LANES) - 1  # the lane with an average of its own


def _read(snapshot, lane, part):
    """Returns the trained weights, or their average, of a lane."""
    prefix = f".state.{part}['head']"
    return {name.removeprefix(prefix): a[lane] for name, a in snapshot.items() if name.startswith(prefix)}


def _equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.values(), b.values(), strict=True)) and len(a) > 0


def test_the_average_is_kept_copied_and_handed_over():
    engine, _ = _train(LANES, space=NUMBERS, **FROZEN)
    begun = engine.snapshot()
    averages = [_read(begun, lane, "average.params") for lane in range(len(LANES))]
    same = [_equal(average, _read(begun, lane, "params")) for lane, average in enumerate(averages)]
    assert same == [
        lane != AVERAGED for lane in range(len(LANES))
    ]  # without decay it is the weights themselves
    for lane in (0, AVERAGED):
        handed = engine.weights(lane)["params"]["head"]["kernel"]
        np.testing.assert_array_equal(handed, averages[lane]["['kernel'].value"])
    went_on = engine.run_epoch([Shuffle(5, EPOCHS)] * len(LANES), ("test",))
    engine.restore(begun)  # as after a kill
    again = engine.run_epoch([Shuffle(5, EPOCHS)] * len(LANES), ("test",))
    jax.tree.map(
        np.testing.assert_array_equal, (went_on.train, went_on.evaluated), (again.train, again.evaluated)
    )
    engine.restore(begun)
    engine.copy_lanes([AVERAGED, *range(1, len(LANES))])  # in a population
    assert _equal(_read(engine.snapshot(), 0, "average.params"), averages[AVERAGED])


def _count_products(freeze):
    program, shapes = _program((("freeze", freeze),)), jax.eval_shape(lambda: (TRAIN.images, TRAIN.labels))
    population = program.shapes(trial_hparams(_config(), 0), 1)
    drawn = jax.eval_shape(lambda: tuple(draw(0, 0, len(TRAIN), 16)))
    data, sums = Examples(*shapes), program.zero_sums(1)
    lowered = program.train_one.lower(population.state, sums, population.hparams, data, *drawn, 0)
    return lowered.as_text().count("stablehlo.dot_general")


def test_gradients_of_frozen_modules_are_not_computed():
    """Each dense layer takes a product, one for its weights, and the upper one for what lies below it."""
    assert [_count_products(freeze) for freeze in ("none", "stem", "stem+norm")] == [
        2 + 2 + 1,
        2 + 1 + 1,
        2 + 1,
    ]


def test_a_number_that_is_not_used_is_in_no_program():
    plain = trial_hparams(_config(), 0)
    assert plain.head_factor is None and plain.warmup_fraction is None and plain.ema_decay is None
    assert trial_hparams(_config(("head_factor",)), 0).head_factor == 1
    assert trial_hparams(_config(head_factor=2.0), 0).head_factor == 2
    assert trial_hparams(_config(warmup_fraction=0.5), 0).warmup_fraction is None  # the rule has it


def test_a_frozen_head_has_no_rate():
    with pytest.raises(
        ConfigError, match="model.freeze='head' is not allowed: expected modules without head"
    ):
        create_program(_config(freeze="head", head_factor=2.0), DATA)
