"""The optimizer's step: new weights and a new optimizer state, or the old ones."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float

from hpjax.ops.pieces import update_in_pieces
from hpjax.train.hparams import Hparams
from hpjax.train.optimizer import OptimizerRule, clip_factor, make_optimizer


def update_weights(
    rule: OptimizerRule,
    hparams: Hparams,
    healthy: Bool[Array, ""],
    norm: Float[Array, ""],
    grads: nnx.State,
    params: nnx.State,
    opt_state: Any,
) -> tuple[nnx.State, Any]:
    """Returns the weights and the optimizer's state after a step; the old ones if the trial isn't healthy.

    `norm` is the gradients' global one.
    """
    if not rule.elementwise:
        updates, new_state = make_optimizer(rule, hparams).update(grads, opt_state, params)
        new = (optax.apply_updates(params, updates), new_state)
        return _choose(healthy, new, (params, opt_state))

    nodes, structure = jax.tree.flatten(opt_state, is_leaf=_is_state)  # a State has an array for each weight
    moments = [jax.tree.leaves(node) for node in nodes if _is_state(node)]
    numbers = [node for node in nodes if not _is_state(node)]
    scalars = (healthy, clip_factor(norm, hparams.clip_norm), *hparams, *numbers)
    static = (rule, structure, tuple(map(_is_state, nodes)))

    weights, treedef = jax.tree.flatten(params)
    updated = [
        update_in_pieces(_update_array, tuple(olds), (grad,), scalars, *static)
        for grad, *olds in zip(jax.tree.leaves(grads), weights, *moments, strict=True)
    ]
    params, *states = (jax.tree.unflatten(treedef, arrays) for arrays in zip(*updated, strict=True))
    nothing = (jnp.zeros(0),) * (len(states) + 2)  # numbers, such as the count of steps, are the same for all
    _, numbers = _update_all(*nothing, *scalars, *static)
    return params, _join_nodes(structure, static[-1], states, numbers)


def _update_array(*arguments: Any) -> tuple[Array, ...]:
    return _update_all(*arguments)[0]


def _update_all(*arguments: Any) -> tuple[tuple[Array, ...], list[Array]]:
    """Returns one weight's new value and moments, and the new numbers of the optimizer's state."""
    *arrays, rule, structure, places = arguments
    (weight, *moments), rest = arrays[: 1 + sum(places)], arrays[1 + sum(places) :]
    (grad, healthy, factor), rest = rest[:3], rest[3:]
    hparams, numbers = Hparams(*rest[: len(Hparams._fields)]), rest[len(Hparams._fields) :]
    state = _join_nodes(structure, places, moments, numbers)
    optimizer = make_optimizer(rule, hparams._replace(clip_norm=0.0))  # the factor has clipped it
    updates, new_state = optimizer.update(grad * factor, state, weight)
    new = (optax.apply_updates(weight, updates), new_state)
    weight, state = _choose(healthy, new, (weight, state))
    nodes = list(zip(jax.tree.leaves(state), places, strict=True))
    moments = [node for node, is_moment in nodes if is_moment]
    return (weight, *moments), [node for node, is_moment in nodes if not is_moment]


def _join_nodes(structure: Any, places: tuple[bool, ...], moments: Sequence, numbers: Sequence) -> Any:
    """Returns the optimizer's state with `moments` where `places` says so, and `numbers` elsewhere."""
    first, second = iter(moments), iter(numbers)
    return jax.tree.unflatten(structure, [next(first if is_moment else second) for is_moment in places])


def _is_state(node: Any) -> bool:
    return isinstance(node, nnx.State)


def _choose(healthy: Bool[Array, ""], new: Any, old: Any) -> Any:
    return jax.tree.map(lambda n, o: jnp.where(healthy, n, o), new, old)
