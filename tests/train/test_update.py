"""The optimizer's step as training takes it, against the optimizer applied to the whole tree."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from hpjax.ops.pieces import LARGE
from hpjax.train.hparams import create_hparams
from hpjax.train.optimizer import OPTIMIZER_NAMES, OptimizerRule, make_optimizer
from hpjax.train.update import update_weights

SHAPES = {"large": (5, LARGE // 4), "small": (7,)}


def _tree(seed):
    keys = jax.random.split(jax.random.key(seed), len(SHAPES))
    return nnx.State(
        {name: nnx.Param(jax.random.normal(k, SHAPES[name])) for name, k in zip(SHAPES, keys, strict=True)}
    )


def _rule(name):
    return OptimizerRule(name, "coupled", "cosine", 0.2, total_steps=10)


def _hparams(**changed):
    return create_hparams(**{"learning_rate": 1e-2, "weight_decay": 0.1, "clip_norm": 30.0, **changed})


def _in_pieces(rule, hparams, healthy, grads, *state):
    return update_weights(rule, hparams, jnp.asarray(healthy), optax.tree.norm(grads), grads, *state)


def _at_once(rule, hparams, grads, params, opt_state):
    updates, opt_state = make_optimizer(rule, hparams).update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def _assert_close(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), got, want)


@pytest.mark.parametrize("name", OPTIMIZER_NAMES)
def test_three_steps_equal_the_whole_tree(name):
    # rmsprop corrects no bias: with adam's b2 and eps it would blow up the rounding of what nearly cancels.
    changed = {"b2": 0.9, "eps": 1e-2} if name == "rmsprop" else {}
    rule, hparams, params = _rule(name), _hparams(**changed), _tree(0)
    got = want = (params, make_optimizer(rule, hparams).init(params))
    step = jax.jit(lambda grads, state: _in_pieces(rule, hparams, True, grads, *state))
    at_once = jax.jit(lambda grads, state: _at_once(rule, hparams, grads, *state))
    for seed in (1, 2, 3):
        got, want = step(_tree(seed), got), at_once(_tree(seed), want)
    _assert_close(got, want)


@pytest.mark.parametrize("name", ["adam", "momentum", "lamb"])
def test_an_unhealthy_lane_keeps_every_bit(name):
    rule, params = _rule(name), _tree(0)
    hparams = jax.tree.map(lambda *v: jnp.stack(v), _hparams(), _hparams(learning_rate=0.5, weight_decay=0.0))
    twice = lambda tree: jax.tree.map(lambda a: jnp.stack([a, a]), tree)  # noqa: E731
    state = twice((params, make_optimizer(rule, _hparams()).init(params)))
    grads = jax.tree.map(lambda a: a.at[1].set(jnp.nan), twice(_tree(1)))
    step = jax.jit(jax.vmap(lambda h, ok, g, s: _in_pieces(rule, h, ok, g, *s)))
    after = step(hparams, jnp.asarray([True, False]), grads, state)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1], b[1]), after, state)
    alone = _at_once(rule, _hparams(), _tree(1), *jax.tree.map(lambda a: a[0], state))
    _assert_close(jax.tree.map(lambda a: a[0], after), alone)
