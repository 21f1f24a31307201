"""The optimizer's step as training takes it, against optax applied to the whole tree at once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from hpjax.ops.pieces import LARGE
from hpjax.train.hparams import create_hparams
from hpjax.train.optimizer import (
    ELEMENTWISE,
    OPTIMIZER_NAMES,
    OptimizerRule,
    global_norm,
    make_optimizer,
)
from hpjax.train.update import Numbers, in_pieces, update_weights

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


def _step(rule, hparams, healthy, grads, params, opt_state):
    """Returns what `train_step` makes of these gradients."""
    update = in_pieces(update_weights) if rule.elementwise else update_weights
    numbers = Numbers(hparams, global_norm(grads), jnp.asarray(healthy))
    return update(rule, numbers, grads, opt_state, params)


def _optax_step(rule, hparams, grads, params, opt_state):
    updates, opt_state = make_optimizer(rule, hparams).update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def _three_steps(rule, hparams):
    """Returns weights and state after three steps as training takes them, and as optax does."""
    params = _tree(0)
    got = want = (params, make_optimizer(rule, hparams).init(params))
    step = jax.jit(lambda hparams, grads, state: _step(rule, hparams, True, grads, *state))
    optax_step = jax.jit(lambda hparams, grads, state: _optax_step(rule, hparams, grads, *state))
    for seed in (1, 2, 3):
        got, want = step(hparams, _tree(seed), got), optax_step(hparams, _tree(seed), want)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    return got, want


def _assert_close(got, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), got, want)


@pytest.mark.parametrize("name", OPTIMIZER_NAMES)
def test_three_steps_equal_the_whole_tree(name):
    # rmsprop corrects no bias: with adam's b2 and eps it would blow up the rounding of what nearly cancels.
    changed = {"b2": 0.9, "eps": 1e-2} if name == "rmsprop" else {}
    _assert_close(*_three_steps(_rule(name), _hparams(**changed)))


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov"])
def test_three_steps_equal_the_whole_tree_to_the_bit(name):
    # Factors are powers of two: whether the compiler joins a product and a sum then changes no rounding.
    # (Adam's quotients are compiled differently where the divisor is known to be one number for all.)
    factors = {"learning_rate": 2**-6, "weight_decay": 2**-3, "momentum": 0.5}
    got, want = _three_steps(OptimizerRule(name), _hparams(**factors, clip_norm=0.0))
    jax.tree.map(np.testing.assert_array_equal, got, want)


COUPLED = [pytest.param(name, "coupled", marks=pytest.mark.landing) for name in ("adam", "lion")]


@pytest.mark.parametrize(("name", "mode"), [("adam", "decoupled"), *COUPLED])
def test_each_weight_has_its_own_rate_and_decay_in_pieces_too(name, mode):
    rule = OptimizerRule(name, mode, weight_decay_on="kernels", head="large")
    got, want = _three_steps(rule, _hparams(head_factor=0.1))
    _assert_close(got, want)
    for hparams, same in (
        (_hparams(head_factor=0.2), "small"),
        (_hparams(head_factor=0.1, weight_decay=0), "small"),
    ):
        (other, _), _ = _three_steps(rule, hparams)
        assert [w for w in SHAPES if np.array_equal(other[w][...], got[0][w][...])] == [same]


@pytest.mark.parametrize("name", ["adam", "momentum", "lamb"])
def test_an_unhealthy_lane_keeps_every_bit(name):
    rule, params = _rule(name), _tree(0)
    hparams = jax.tree.map(lambda *v: jnp.stack(v), _hparams(), _hparams(learning_rate=0.5, weight_decay=0.0))
    twice = lambda tree: jax.tree.map(lambda a: jnp.stack([a, a]), tree)  # noqa: E731
    state = twice((params, make_optimizer(rule, _hparams()).init(params)))
    grads = jax.tree.map(lambda a: a.at[1].set(jnp.nan), twice(_tree(1)))
    step = jax.jit(jax.vmap(lambda h, ok, g, s: _step(rule, h, ok, g, *s)))
    after = step(hparams, jnp.asarray([True, False]), grads, state)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1], b[1]), after, state)
    alone = _optax_step(rule, _hparams(), _tree(1), *jax.tree.map(lambda a: a[0], state))
    _assert_close(jax.tree.map(lambda a: a[0], after), alone)


def _second_step(name, params, grads):
    """Returns the second update; the first one fills the moments."""
    tx = make_optimizer(OptimizerRule(name), _hparams(), norm=jnp.float32(60.0))
    _, state = tx.update(grads, tx.init(params), params)
    return tx.update(grads, state, params)[0]


@pytest.mark.parametrize("name", OPTIMIZER_NAMES)
def test_elementwise_are_those_of_which_a_part_can_be_updated_alone(name):
    weights, grads = jnp.linspace(-1.0, 2.0, 256 * 256).reshape(256, 256), jnp.ones((256, 256)).at[0].set(5.0)
    whole = _second_step(name, {"w": weights, "b": 3 * weights}, {"w": grads, "b": 7 * grads})["w"]
    part = _second_step(name, weights[:9, :7], grads[:9, :7])
    assert np.allclose(whole[:9, :7], part, rtol=1e-6, atol=0) == (name in ELEMENTWISE)


def test_a_step_is_counted_once_however_many_pieces_there_are():
    (_, state), _ = _three_steps(OptimizerRule("adam", schedule="linear", total_steps=9), _hparams())
    counts = [int(leaf) for leaf in jax.tree.leaves(state) if leaf.ndim == 0]
    assert counts == [3, 3]
