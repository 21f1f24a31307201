"""The optimizer's step, and on a CPU the same step in one pass over memory."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float

from hpjax.ops import target
from hpjax.ops.pieces import update_in_pieces
from hpjax.train.hparams import Hparams
from hpjax.train.optimizer import OptimizerRule, make_optimizer


class Numbers(NamedTuple):
    """The scalars of one step, which all weights share."""

    hparams: Hparams
    norm: Float[Array, ""]  # the gradients' global one
    healthy: Bool[Array, ""]  # whether the step is taken


Update = Callable[[OptimizerRule, Numbers, Any, Any, Any], tuple[Any, Any]]


def update_weights(rule: OptimizerRule, numbers: Numbers, grads, opt_state, params) -> tuple[Any, Any]:
    """Returns the weights and the optimizer's state after a step; the old ones if it isn't healthy."""
    tx = make_optimizer(rule, numbers.hparams, numbers.norm)
    updates, new_state = tx.update(grads, opt_state, params)
    new = optax.apply_updates(params, updates), new_state
    return jax.tree.map(lambda n, o: jnp.where(numbers.healthy, n, o), new, (params, opt_state))


def in_pieces(update: Update) -> Update:
    """Returns an `update` of the same results which, on a CPU, reads and writes each large array once.

    Args:
      update: a function of its module, as `update_weights`; a value that it computes depends on no other
        weight and on no other element of its own weight, `numbers` apart (see `OptimizerRule.elementwise`).
    """

    def update_by_weight(rule: OptimizerRule, numbers: Numbers, grads, opt_state, params) -> tuple[Any, Any]:
        at_once = update(rule, numbers, grads, opt_state, params)
        if target.backend() != "cpu":
            return at_once
        moments, shared = _partition(opt_state)
        scalars, structure = jax.tree.flatten((numbers, shared))
        weights, treedef = jax.tree.flatten(params)
        news = [
            update_in_pieces(_update_piece, tuple(olds), (grad,), tuple(scalars), update, own, structure)
            for own, grad, *olds in zip(
                rule.for_each(params), jax.tree.leaves(grads), weights, *moments, strict=True
            )
        ]
        params, *moments = (jax.tree.unflatten(treedef, arrays) for arrays in zip(*news, strict=True))
        # What the weights share, as the count of steps, is taken from the step at once; XLA drops its rest.
        return params, _combine(moments, _partition(at_once[1])[1])

    return update_by_weight


def _update_piece(*arguments: Any) -> tuple[Array, ...]:
    """Returns a piece of one weight and of its moments after the step."""
    *arrays, update, rule, structure = arguments
    scalars = arrays[len(arrays) - structure.num_leaves :]
    weight, *moments, grad = arrays[: len(arrays) - structure.num_leaves]
    numbers, shared = jax.tree.unflatten(structure, scalars)
    weight, state = update(rule, numbers, grad, _combine(moments, shared), weight)
    places = jax.tree.leaves(shared, is_leaf=_is_none)
    return weight, *(new for new, place in zip(jax.tree.leaves(state), places, strict=True) if place is None)


def _partition(opt_state: Any) -> tuple[list[list[Array]], Any]:
    """Returns the arrays of what has one for each weight, and the rest with None in its places."""
    nodes = jax.tree.leaves(opt_state, is_leaf=_is_moments)
    shared = jax.tree.map(lambda node: None if _is_moments(node) else node, opt_state, is_leaf=_is_moments)
    return [jax.tree.leaves(node) for node in nodes if _is_moments(node)], shared


def _combine(moments: Sequence[Any], shared: Any) -> Any:
    """Returns the state with `moments` in the places where `shared` has None."""
    following = iter(moments)
    return jax.tree.map(lambda node: next(following) if node is None else node, shared, is_leaf=_is_none)


def _is_moments(node: Any) -> bool:
    return isinstance(node, nnx.State)  # as the weights are


def _is_none(node: Any) -> bool:
    return node is None
