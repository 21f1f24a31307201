import operator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hpjax.errors import ConfigError
from hpjax.train.hparams import Hparams, create_hparams
from hpjax.train.optimizer import (
    OPTIMIZER_NAMES,
    SCHEDULE_NAMES,
    OptimizerRule,
    make_optimizer,
    make_schedule,
)

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.array([0.5, -0.25, 0.0])}


def gradients(params, step):
    return jax.tree.map(
        lambda p: 2 * p + 0.3 * jnp.cos(step + jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), params
    )


def run(rule, hparams, steps=10):
    optimizer = make_optimizer(rule, hparams)
    params, state = PARAMS, optimizer.init(PARAMS)
    for step in range(steps):
        updates, state = optimizer.update(gradients(params, step), state, params)
        params = optax.apply_updates(params, updates)
    return params


def first_update(rule, hparams, grads=None):
    optimizer = make_optimizer(rule, hparams)
    return optimizer.update(gradients(PARAMS, 0) if grads is None else grads, optimizer.init(PARAMS), PARAMS)[
        0
    ]


def stack(rows: list[Hparams]) -> Hparams:
    return jax.tree.map(lambda *xs: jnp.stack(xs), *rows)


@pytest.mark.parametrize("name", OPTIMIZER_NAMES)
@pytest.mark.parametrize("mode", ["coupled", "decoupled"])
def test_lanes_equal_single_trials(name, mode):
    rule = OptimizerRule(name, mode, "cosine", 0.2, total_steps=10)
    rows = [
        create_hparams(
            learning_rate=1e-2, weight_decay=0.1, momentum=0.5, b1=0.8, b2=0.9, eps=1e-6, clip_norm=0.5
        ),
        create_hparams(learning_rate=3e-2, weight_decay=0.0, momentum=0.9, b1=0.9, b2=0.99, eps=1e-8),
    ]
    lanes = jax.jit(jax.vmap(lambda h: run(rule, h, steps=4)))(stack(rows))
    for i, row in enumerate(rows):
        alone = jax.jit(lambda h: run(rule, h, steps=4))(row)
        # Programs with and without a lane axis may fuse, hence round, differently.
        lane = jax.tree.map(operator.itemgetter(i), lanes)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7), lane, alone)


@pytest.mark.parametrize("name", OPTIMIZER_NAMES)
def test_descends(name):
    before = sum(jnp.sum(p**2) for p in jax.tree.leaves(PARAMS))
    after = sum(
        jnp.sum(p**2) for p in jax.tree.leaves(run(OptimizerRule(name), create_hparams(learning_rate=0.02)))
    )
    assert after < before


def test_no_clipping_at_zero():
    rule = OptimizerRule("sgd")
    grads = jax.tree.map(lambda p: 100 * jnp.ones_like(p), PARAMS)
    update = first_update(rule, create_hparams(learning_rate=1.0, clip_norm=0.0), grads)
    np.testing.assert_allclose(update["w"], -100)


def test_clips_to_the_global_norm():
    grads = jax.tree.map(lambda p: 100 * jnp.ones_like(p), PARAMS)
    update = first_update(OptimizerRule("sgd"), create_hparams(learning_rate=1.0, clip_norm=2.0), grads)
    np.testing.assert_allclose(optax.tree.norm(update), 2.0, rtol=1e-6)


def test_clipping_leaves_a_zero_gradient_zero():
    update = first_update(
        OptimizerRule("sgd"), create_hparams(clip_norm=1.0), jax.tree.map(jnp.zeros_like, PARAMS)
    )
    assert all((u == 0).all() for u in jax.tree.leaves(update))


def test_clips_before_coupled_decay():
    grads = jax.tree.map(jnp.zeros_like, PARAMS)
    update = first_update(
        OptimizerRule("sgd"), create_hparams(learning_rate=1.0, weight_decay=5.0, clip_norm=0.1), grads
    )
    np.testing.assert_allclose(update["w"], -5 * PARAMS["w"], rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "lamb", "lion"])
def test_decoupled_by_definition(name):
    hparams = create_hparams(learning_rate=1e-2, weight_decay=0.5)
    coupled, decoupled = (run(OptimizerRule(name, mode), hparams) for mode in ("coupled", "decoupled"))
    jax.tree.map(np.testing.assert_array_equal, coupled, decoupled)


def test_coupled_differs_from_decoupled():
    hparams = create_hparams(learning_rate=1e-2, weight_decay=0.5)
    coupled, decoupled = (run(OptimizerRule("adam", mode), hparams) for mode in ("coupled", "decoupled"))
    assert not np.allclose(coupled["w"], decoupled["w"])
    jax.tree.map(np.testing.assert_array_equal, decoupled, run(OptimizerRule("adamw"), hparams))


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("lamb", lambda h: optax.lamb(0.01, 0.9, 0.999, 1e-8, weight_decay=0.1)),
        ("lion", lambda h: optax.lion(0.01, 0.9, 0.999, weight_decay=0.1)),
        ("adafactor", lambda h: optax.chain(optax.add_decayed_weights(0.1), optax.adafactor(0.01))),
    ],
)
def test_equals_optax(name, theirs):
    hparams = create_hparams(learning_rate=0.01, weight_decay=0.1)
    optimizer = theirs(hparams)
    params, state = PARAMS, optimizer.init(PARAMS)
    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to its int32 count of steps
        for step in range(10):
            updates, state = optimizer.update(gradients(params, step), state, params)
            params = optax.apply_updates(params, updates)
    # b1 and b2 are float32 here and Python floats there.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        run(OptimizerRule(name), hparams),
        params,
    )


@pytest.mark.parametrize("schedule", SCHEDULE_NAMES)
def test_schedule(schedule):
    factor = make_schedule(OptimizerRule("sgd", "coupled", schedule, 0.2, total_steps=10))
    values = [float(factor(jnp.asarray(step))) for step in range(11)]
    assert values[:2] == [0.5, 1.0]
    assert values[10] == pytest.approx(1.0 if schedule == "constant" else 0.0, abs=1e-6)
    assert all(a >= b for a, b in zip(values[1:], values[2:], strict=False))
    assert values[6] == pytest.approx({"constant": 1.0, "cosine": 0.5, "linear": 0.5}[schedule])


@pytest.mark.parametrize("schedule", SCHEDULE_NAMES)
@pytest.mark.parametrize("total", [25, pytest.param(1, marks=pytest.mark.landing)])
def test_a_lanes_own_warmup_is_that_of_the_rule(schedule, total):
    steps, fractions = jnp.arange(27), (0.0, 0.04, 0.1, 0.3, 0.9999999)
    own = OptimizerRule("sgd", "coupled", schedule, total_steps=total)
    traced = jax.jit(jax.vmap(lambda fraction: make_schedule(own, fraction)(steps)))(jnp.asarray(fractions))
    for fraction, got in zip(fractions, traced, strict=True):
        fixed = make_schedule(OptimizerRule("sgd", "coupled", schedule, fraction, total_steps=total))
        np.testing.assert_allclose(got, fixed(steps), rtol=1e-5, atol=1e-6)


def test_schedule_multiplies_the_learning_rate():
    rule = OptimizerRule("sgd", schedule="linear", total_steps=4)
    optimizer = make_optimizer(rule, create_hparams(learning_rate=2.0))
    state, sizes = optimizer.init(PARAMS), []
    for _ in range(4):
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, PARAMS), state, PARAMS)
        sizes.append(float(updates["b"][0]))
    assert sizes == [-2.0, -1.5, -1.0, -0.5]


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"name": "adagrad"}, "optimizer.name"),
        ({"weight_decay_mode": "both"}, "optimizer.weight_decay_mode"),
        ({"schedule": "step"}, "optimizer.schedule"),
        ({"warmup_fraction": 1.0}, "optimizer.warmup_fraction"),
    ],
)
def test_refuses_unknown_choices(arguments, key):
    with pytest.raises(ConfigError) as error:
        OptimizerRule(**arguments)
    assert error.value.key == key


def test_rules_are_values():
    assert OptimizerRule("adam") == OptimizerRule("adam")
    assert hash(OptimizerRule("adam")) == hash(OptimizerRule("adam"))
